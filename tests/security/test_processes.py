"""A cell that starts processes and threads without end, or leaves some behind."""

from dataclasses import replace

import pytest
from support.docker_sandboxes import LIMITS, open_sandbox
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome, VariableState
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Tells how many processes one can start, and what ended it.
COUNT_PROCESSES = """
children = []
while len(children) < 200:
    try:
        pid = os.fork()
    except OSError as error:
        end = errno.errorcode[error.errno]
        break
    if pid == 0:
        signal.pause()
    children.append(pid)
else:
    end = "done"
"""
COUNT_THREADS = """
import threading
hold, count = threading.Event(), 0
try:
    while count < 200:
        threading.Thread(target=hold.wait, daemon=True).start()
        count += 1
except RuntimeError:
    pass
"""
#: Every process that there is starts another, for ever; none can be told to stop.
FORK_BOMB = """
for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""
#: Three processes take every thread that anybody gives up, at once.
THREAD_BOMB = """
import _thread
start, starter = os.pipe()
def hog():
    os.setsid()
    os.close(starter)
    os.read(start, 1)  # until all three are there: the first would leave no room for the others
    while True:
        try:
            _thread.start_new_thread(time.sleep, (1000,))
        except RuntimeError:
            pass
for _ in range(3):
    if os.fork() == 0:
        hog()
os.close(starter)
time.sleep(0.5)
"""
#: Twenty processes that nobody is the parent of any more, in sessions of their own.
LEAVE_BEHIND = """
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True: time.sleep(1)
        os._exit(0)
    os.wait()
tell(len(others()))
"""
#: Tells what runs beside the cell; a third spare is there until it has heard that it is let go.
UNTIL_SPARES_ALONE = """
end = time.monotonic() + 5
while len(others()) > 2 and time.monotonic() < end:
    time.sleep(0.01)
tell(others())
"""


async def test_processes_are_bounded(sandbox: Sandbox) -> None:
    """Processes come to an end with an error in the cell, below the sandbox's limit."""
    count, end = await probe(sandbox, f"{COUNT_PROCESSES}\ntell([len(children), end])")

    assert end == "EAGAIN"
    assert count < LIMITS.process_count
    assert await goes_on(sandbox)


async def test_threads_are_bounded(sandbox: Sandbox) -> None:
    """Threads count as processes do."""
    assert await probe(sandbox, f"{COUNT_THREADS}\ntell(count)") < LIMITS.process_count
    assert await goes_on(sandbox)


async def test_processes_and_threads_control() -> None:
    """With a higher limit both counts go to their ends."""
    limits = replace(LIMITS, process_count=512, memory_bytes=2**30)  # each thread has a stack
    async with open_sandbox(limits=limits) as sandbox:
        assert await probe(sandbox, f"{COUNT_PROCESSES}\ntell(len(children))") == 200
        assert await probe(sandbox, f"{COUNT_THREADS}\ntell(count)") == 200


async def test_fork_bomb_ends_with_its_cell(sandbox: Sandbox) -> None:
    """The worker stays able to stop the cell, kill every process of it, and run the next."""
    await run(sandbox, "before = 41")

    result = await run(sandbox, FORK_BOMB, timeout_s=2)

    assert (result.outcome, result.state) == (Outcome.TIMED_OUT, VariableState.ROLLED_BACK)
    assert await probe(sandbox, "tell(before)") == 41
    assert len(await probe(sandbox, UNTIL_SPARES_ALONE)) <= 2
    assert await goes_on(sandbox)


async def test_thread_bomb_does_not_starve_queries(sandbox: Sandbox) -> None:
    """While nobody gets a thread any more, the worker still asks and hands on every answer."""
    asked = await probe(
        sandbox, f"{THREAD_BOMB}\ntell(len(llm_query_batched(['any?'] * 64)))", timeout_s=10
    )

    assert asked == 64
    assert await goes_on(sandbox)


async def test_thread_bomb_does_not_outlive_its_cell(sandbox: Sandbox) -> None:
    """Nor does it keep the worker from stopping the cell that threw it."""
    stopped = await run(sandbox, f"{THREAD_BOMB}\nwhile True: pass", timeout_s=2)

    assert (stopped.outcome, stopped.state) == (Outcome.TIMED_OUT, VariableState.KEPT)
    assert await goes_on(sandbox)


async def test_what_a_cell_leaves_running_ends_with_it(sandbox: Sandbox) -> None:
    """A daemon does not outlive its cell; it was there while the cell was."""
    while_running = await probe(sandbox, LEAVE_BEHIND)

    assert while_running >= 20
    assert len(await probe(sandbox, UNTIL_SPARES_ALONE)) <= 2
