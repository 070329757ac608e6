"""A cell that takes every descriptor, writes endless files, or wants its death written down."""

from dataclasses import replace

import pytest
from support.docker_sandboxes import LIMITS, open_sandbox, told_in_another
from support.probes import goes_on, probe, run
from support.weakenings import CORE_DUMPS

from orchestrator.domain import Outcome, VariableState
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

OPEN_FILES = """
held, end = [], "done"
try:
    while len(held) < 600:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    end = errno.errorcode[error.errno]
tell([len(held), end])
"""
ONE_LARGE_FILE = """
def write():
    with open("/tmp/large", "wb", buffering=0) as file:
        file.seek({offset_bytes})
        file.write(b"end")
tell(attempt(write))
os.unlink("/tmp/large")
"""
LIMITS_OF_A_PROCESS = """
import resource
tell({name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
      for name in ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE")})
"""
CRASH = {
    "a null pointer": "import ctypes; ctypes.string_at(0)",
    "an abort": "os.abort()",
    "an exit": "os._exit(0)",
}


async def test_descriptors_are_bounded(sandbox: Sandbox) -> None:
    """A process runs out of descriptors, alone, and its session does not end for want of one."""
    count, end = await probe(sandbox, OPEN_FILES)

    assert (count < LIMITS.open_files, end) == (True, "EMFILE")
    assert await goes_on(sandbox)
    assert await probe(sandbox, "tell(len(held))") == count


async def test_descriptors_are_bounded_control() -> None:
    """With a higher limit the same cell gets all it asks for."""
    limits = replace(LIMITS, open_files=1024)

    assert await told_in_another(OPEN_FILES, limits=limits) == [600, "done"]


@pytest.mark.parametrize("offset_bytes", [LIMITS.file_bytes, 2**40, 2**62])
async def test_files_are_bounded(shared_sandbox: Sandbox, offset_bytes: int) -> None:
    """A file cannot be larger than its limit, also where nothing of it is written (sparse)."""
    source = ONE_LARGE_FILE.format(offset_bytes=offset_bytes)

    assert await probe(shared_sandbox, source) == "EFBIG"


async def test_files_are_bounded_control() -> None:
    """The same file is made where its limit is higher."""
    limits = replace(LIMITS, file_bytes=2**41)

    assert await told_in_another(ONE_LARGE_FILE.format(offset_bytes=2**40), limits=limits) == "done"


async def test_no_limit_can_be_raised(shared_sandbox: Sandbox) -> None:
    """Every limit of a process is its own ceiling."""
    found: dict[str, list[int]] = await probe(shared_sandbox, LIMITS_OF_A_PROCESS)

    assert found == {
        "CORE": [0, 0],
        "FSIZE": [LIMITS.file_bytes] * 2,
        "MEMLOCK": [0, 0],
        "MSGQUEUE": [0, 0],
        "NOFILE": [LIMITS.open_files] * 2,
    }
    raised = await probe(
        shared_sandbox,
        "import resource\n"
        "def more(): resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))\n"
        "try: more()\nexcept ValueError as error: tell(str(error))",
    )
    assert raised == "not allowed to raise maximum limit"


@pytest.mark.parametrize("crash", CRASH.values(), ids=CRASH)
async def test_crash_is_rolled_back(shared_sandbox: Sandbox, crash: str) -> None:
    """An interpreter that dies of itself costs its cell, leaves no image of it, and says how."""
    await run(shared_sandbox, "before = 41")

    result = await run(shared_sandbox, f"before = 0\n{crash}")

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await probe(shared_sandbox, "tell([before, os.listdir('/tmp')])") == [41, []]
    assert await goes_on(shared_sandbox)


async def test_core_limit_control() -> None:
    """Without the limit the kernel would write the process down, wherever the host has it put."""
    async with open_sandbox(weakening=CORE_DUMPS) as sandbox:
        found: dict[str, list[int]] = await probe(sandbox, LIMITS_OF_A_PROCESS)

    assert found["CORE"] != [0, 0]
