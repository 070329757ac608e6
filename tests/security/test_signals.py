"""A cell that sends signals: to the worker, to its checkpoints, to everything there is.

Most of it is tried where the second stage is off, which refuses the call itself: the worker holds
without it.
"""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_sandbox
from support.probes import goes_on, probe, run
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import lift

from orchestrator.domain import Outcome, VariableState
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Every way a process can send a signal to another (signal(7)), by name.
WAYS = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
#: rt_sigqueueinfo, tgkill
NUMBERS = {"x86_64": (129, 234), "aarch64": (138, 131)}[platform.machine()]
information = (ctypes.c_int * 32)()

def queue(pid, number):
    information[0], information[2] = number, -1  # SI_QUEUE
    return libc.syscall(NUMBERS[0], pid, number, ctypes.byref(information))

def to_thread(pid, number):
    return libc.syscall(NUMBERS[1], pid, pid, number)

def by_descriptor(pid, number):
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)

WAYS = {"kill": os.kill, "rt_sigqueueinfo": queue, "tgkill": to_thread, "pidfd": by_descriptor}
"""
EVERY_WAY = ["kill", "rt_sigqueueinfo", "tgkill", "pidfd"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def permissive_sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox in which every way to send a signal is open."""
    async with open_sandbox(weakening=together(NO_SECOND_STAGE, lift("process-handles"))) as opened:
        yield opened


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_no_signal_reaches_the_worker(permissive_sandbox: Sandbox, way: str) -> None:
    """Each signal there is, in each way to send one, leaves PID 1 as it was."""
    await probe(
        permissive_sandbox,
        f"{WAYS}\nfor number in range(1, 65): attempt(WAYS[{way!r}], 1, number)\ntell(0)",
    )

    assert await goes_on(permissive_sandbox)


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_no_signal_reaches_the_worker_control(permissive_sandbox: Sandbox, way: str) -> None:
    """The same ways end a process of the cell's own."""
    told = await probe(
        permissive_sandbox,
        f"{WAYS}\n"
        "ends = []\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGRTMAX):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "        while True: time.sleep(1)\n"
        "    while number == signal.SIGINT and 'S' not in open(f'/proc/{pid}/stat').read(): pass\n"
        f"    WAYS[{way!r}](pid, number)\n"
        "    ends.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))\n"
        "tell(ends)",
    )

    assert told == [15, 2, 9, 64]


async def test_storm_of_signals_does_not_drown_the_worker(bare_sandbox: Sandbox) -> None:
    """Signals without end, from several processes, while queries are answered."""
    told = await probe(
        bare_sandbox,
        "if os.fork() == 0 or os.fork() == 0:\n"
        "    while True:\n"
        "        for number in (1, 2, 10, 12, 14, 15, 17, 34, 64): attempt(os.kill, 1, number)\n"
        "tell(len(llm_query_batched(['any?'] * 64)))",
    )

    assert told == 64
    assert await goes_on(bare_sandbox)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 14, 15, 17, 19, 20, 64])
async def test_signal_to_everything_is_survived_or_reported(
    bare_provider: SandboxProvider, number: int
) -> None:
    """Whatever a signal to all others ends, it is not the worker, and nothing hangs."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        await run(sandbox, f"before = 41\nos.kill(-1, {number})")

        assert await probe(sandbox, "tell(before)") == 41
        assert await goes_on(sandbox)


async def test_death_with_all_checkpoints_loses_the_sandbox_in_words(
    provider: SandboxProvider, bare_provider: SandboxProvider
) -> None:
    """A cell that kills what could take over, and then itself, ends the sandbox: it is said why."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        with pytest.raises(SandboxLostError, match="no checkpoint is left"):
            await run(
                sandbox,
                "while found := others():\n"
                "    for pid in found: attempt(os.kill, pid, 9)\n"
                "os._exit(0)",
            )

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


async def test_process_that_kills_all_others_for_ever_holds_nobody_up(
    provider: SandboxProvider, bare_provider: SandboxProvider
) -> None:
    """A process that nobody outlives ends with its cell, or its sandbox with it."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        with suppress(SandboxLostError):
            await run(
                sandbox,
                "if os.fork() == 0:\n"
                "    os.setsid()\n"
                "    while True: attempt(os.kill, -1, 9)\n"
                "time.sleep(60)",
                timeout_s=5,
            )
            assert await goes_on(sandbox)

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


async def test_stopped_checkpoint_takes_over_all_the_same(sandbox: Sandbox) -> None:
    """A cell that stops what could take over, and ends itself, is rolled back like any other."""
    await run(sandbox, "before = 41")

    result = await run(
        sandbox, "for pid in others(): attempt(os.kill, pid, signal.SIGSTOP)\nos._exit(0)"
    )

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await probe(sandbox, "tell(before)", timeout_s=2) == 41
    assert await goes_on(sandbox)
