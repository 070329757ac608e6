"""A cell that fills, floods or runs programs from the two places it can write to."""

from dataclasses import replace

import pytest
from support.docker_sandboxes import LIMITS, open_sandbox, told_in_another
from support.probes import goes_on, probe
from support.runtimes import RuntimeUnderTest
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import EXECUTABLE_TMP

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20
#: Tells how many MiB fit into a place, and what stopped the writer.
FILL = """
def fill(folder):
    written, block = 0, bytes(2**20)
    for number in range(400):
        with open(f"{folder}/fill{number}", "wb", buffering=0) as file:
            while written < 400 * 2**20:
                try:
                    written += file.write(block)
                except OSError as error:
                    reason = errno.errorcode[error.errno]
                    break
            else:
                return [written >> 20, "done"]
        if reason != "EFBIG":
            return [written >> 20, reason]

def tidy(folder):
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
"""
FLOOD = """
def flood(folder, count):
    for number in range(count):
        end = attempt(lambda: os.close(os.open(f"{folder}/n{number}", os.O_CREAT)))
        if end != "done":
            return [number, end]
    return [count, "done"]
"""
#: A program of one's own: the interpreter, copied. `ctypes` would map such a file as well.
RUN_A_COPY = """
import mmap, shutil, subprocess
shutil.copyfile("/usr/bin/python3.13", "{folder}/program")
os.chmod("{folder}/program", 0o700)
with open("{folder}/program", "rb") as file:
    mapped = attempt(mmap.mmap, file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC,
                     flags=mmap.MAP_PRIVATE)
tell([attempt(subprocess.check_call, ["{folder}/program", "-c", "0"]), mapped])
"""


@pytest.mark.parametrize(
    ("folder", "room_mib"), [("/tmp", LIMITS.tmp_bytes // MIB), ("/dev/shm", 1)]
)
async def test_scratch_is_bounded_in_bytes(sandbox: Sandbox, folder: str, room_mib: int) -> None:
    """A full disk is an error in the cell; it is never the host's disk."""
    told = await probe(sandbox, f"{FILL}\ntell(fill('{folder}'))\n")

    assert told == [room_mib, "ENOSPC"]
    assert await goes_on(sandbox)


async def test_scratch_is_bounded_in_bytes_control() -> None:
    """More room takes more, so the room is what ended the writer."""
    limits = replace(LIMITS, tmp_bytes=2 * LIMITS.tmp_bytes)

    told = await told_in_another(f"{FILL}\ntell(fill('/tmp'))", limits=limits)

    assert told == [limits.tmp_bytes // MIB, "ENOSPC"]


@pytest.mark.runc_only(
    "gVisor counts no names: they take memory of the sandbox's, which is bounded"
)
@pytest.mark.parametrize(("folder", "room"), [("/tmp", LIMITS.tmp_inodes), ("/dev/shm", 256)])
async def test_scratch_is_bounded_in_names(sandbox: Sandbox, folder: str, room: int) -> None:
    """Empty files cost the kernel memory too: they end long before it does."""
    count, end = await probe(sandbox, f"{FLOOD}\ntell(flood('{folder}', 10_000))")

    assert end == "ENOSPC"
    assert room - 8 <= count <= room
    assert await goes_on(sandbox)


async def test_scratch_is_bounded_in_names_control() -> None:
    """Where more names fit, the same flood comes to its end."""
    limits = replace(LIMITS, tmp_inodes=20_000)

    told = await told_in_another(f"{FLOOD}\ntell(flood('/tmp', 10_000))", limits=limits)

    assert told == [10_000, "done"]


async def test_full_scratch_can_be_tidied(sandbox: Sandbox) -> None:
    """A cell that filled its scratch can make room again, and the next one use it."""
    await probe(sandbox, f"{FILL}\ntell(fill('/tmp'))")

    told = await probe(sandbox, "tidy('/tmp')\ntell(fill('/tmp'))")

    assert told == [LIMITS.tmp_bytes // MIB, "ENOSPC"]


@pytest.mark.parametrize("folder", ["/tmp"])
async def test_no_program_runs_from_scratch(
    sandbox: Sandbox, bare_sandbox: Sandbox, runtime: RuntimeUnderTest, folder: str
) -> None:
    """A file that a cell wrote is neither started nor mapped as code.

    The mount refuses by itself; after the second stage no program is started from anywhere. gVisor
    maps what it does not start: no more than a cell that writes into executable memory has.
    """
    mapped = "done" if runtime.is_gvisor else "EPERM"
    assert await probe(sandbox, RUN_A_COPY.format(folder=folder)) == ["EPERM", mapped]
    assert await probe(bare_sandbox, RUN_A_COPY.format(folder=folder)) == ["EACCES", mapped]


async def test_no_program_runs_from_scratch_control() -> None:
    """Without `noexec` the same copy runs."""
    source = RUN_A_COPY.format(folder="/tmp")

    assert await told_in_another(source, weakening=together(NO_SECOND_STAGE, EXECUTABLE_TMP)) == [
        "done",
        "done",
    ]


async def test_nothing_is_left_for_the_next_sandbox(sandbox: Sandbox) -> None:
    """Scratch is one sandbox's own: another one that runs meanwhile finds it empty."""
    list_all = (
        "tell([os.listdir(folder) if os.path.exists(folder) else []"  # gVisor has no /dev/mqueue
        " for folder in ('/tmp', '/dev/shm', '/dev/mqueue')])"
    )
    await probe(
        sandbox, "tell([open(f'{folder}/left', 'w').close() for folder in ('/tmp', '/dev/shm')])"
    )

    async with open_sandbox() as other:
        assert await probe(other, list_all) == [[], [], []]
    assert await probe(sandbox, list_all) == [["left"], ["left"], []]
