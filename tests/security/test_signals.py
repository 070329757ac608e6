"""A cell that sends signals: to the worker, to its checkpoints, to everything there is.

Every attack is tried against the second stage, which refuses the call, and where that stage is off
against the worker itself. The latter holds under Linux alone, which shields the first process of a
namespace; gVisor of 2022 does not, and there it is the second stage that counts.
"""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_sandbox
from support.probes import goes_on, probe, run
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import lift

from orchestrator.context import encode_context
from orchestrator.domain import Outcome, VariableState
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Every way a process can send a signal to another (signal(7)), by name.
WAYS = """
import ctypes, fcntl, platform, struct
libc = ctypes.CDLL(None, use_errno=True)
SHIFT = 0 if platform.machine() == "x86_64" else 1
information = (ctypes.c_int * 32)()

def call(numbers, *arguments):
    if libc.syscall(numbers[SHIFT], *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def queued(number):
    information[0], information[2] = number, -1  # SI_QUEUE
    return ctypes.byref(information)

def by_descriptor(pid, number):
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)

def by_a_pipe(pid, number):
    "What is read wakes whoever owns the reading end, with any signal: F_SETOWN, F_SETSIG."
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
        fcntl.fcntl(reading, 10, number)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writing, b"a")
    finally:
        os.close(reading)
        os.close(writing)

def by_a_pair(pid, number):
    "The same by ioctl(2)."
    near, far = socket.socketpair()
    with near, far:
        fcntl.ioctl(near, 0x8901, struct.pack("i", pid))  # FIOSETOWN
        fcntl.fcntl(near, 10, number)
        fcntl.fcntl(near, fcntl.F_SETFL, os.O_ASYNC)
        far.send(b"a")

WAYS = {
    "os.kill": os.kill,
    "kill": lambda pid, number: call((62, 129), pid, number),
    "tkill": lambda pid, number: call((200, 130), pid, number),
    "tgkill": lambda pid, number: call((234, 131), pid, pid, number),
    "tgkill of its process": lambda pid, number: call((234, 131), 1, pid, number),
    "rt_sigqueueinfo": lambda pid, number: call((129, 138), pid, number, queued(number)),
    "rt_tgsigqueueinfo": lambda pid, number: call((297, 240), pid, pid, number, queued(number)),
    "pidfd": by_descriptor,
    "pipe": by_a_pipe,
    "pair": by_a_pair,
}
#: A thread's number is as good as its process's to some of them.
WORKER = [int(name) for name in os.listdir("/proc/1/task")]
"""
EVERY_WAY = [
    "os.kill",
    "kill",
    "tkill",
    "tgkill",
    "tgkill of its process",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd",
    "pipe",
    "pair",
]
#: All signals in one way, to the worker by each of its numbers; tells how the attempts ended.
AT_THE_WORKER = """
ends = set()
for pid in WORKER:
    for number in range(1, 65):
        ends.add(attempt(WAYS[{way!r}], pid, number))
tell(sorted(ends))
"""
#: The only thing that a number which is no process's leads to.
NOT_FOUND = "ESRCH"


shielded_by_the_kernel = pytest.mark.runc_only(
    "gVisor of 2022 does not shield the first process: the second stage alone does"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def permissive_sandbox(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    """A sandbox in which every way to send a signal is open."""
    assert runtime == under_test()
    async with open_sandbox(
        weakening=together(NO_SECOND_STAGE, lift("process-handles", "device-control"))
    ) as opened:
        yield opened


@pytest.mark.parametrize("way", EVERY_WAY)
async def test_no_signal_can_be_sent_to_the_worker(shared_sandbox: Sandbox, way: str) -> None:
    """Each signal there is, in each way to send one, by each number of the worker, is refused."""
    told = await probe(shared_sandbox, f"{WAYS}{AT_THE_WORKER.format(way=way)}")

    assert set(told) <= {"EPERM", "EACCES", NOT_FOUND}
    assert await goes_on(shared_sandbox)


@shielded_by_the_kernel
@pytest.mark.parametrize("way", EVERY_WAY)
async def test_no_signal_that_was_sent_reaches_the_worker(
    permissive_sandbox: Sandbox, way: str
) -> None:
    """Where nothing refuses them, all of them leave the first process as it was."""
    told = await probe(permissive_sandbox, f"{WAYS}{AT_THE_WORKER.format(way=way)}")

    assert "done" in told
    assert await goes_on(permissive_sandbox)


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if way != "tgkill of its process"])
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


