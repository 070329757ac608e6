"""A cell that uses up, closes, blocks or breaks what its process has: the worker answers on.

Floods of processes, threads, signals, output and memory have files of their own.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import CELL_LIMITS
from support.probes import goes_on, probe, run
from support.runtimes import under_test

from orchestrator.context import encode_context
from orchestrator.domain import Outcome, VariableState
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


def timeout_s() -> float:
    """Returns how long a flood may last: a fork under gVisor takes 70 ms, and not 1."""
    return 12.0 if under_test().is_gvisor else 3.0


#: What a busy machine may take for what takes a moment.
SLACK_S = 5.0

UNTIL_REFUSED = """
import select
held = []
def flood(make):
    try:
        while True:
            held.append(make())
    except OSError as error:
        return errno.errorcode[error.errno]
"""
#: The state of the session afterwards is as it was: nothing but the cell's own was touched.
KEPT = {
    "descriptors of epoll": f"{UNTIL_REFUSED}\nflood(select.epoll)",
    "counters of events": f"{UNTIL_REFUSED}\nflood(lambda: os.eventfd(1))",
    "timers with descriptors": f"{UNTIL_REFUSED}\nflood(lambda: os.timerfd_create(1))",
    "pipes, each full": (
        f"{UNTIL_REFUSED}\n"
        "def full():\n"
        "    reading, writing = os.pipe()\n"
        "    os.set_blocking(writing, False)\n"
        "    os.write(writing, bytes(2**16))\n"
        "    return reading, writing\n"
        "flood(full)"
    ),
    "pairs of sockets": f"{UNTIL_REFUSED}\nflood(socket.socketpair)",
    "descriptors under way": (
        f"{UNTIL_REFUSED}\n"
        "near, far = socket.socketpair()\n"
        "flood(lambda: socket.send_fds(near, [b'x'], [0] * 200))"
    ),
    "shared memory that is full": (
        "attempt(lambda: open('/dev/shm/full', 'wb').write(bytes(2**22)))"
    ),
    "a mask of all signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "no processes from now on": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))"
    ),
    "no bytes in files from now on": (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    ),
    "the lowest of priorities": "os.nice(19)",
    "a place that is gone": (
        "os.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone'); os.umask(0o777)"
    ),
    "an alarm a thousand times a second": (
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)"
    ),
    "recursion without end": "def down(): down()\ntry: down()\nexcept RecursionError: pass",
    "zombies": "for _ in range(50):\n    if os.fork() == 0: os._exit(0)",
}
#: The interpreter is of no more use; the session has what it had before the cell.
ROLLED_BACK = {
    "all descriptors closed": "os.closerange(0, 4096)\ntime.sleep(60)",
    "a stack that is gone": (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (8192, 8192))\n"
        "import ctypes\n"
        "down = ctypes.CFUNCTYPE(None)(lambda: down())\n"
        "down()"
    ),
    "an alarm that nobody handles": (
        "signal.signal(signal.SIGALRM, signal.SIG_DFL)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "while True: pass"
    ),
    # Over and over: under gVisor a stop is lost now and then, and the interrupt ends the cell.
    "a process that stops itself": (
        "while True:\n"
        "    try: os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)\n"
        "    except KeyboardInterrupt: pass"
    ),
    "a mask of all signals, for ever": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(60)"
    ),
}


def cases(attacks: Mapping[str, str], *, only_runc: Mapping[str, str]) -> list[object]:
    """Returns a case for each attack; those of `only_runc` are marked with why."""
    marks = {name: [pytest.mark.runc_only(reason)] for name, reason in only_runc.items()}
    return [
        pytest.param(attack, id=name, marks=marks.get(name, ())) for name, attack in attacks.items()
    ]


@pytest.mark.parametrize(
    "attack",
    cases(
        KEPT,
        only_runc={"descriptors under way": "gVisor refuses none: who sends on waits for ever"},
    ),
)
async def test_flood_costs_the_session_nothing(sandbox: Sandbox, attack: str) -> None:
    """The cell ends by itself, the next ones answer in their time, and every variable is there."""
    await run(sandbox, "before = 41")

    async with asyncio.timeout(timeout_s() + CELL_LIMITS.grace_s + SLACK_S):
        flooded = await run(sandbox, attack, timeout_s=timeout_s())
        told = await run(sandbox, "print(before, llm_query('any?'))", timeout_s=timeout_s())

    assert (flooded.outcome, flooded.state) == (Outcome.SUCCEEDED, VariableState.KEPT)
    assert (told.outcome, str(told.stdout)) == (Outcome.SUCCEEDED, "41 echo: any?\n"), told


@pytest.mark.runc_only("gVisor counts its own descriptors, for each sandbox by itself")
async def test_neighbour_without_descriptors_under_way_gets_its_contexts(
    provider: SandboxProvider,
) -> None:
    """While one sandbox holds all that its user may have under way, another is handed a text.

    The control is in the flood itself: it ends because the kernel refused one more.
    """
    context = encode_context("a line of a text\n" * 200_000)
    async with provider.open(EchoQueries()) as flooding, provider.open(EchoQueries()) as other:
        flood = f"{KEPT['descriptors under way'].removesuffix(')')})"
        assert await probe(flooding, f"{flood.replace('flood(l', 'end = flood(l')}\ntell(end)") == (
            "ETOOMANYREFS"
        )
        await other.bind_context("context", context)

        assert await probe(other, "tell([len(context), context[-6:]])") == [3_400_000, " text\n"]
        assert await goes_on(other)


async def test_floods_control(sandbox: Sandbox) -> None:
    """Each flood of descriptors does use up what there is: its last attempt is refused for that."""
    names = ("descriptors of epoll", "counters of events", "pairs of sockets")
    ends = [
        await probe(
            sandbox,
            KEPT[name].replace("\nflood(", "\nend = flood(") + "\ntell(end)\nheld.clear()",
        )
        for name in names
    ]

    assert ends == ["EMFILE"] * 3


@pytest.mark.parametrize(
    "attack",
    cases(
        ROLLED_BACK,
        only_runc={"a stack that is gone": "gVisor lets a stack grow beyond that limit"},
    ),
)
async def test_end_of_the_interpreter_costs_its_cell(sandbox: Sandbox, attack: str) -> None:
    """However it is brought about, it is noticed in time, and what was before is there again."""
    await run(sandbox, "before = 41")

    async with asyncio.timeout(timeout_s() + CELL_LIMITS.grace_s + SLACK_S):
        ended = await run(sandbox, f"before = 0\n{attack}", timeout_s=timeout_s())

    assert ended.outcome in {Outcome.KILLED, Outcome.TIMED_OUT}
    assert ended.state is VariableState.ROLLED_BACK
    assert await probe(sandbox, "tell(before)") == 41
    assert await goes_on(sandbox)


async def test_process_that_has_used_up_its_time_costs_its_cell(sandbox: Sandbox) -> None:
    """A limit of seconds that a cell sets itself ends its interpreter, and no other."""
    await run(sandbox, "before = 41")

    ended = await run(
        sandbox,
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    )

    assert (ended.outcome, ended.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await probe(sandbox, "tell(before)") == 41


async def test_process_that_may_open_nothing_is_replaced(sandbox: Sandbox) -> None:
    """Without a descriptor left to wait with, nor one for a spare, it is lost; the session is not.

    Which is said by the cell that finds it out.
    """
    await run(sandbox, "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))")

    results = [await run(sandbox, "pass", timeout_s=timeout_s()) for _ in range(2)]

    assert VariableState.LOST in {result.state for result in results}
    assert await goes_on(sandbox)


async def test_zombies_of_one_cell_leave_room_for_the_next(sandbox: Sandbox) -> None:
    """What a cell started and never waited for is collected when it ends: it counts no more."""
    for _ in range(3):
        started = await run(sandbox, KEPT["zombies"])
        assert started.outcome is Outcome.SUCCEEDED, started


async def test_flood_of_one_sandbox_is_not_felt_in_another(provider: SandboxProvider) -> None:
    """While one holds all it can get of everything, another's cells and queries go on."""
    # gVisor's kernel is one process to the host's: its sandbox may be lost for want of memory.
    may_be_lost = (SandboxLostError,) if under_test().is_gvisor else ()
    async with provider.open(EchoQueries()) as neighbour:
        await run(neighbour, "before = 41")
        for name in ("descriptors under way", "pipes, each full", "descriptors of epoll"):
            async with provider.open(EchoQueries()) as attacker:
                with suppress(*may_be_lost):
                    await run(
                        attacker, f"for _ in range(8):\n    if os.fork() == 0: break\n{KEPT[name]}"
                    )
                    await run(attacker, KEPT[name])

                assert await probe(neighbour, "tell(before)") == 41
                assert await goes_on(neighbour)
