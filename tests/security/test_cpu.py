"""A cell that computes for ever, in every way that is hard to interrupt."""

import asyncio
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace

import pytest
from support.docker_sandboxes import LIMITS, container_id_of, engine_client, open_sandbox
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome, VariableState
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Keeps two processes busy for two seconds.
BURN = """
end = time.monotonic() + 2
pid = os.fork()
while time.monotonic() < end:
    pass
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the engine has counted for a container: its word is the same under every runtime."""

    cpu_s: float
    throttle_count: int  # how often it was held back for having had enough


def read_spent(container_id: str) -> Spent:
    """Asks the engine."""
    with closing(engine_client()) as client:
        stats = client.api.stats(container_id, stream=False, one_shot=True)["cpu_stats"]
    return Spent(
        cpu_s=stats["cpu_usage"]["total_usage"] / 1e9,
        throttle_count=stats["throttling_data"]["throttled_periods"],
    )


async def burn(cpu_count: float) -> Spent:
    """Returns what a sandbox with that share got while two of its processes were busy."""
    async with open_sandbox(limits=replace(LIMITS, cpu_count=cpu_count)) as sandbox:
        container_id = container_id_of(sandbox)
        before = await asyncio.to_thread(read_spent, container_id)
        began_s = time.monotonic()
        result = await run(sandbox, BURN)
        wall_s = time.monotonic() - began_s
        after = await asyncio.to_thread(read_spent, container_id)
    assert result.outcome is Outcome.SUCCEEDED
    return Spent(
        cpu_s=(after.cpu_s - before.cpu_s) / wall_s,
        throttle_count=after.throttle_count - before.throttle_count,
    )


async def test_cpu_time_is_rationed() -> None:
    """However many processes a cell keeps busy, all together get the sandbox's share."""
    spent = await burn(0.2)

    assert spent.cpu_s < 0.3  # a second; what is counted is up to a period late
    assert spent.throttle_count >= 10  # there are twenty periods in those two seconds


async def test_cpu_time_is_rationed_control() -> None:
    """With as much as they can use the same two processes are hardly ever held back."""
    spent = await burn(float(min(2, os.cpu_count() or 1)))

    assert spent.throttle_count < 5


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
