"""What the standard library asks the kernel for, under every filter there is.

The control of all that is refused: a profile that broke threads or files would refuse attacks too.
"""

import json

import pytest
from support.probes import run

from orchestrator.domain import Outcome
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Each ends in an expression that is true; kept to what the library's own documentation promises.
PROGRAMS = {
    "threads": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    squares = list(pool.map(lambda number: number * number, range(100)))
squares[-1] == 9801
""",
    "locks and timers": """
import threading
heard = threading.Event()
timer = threading.Timer(0.01, heard.set)
timer.start()
heard.wait(5)
""",
    "pool of processes": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(abs, [-1, -2, -3])
found == [1, 2, 3]
""",
    "queue between processes": """
import multiprocessing
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=queue.put, args=(42,))
child.start()
answer = queue.get(timeout=10)
child.join()
answer == 42 and child.exitcode == 0
""",
    "shared memory": """
from multiprocessing import shared_memory
# Untracked: the tracker is a program of its own, and a cell starts none.
block = shared_memory.SharedMemory(create=True, size=4096, track=False)
block.buf[:5] = b"hello"
again = shared_memory.SharedMemory(name=block.name, track=False)
found = bytes(again.buf[:5])
again.close(); block.close(); block.unlink()
found == b"hello"
""",
    "asyncio": """
import asyncio
async def work(number):
    await asyncio.sleep(0.01)
    return number
async def main():
    results = await asyncio.gather(*(work(number) for number in range(10)))
    loop = asyncio.get_running_loop()
    return results, await loop.run_in_executor(None, sum, results)
asyncio.run(main()) == (list(range(10)), 45)
""",
    "streams over a pair of sockets": """
import asyncio, socket
async def talk():
    near, far = socket.socketpair()
    reader, answers = await asyncio.open_connection(sock=near)
    _, writer = await asyncio.open_connection(sock=far)
    writer.write(b"line\\n")
    await writer.drain()
    line = await reader.readline()
    for end in (writer, answers):
        end.close()
        await end.wait_closed()
    return line
asyncio.run(talk()) == b"line\\n"
""",
    "selectors and pipes": """
import os, selectors
reader, writer = os.pipe()
with selectors.DefaultSelector() as selector:
    selector.register(reader, selectors.EVENT_READ)
    os.write(writer, b"x")
    ready = selector.select(timeout=5)
os.close(reader); os.close(writer)
len(ready) == 1
""",
    "descriptors of events and timers": """
import os, time
event = os.eventfd(3)
count = os.eventfd_read(event)
timer = os.timerfd_create(time.CLOCK_MONOTONIC) if hasattr(os, "timerfd_create") else None
if timer is not None:
    os.timerfd_settime(timer, initial=0.01)
    fired = int.from_bytes(os.read(timer, 8), "little")
    os.close(timer)
os.close(event)
count == 3 and (timer is None or fired == 1)
""",
    "interval timer and signal handler": """
import signal
caught = []
before = signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not caught:
    signal.pause()
signal.signal(signal.SIGALRM, before)
caught == [signal.SIGALRM]
""",
    "maps of memory": """
import mmap, tempfile
with tempfile.TemporaryFile() as file:
    file.truncate(8192)
    with mmap.mmap(file.fileno(), 8192) as view:
        view[:3] = b"abc"
        view.flush()
    file.seek(0)
    found = file.read(3)
with mmap.mmap(-1, 4096) as anonymous:
    anonymous.resize(8192)
    size = len(anonymous)
(found, size) == (b"abc", 8192)
""",
    "data base in memory": """
import sqlite3
with sqlite3.connect(":memory:") as base:
    base.execute("create table t (n integer)")
    base.executemany("insert into t values (?)", [(number,) for number in range(100)])
    [[total]] = base.execute("select sum(n) from t")
total == 4950
""",
    "data base in a file": """
import os, sqlite3, tempfile
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "base.db")
    with sqlite3.connect(path) as base:
        base.execute("create table t (n integer)")
        base.execute("insert into t values (7)")
    base.close()
    again = sqlite3.connect(path)
    [[found]] = again.execute("select n from t")
    again.close()
found == 7
""",
    "files and folders": """
import os, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "a").mkdir()
    (folder / "a/text").write_text("hello")
    os.link(folder / "a/text", folder / "hard"); os.symlink("a/text", folder / "soft")
    os.chmod(folder / "hard", 0o600); os.utime(folder / "hard", (10**9, 10**9))
    shutil.copytree(folder / "a", folder / "b")
    shutil.copy2(folder / "hard", folder / "copy")
    shutil.move(folder / "b", folder / "c")
    names = sorted(path.name for path in folder.rglob("*"))
    free = shutil.disk_usage(folder).free
    made = shutil.make_archive(str(folder / "all"), "zip", folder / "c")
    walked = sum(len(files) for _, _, files in os.walk(folder))
names == ["a", "c", "copy", "hard", "soft", "text", "text"] and free > 0 and walked == 6
""",
    "copies without a buffer": """
import errno, os, tempfile
with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
    one.write(b"0123456789"); one.flush()
    sent = os.sendfile(other.fileno(), one.fileno(), 0, 5)
    try:
        copied = os.copy_file_range(one.fileno(), other.fileno(), 5, 5)
    except OSError as error:  # gVisor has no such call, and says so as an old kernel would
        copied = 5 if error.errno == errno.ENOSYS else 0
    os.posix_fallocate(other.fileno(), 0, 4096); os.fsync(other.fileno())
    written = os.pwritev(other.fileno(), [b"ab", b"c"], 10)
    found = os.pread(other.fileno(), 3, 10)
(sent, copied, written, found) == (5, 5, 3, b"abc")
""",
    "attributes of files": """
import os, tempfile
with tempfile.NamedTemporaryFile() as file:
    state = os.statvfs(file.name)
    here = os.access(file.name, os.R_OK)
    names = os.listxattr(file.name)
state.f_bsize > 0 and here and names == []
""",
    "time": """
import datetime, time, zoneinfo
there = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
clocks = [time.time(), time.monotonic(), time.perf_counter(), time.process_time(),
          time.thread_time(), time.clock_gettime(time.CLOCK_BOOTTIME)]
time.sleep(0.001)
there.utcoffset() == datetime.timedelta(hours=2) and min(clocks) >= 0
""",
    "numbers": """
import decimal, fractions, math, random, secrets, statistics, uuid
decimal.getcontext().prec = 50
third = decimal.Decimal(1) / 3
tokens = {secrets.token_hex(16), random.SystemRandom().random(), uuid.uuid4(), uuid.uuid1()}
len(str(third)) == 52 and len(tokens) == 4 and statistics.mean([1, 2]) == 1.5
""",
    "compression and digests": """
import bz2, gzip, hashlib, lzma, zlib
data = b"data " * 1000
both = all(tool.decompress(tool.compress(data)) == data for tool in (bz2, gzip, lzma, zlib))
both and hashlib.scrypt(b"p", salt=b"s", n=2, r=1, p=1).hex() != ""
""",
    "foreign functions and their callbacks": """
import ctypes
library = ctypes.CDLL(None)
kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 4)(3, 1, 2, 0)
library.qsort(numbers, 4, 4, kind(lambda one, other: one[0] - other[0]))
list(numbers) == [0, 1, 2, 3]
""",
    "what a process knows of itself": """
import os, platform, resource, shutil, sys, threading
known = [os.getpid(), os.getppid(), os.getuid(), os.uname().sysname, platform.platform(),
         os.cpu_count(), len(os.sched_getaffinity(0)), resource.getrusage(resource.RUSAGE_SELF),
         resource.getrlimit(resource.RLIMIT_NOFILE), threading.get_native_id(), os.times(),
         os.getpgrp(), os.getsid(0), os.getpriority(os.PRIO_PROCESS, 0), os.getloadavg(),
         os.sysconf("SC_PHYS_PAGES"), shutil.get_terminal_size(), sys.stdout.isatty()]
sys.stdout.isatty() is False and None not in known
""",
    "limits and niceness of its own": """
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
os.nice(0) == 0
""",
    "children": """
import os, signal
pid = os.fork()
if pid == 0:
    os._exit(7)
first = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
pid = os.fork()
if pid == 0:
    signal.pause()
os.kill(pid, signal.SIGKILL)
(first, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) == (7, -9)
""",
    "traces of what hangs": """
import faulthandler, tempfile
with tempfile.TemporaryFile() as file:
    faulthandler.dump_traceback(file=file, all_threads=True)
    file.seek(0)
    traced = file.read()
b"most recent call first" in traced
""",
    "garbage and traces of memory": """
import gc, tracemalloc, weakref
tracemalloc.start()
class Thing: pass
thing = Thing(); seen = weakref.ref(thing); thing.self = thing; del thing
gc.collect()
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
seen() is None and peak > 0
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
async def test_honest_program_runs(shared_sandbox: Sandbox, program: str) -> None:
    """What the library promises a program it gets, and no warning of something refused."""
    *lines, last = program.strip().splitlines()

    result = await run(shared_sandbox, "\n".join([*lines, f"tell(bool({last}))"]))

    assert result.outcome is Outcome.SUCCEEDED, result.error
    assert json.loads(str(result.stdout)) is True
    assert str(result.stderr) == ""
