"""A cell that computes for ever, in every way that is hard to interrupt."""

import os
from dataclasses import replace

import pytest
from support.docker_sandboxes import LIMITS, open_sandbox
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome, VariableState
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Keeps two processes busy for a second; tells what CPU time they got, and how often they were
#: held back for having had enough (cgroup version 1, then 2).
BURN = """
def throttle_count():
    for path in ("/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu.stat"):
        if os.path.exists(path):
            lines = dict(line.split() for line in open(path))
            return int(lines["nr_throttled"])

before = throttle_count()
end = time.monotonic() + 1
pid = os.fork()
while time.monotonic() < end:
    pass
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
times = os.times()
tell([sum(times[:4]), throttle_count() - before])
"""
#: An interrupt ends each of them, and its variables stay.
INTERRUPTIBLE = {
    "a loop": "while True: pass",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "a power": "number = 10**10**9",
    "a sleep": "time.sleep(10**6)",
    "a lock": "import threading; threading.Semaphore(0).acquire()",
}
#: An interrupt does not reach these; the interpreter is killed after the grace.
DEAF = {
    "a handler of its own": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    ),
    "an except that eats everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "a blocked signal": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\nwhile True: pass"
    ),
    "one call into C": "sum(range(10**12))",
    "a text that takes for ever to make": (
        "class Slow(Exception):\n    def __str__(self):\n        while True:\n"
        "            try: time.sleep(1)\n            except BaseException: pass\n"
        "raise Slow"
    ),
}


async def test_cpu_time_is_rationed() -> None:
    """However many processes a cell keeps busy, all together get the sandbox's share."""
    async with open_sandbox(limits=replace(LIMITS, cpu_count=0.2)) as sandbox:
        cpu_s, throttle_count = await probe(sandbox, BURN)

    assert cpu_s < 0.5  # 0.2 of a second, and what the interpreter took to get there
    assert throttle_count >= 5  # there are ten periods in that second


async def test_cpu_time_is_rationed_control() -> None:
    """With as much as they can use the same two processes are hardly ever held back."""
    cpu_count = float(min(2, os.cpu_count() or 1))
    async with open_sandbox(limits=replace(LIMITS, cpu_count=cpu_count)) as sandbox:
        _, throttle_count = await probe(sandbox, BURN)

    assert throttle_count < 5


@pytest.mark.parametrize("attack", INTERRUPTIBLE.values(), ids=INTERRUPTIBLE)
async def test_endless_work_is_interrupted(shared_sandbox: Sandbox, attack: str) -> None:
    """A cell that does not end is ended, and loses nothing."""
    result = await run(shared_sandbox, f"before = 41\n{attack}", timeout_s=0.5)

    assert (result.outcome, result.state) == (Outcome.TIMED_OUT, VariableState.KEPT)
    assert await probe(shared_sandbox, "tell(before)") == 41


@pytest.mark.parametrize("attack", DEAF.values(), ids=DEAF)
async def test_work_that_cannot_be_interrupted_is_killed(
    shared_sandbox: Sandbox, attack: str
) -> None:
    """A cell that will not hear is killed after the grace; variables are as before it."""
    await run(shared_sandbox, "before = 41")

    result = await run(shared_sandbox, f"before = 0\n{attack}", timeout_s=0.5)

    assert (result.outcome, result.state) == (Outcome.TIMED_OUT, VariableState.ROLLED_BACK)
    assert await probe(shared_sandbox, "tell(before)") == 41
    assert await goes_on(shared_sandbox)


async def test_threads_that_compute_on_do_not_keep_a_cell_alive(sandbox: Sandbox) -> None:
    """A cell that waits for busy threads of its own is ended like any other."""
    result = await run(
        sandbox,
        "import threading\n"
        "def spin():\n    while True: pass\n"
        "threads = [threading.Thread(target=spin, daemon=True) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()",
        timeout_s=0.5,
    )

    assert result.outcome is Outcome.TIMED_OUT
    assert await goes_on(sandbox)


async def test_time_to_compile_is_the_cells_own(shared_sandbox: Sandbox) -> None:
    """A source that is dear to compile costs its cell's time, not the session."""
    nested = "(" * 150 + "1" + ")" * 150
    source = "\n".join(f"if {nested}: pass" for _ in range(600))

    result = await run(shared_sandbox, source, timeout_s=10)

    assert result.outcome in {Outcome.SUCCEEDED, Outcome.REJECTED, Outcome.TIMED_OUT}
    assert await goes_on(shared_sandbox)
