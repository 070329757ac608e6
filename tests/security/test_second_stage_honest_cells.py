"""What an honest cell may go on doing after the second stage, and what it reads elsewhere."""

import pytest
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

HONEST = {
    "asyncio": (
        "import asyncio\n"
        "async def work(): await asyncio.sleep(0); return 1\n"
        "async def all_of_it(): return sum(await asyncio.gather(*(work() for _ in range(9))))\n"
        "assert asyncio.run(all_of_it()) == 9"
    ),
    "a thread of asyncio's": (
        "import asyncio\nassert asyncio.run(asyncio.to_thread(lambda: 5)) == 5"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: assert sum(pool.map(int, '1234')) == 10"
    ),
    "a pool of processes": (
        "import multiprocessing\n"
        "with multiprocessing.Pool(2) as pool: assert pool.map(len, ['a', 'bb']) == [1, 2]"
    ),
    "an executor of processes": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(2) as pool: assert list(pool.map(len, ['a', 'bb'])) == [1, 2]"
    ),
    "a process that is ended": (
        "import multiprocessing\n"
        "for end in ('terminate', 'kill'):\n"
        "    process = multiprocessing.Process(target=time.sleep, args=(60,))\n"
        "    process.start()\n"
        "    getattr(process, end)()\n"
        "    process.join()\n"
        "    assert process.exitcode in (-15, -9)"
    ),
    "pipes and queues": (
        "import multiprocessing\n"
        "near, far = multiprocessing.Pipe()\n"
        "near.send([1]); assert far.recv() == [1]\n"
        "queue = multiprocessing.SimpleQueue(); queue.put(2); assert queue.get() == 2"
    ),
    "shared memory": (
        "import multiprocessing\n"
        "from multiprocessing import shared_memory\n"
        "import inspect\n"
        "block = shared_memory.SharedMemory(create=True, size=100)\n"
        "def work(): block.buf[0] = 7\n"
        "process = multiprocessing.Process(target=work)\n"
        "process.start(); process.join(); assert block.buf[0] == 7\n"
        "block.close(); block.unlink()\n"
        "numbers = shared_memory.ShareableList([1, 2])\n"
        "assert list(numbers) == [1, 2]; numbers.shm.close(); numbers.shm.unlink()\n"
        "assert 'class ResourceTracker' in inspect.getsource(multiprocessing.resource_tracker)"
    ),
    "a connected pair": (
        "a, b = socket.socketpair()\n"
        "a.sendall(b'x'); assert b.recv(1) == b'x'\n"
        "a.close(); b.close()"
    ),
    "an alarm": (
        "heard = []\n"
        "signal.signal(signal.SIGALRM, lambda *_: heard.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "time.sleep(0.1); assert heard"
    ),
    "a limit of its own": (
        "import resource\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))"
    ),
    "its own priority": "os.nice(0); os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(0, 0))",
    "a temporary file": (
        "import tempfile\nwith tempfile.NamedTemporaryFile() as file: file.write(b'x')"
    ),
    "a database in memory": (
        "import sqlite3\n"
        "with sqlite3.connect(':memory:') as base:\n"
        "    base.execute('create table t (n)'); base.execute('insert into t values (1)')\n"
        "    assert base.execute('select n from t').fetchall() == [(1,)]"
    ),
    "a database in a file": (
        "import sqlite3\n"
        "base = sqlite3.connect('/tmp/base.db')\n"
        "with base:\n"
        "    base.execute('create table t (n)'); base.execute('insert into t values (1)')\n"
        "base.close()\n"
        "base = sqlite3.connect('/tmp/base.db')\n"
        "assert base.execute('select n from t').fetchall() == [(1,)]\n"
        "base.close(); assert os.listdir('/tmp') == ['base.db']; os.unlink('/tmp/base.db')"
    ),
    "a shelf": (
        "import shelve\n"
        "with shelve.open('/tmp/shelf') as shelf: shelf['a'] = 1\n"
        "with shelve.open('/tmp/shelf') as shelf: assert shelf['a'] == 1\n"
        "for name in os.listdir('/tmp'): os.unlink(f'/tmp/{name}')"
    ),
    "a name for a thread": (
        "import threading\n"
        "thread = threading.Thread(target=int, name='counter'); thread.start(); thread.join()"
    ),
    "the zones of the world": "import zoneinfo\nassert zoneinfo.ZoneInfo('Europe/Paris')",
}
#: What is refused, and the words a root model reads; docs/usage.md says what to write instead.
REFUSED = {
    "subprocess": ("import subprocess\nsubprocess.run(['ls'])", "PermissionError"),
    "a web page": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
        "URLError",
    ),
    "a socket": ("socket.socket()", "PermissionError"),
    "a manager": ("import multiprocessing\nmultiprocessing.Manager()", "EOFError"),
    "a lock": ("import fcntl\nfcntl.flock(os.open('/tmp', 0), fcntl.LOCK_EX)", "PermissionError"),
    "a group's end": ("os.killpg(os.getpgrp(), 9)", "PermissionError"),
}


@pytest.mark.parametrize("source", HONEST.values(), ids=HONEST)
async def test_honest_cell_runs(shared_sandbox: Sandbox, source: str) -> None:
    """What programs of models do with processes, threads, files and signals of their own works."""
    result = await run(shared_sandbox, source)

    assert result.outcome is Outcome.SUCCEEDED, result
    assert str(result.stderr) == ""


@pytest.mark.parametrize(("source", "error"), REFUSED.values(), ids=REFUSED)
async def test_refusal_is_an_ordinary_error(
    shared_sandbox: Sandbox, source: str, error: str
) -> None:
    """What is given up ends in an exception that names the call, at once, and costs nothing."""
    result = await run(shared_sandbox, source, timeout_s=5)

    assert result.outcome is Outcome.RAISED
    assert result.error is not None
    assert result.error.type_name == error
    assert await goes_on(shared_sandbox)


async def test_process_that_would_be_spawned_ends_at_once(shared_sandbox: Sandbox) -> None:
    """A start by a fresh interpreter fails in the child; nobody waits for it."""
    told = await probe(
        shared_sandbox,
        "import multiprocessing\n"
        "process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "process.start(); process.join(); tell(process.exitcode)",
    )

    assert told == 255


async def test_two_connections_to_one_database_wait_for_each_other(
    shared_sandbox: Sandbox,
) -> None:
    """A database in a file is locked by a directory beside it: a second writer is told, not let."""
    told = await probe(
        shared_sandbox,
        "import sqlite3\n"
        "first = sqlite3.connect('/tmp/two.db')\n"
        "second = sqlite3.connect('/tmp/two.db', timeout=0.1)\n"
        "first.execute('create table t (n)'); first.commit()\n"
        "first.execute('insert into t values (1)')\n"
        "beside = os.listdir('/tmp')\n"
        "try: second.execute('insert into t values (2)')\n"
        "except sqlite3.OperationalError as error: end = str(error)\n"
        "first.commit()\n"
        "second.execute('insert into t values (2)'); second.commit()\n"
        "count = second.execute('select count(*) from t').fetchone()[0]\n"
        "first.close(); second.close(); os.unlink('/tmp/two.db')\n"
        "tell([sorted(beside), end, count])",
    )

    assert told[1:] == ["database is locked", 2]
    assert "two.db.lock" in told[0]
