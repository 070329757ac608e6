"""Programs that broke other sandboxes by being odd, not by attacking: each costs its cell at most.

The list is what the public suites of snekbox, sunwalker-box and the online judges hold that no
other file here does.
"""

import asyncio

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import LIMITS, told_in_another
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome, VariableState
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20

#: A name that is not UTF-8, one as long as a name may be, and one that a terminal would act on.
ODD_NAMES = r"""
names = [b"/tmp/\xff\xfe", b"/tmp/" + b"n" * 255, b"/tmp/\x1b[2J\n"]
for name in names:
    open(name, "wb").close()
told = sorted(len(name) for name in os.listdir(b"/tmp"))
print(os.listdir("/tmp"))
for name in names:
    os.unlink(name)
"""
DEEP_FOLDERS = """
os.chdir("/tmp")
depth = 0
while depth < 1_000:
    os.mkdir("d")
    os.chdir("d")
    depth += 1
os.chdir("/")
"""
#: More than /dev/shm holds: the kernel ends who writes to a page it cannot find (SIGBUS).
SHARED_MEMORY = """
import mmap
with open("/dev/shm/large", "w+b") as file:
    os.unlink("/dev/shm/large")
    file.truncate({size_bytes})
    pages = mmap.mmap(file.fileno(), {size_bytes})
    for offset in range(0, len(pages), 4096):
        pages[offset] = 1
tell(len(pages))
"""
#: Each sandbox holds three quarters of what it may; together they hold more than one may.
MOST_OF_THE_MEMORY = f"block = bytearray({LIMITS.memory_bytes // 2})\ntell(len(block))"

PROFILING_TIMER = """
signal.setitimer(signal.ITIMER_PROF, 0)
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    pass
"""
ORPHANS = """
for _ in range(20):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
"""
ZOMBIES = """
def zombies():
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found += open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                pass
    return found
deadline = time.monotonic() + 5
while zombies() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
tell(zombies())
"""


async def test_names_of_files_may_be_any_bytes(sandbox: Sandbox) -> None:
    """A name that is no text disturbs neither its cell nor what reports on it."""
    result = await run(sandbox, ODD_NAMES)

    assert result.outcome is Outcome.SUCCEEDED
    assert await probe(sandbox, "tell(told)") == [2, 5, 255]
    assert await goes_on(sandbox)


async def test_folders_may_be_deep(sandbox: Sandbox) -> None:
    """A thousand folders in one another end with the sandbox: nothing walks them."""
    assert (await run(sandbox, DEEP_FOLDERS)).outcome is Outcome.SUCCEEDED
    assert await goes_on(sandbox)


async def test_shared_memory_that_is_not_there_ends_its_cell(sandbox: Sandbox) -> None:
    """A process that writes past /dev/shm is ended by the kernel; its session goes on."""
    await run(sandbox, "before = 41")

    result = await run(sandbox, SHARED_MEMORY.format(size_bytes=8 * MIB))

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await probe(sandbox, "tell(before)") == 41
    assert await goes_on(sandbox)


async def test_shared_memory_control() -> None:
    """As much as there is can be written."""
    assert await told_in_another(SHARED_MEMORY.format(size_bytes=MIB // 2)) == MIB // 2


@pytest.mark.parametrize("size_bytes", [2**40, 2**46])
async def test_mapping_of_more_than_there_is_costs_nothing(
    shared_sandbox: Sandbox, size_bytes: int
) -> None:
    """A mapping of a terabyte is refused, or is a promise of the kernel's that nobody keeps."""
    await run(
        shared_sandbox,
        "import mmap\n"
        f"try: pages = mmap.mmap(-1, {size_bytes})\n"
        "except (OSError, MemoryError, OverflowError): pages = None\n",
    )

    assert await goes_on(shared_sandbox)


async def test_nul_in_a_source_is_an_error_in_the_cell(shared_sandbox: Sandbox) -> None:
    """Python's own word for it, and nothing is run of the cell."""
    result = await shared_sandbox.run_cell("ran = 1\n\0", timeout_s=5)

    assert result.error is not None
    assert result.error.type_name == "SyntaxError"
    assert await probe(shared_sandbox, "tell('ran' in globals())") is False


async def test_memory_is_each_sandboxs_own(provider: SandboxProvider) -> None:
    """Two sandboxes that together hold more than one may do not take it from one another."""
    async with provider.open(EchoQueries()) as one, provider.open(EchoQueries()) as other:
        told = await asyncio.gather(
            probe(one, MOST_OF_THE_MEMORY), probe(other, MOST_OF_THE_MEMORY)
        )

        assert list(told) == [LIMITS.memory_bytes // 2] * 2
        assert await goes_on(one)
        assert await goes_on(other)


async def test_timers_of_a_cell_are_not_what_ends_it(sandbox: Sandbox) -> None:
    """A cell that stops every timer and ignores the signals of limits ends in its time."""
    result = await run(sandbox, PROFILING_TIMER, timeout_s=1)

    assert result.outcome is Outcome.TIMED_OUT
    assert await goes_on(sandbox)


async def test_idle_cell_is_ended_as_well(sandbox: Sandbox) -> None:
    """A cell that waits for ever uses no CPU; its time is the clock's."""
    result = await run(sandbox, "signal.pause()", timeout_s=1)

    assert result.outcome is Outcome.TIMED_OUT
    assert await goes_on(sandbox)


async def test_processes_that_end_are_reaped(sandbox: Sandbox) -> None:
    """Orphans of a cell's children do not stay behind as zombies, which count as processes.

    One may be there: the checkpoint of the cell before, until the next one is left.
    """
    for _ in range(5):  # one hundred, where sixty-four may be there at a time
        assert (await run(sandbox, ORPHANS)).outcome is Outcome.SUCCEEDED

    assert await probe(sandbox, ZOMBIES) <= 1