async def test_groups_and_everybody_can_be_sent_nothing(shared_sandbox: Sandbox) -> None:
    """A signal to all of one's group, to another group or to all there are is refused."""
    told = await probe(
        shared_sandbox,
        f"{WAYS}\ntell([attempt(send, pid, 9) for pid in (0, -1, -os.getpgrp())\n"
        "      for send in (os.kill, WAYS['kill'], WAYS['pipe'])])",
    )

    assert set(told) == {"EPERM"}


async def test_own_processes_can_be_signalled(shared_sandbox: Sandbox) -> None:
    """A cell stops, continues and ends what it started, and signals itself."""
    told = await probe(
        shared_sandbox,
        "pid = os.fork()\n"
        "while pid == 0: time.sleep(1)\n"
        "ends = []\n"
        "for number, flag in ((signal.SIGSTOP, os.WUNTRACED), (signal.SIGCONT, os.WCONTINUED)):\n"
        "    os.kill(pid, number)\n"
        "    ends.append(os.waitpid(pid, flag)[1])\n"
        "os.kill(pid, signal.SIGKILL)\n"
        "ends.append(os.waitpid(pid, 0)[1])\n"
        "heard = []\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
        "tell([os.WSTOPSIG(ends[0]), os.WIFCONTINUED(ends[1]), ends[2], len(heard)])",
    )

    assert told == [19, True, 9, 2]


@shielded_by_the_kernel
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


@shielded_by_the_kernel
@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 14, 15, 17, 19, 20, 64])
async def test_signal_to_everything_is_survived_or_reported(
    bare_provider: SandboxProvider, number: int
) -> None:
    """Whatever a signal to all others ends, it is not the worker, and nothing hangs."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        await run(sandbox, f"{WAYS}\nbefore = 41\nWAYS['kill'](-1, {number})")

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


@pytest.mark.runc_only("gVisor has no Landlock: the base can be killed like the checkpoint")
async def test_what_holds_the_contexts_outlives_all_killing(provider: SandboxProvider) -> None:
    """A cell may end its own session's checkpoint; the base is out of its reach by Landlock."""
    async with provider.open(EchoQueries()) as sandbox:
        if not sandbox.controls.walls.landlock_abi:
            pytest.skip("this kernel has no Landlock: the base can be killed like the checkpoint")
        await sandbox.bind_context("context", encode_context("what was asked about"))
        await run(sandbox, "before = 41")

        result = await run(
            sandbox,
            "end = time.monotonic() + 1\n"
            "while time.monotonic() < end:\n"
            "    for pid in others(): attempt(os.kill, pid, 9)\n"
            "os._exit(0)",
        )

        assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.LOST)
        assert await probe(sandbox, "tell([context, globals().get('before')])") == [
            "what was asked about",
            None,
        ]
        assert await goes_on(sandbox)


async def test_process_that_kills_all_others_for_ever_holds_nobody_up(
    provider: SandboxProvider, bare_provider: SandboxProvider
) -> None:
    """A process that nobody outlives ends with its cell, or its sandbox with it."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        with suppress(SandboxLostError):
            await run(
                sandbox,
                f"{WAYS}\n"
                "if os.fork() == 0:\n"
                "    os.setsid()\n"
                "    while True: attempt(WAYS['kill'], -1, 9)\n"
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
