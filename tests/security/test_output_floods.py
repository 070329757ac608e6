"""A cell that prints more than anybody can keep."""

import ctypes
from dataclasses import replace

import psutil
import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import CELL_LIMITS, open_provider
from support.probes import goes_on, run

from orchestrator.domain import Outcome, OutputStream
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20
GIB = 2**30
FLAT_BYTES = 16 * MIB  # what an interpreter's own allocator may do meanwhile
ONE_GIB = {
    "print": "block = 'a' * (2**20 - 1)\nfor _ in range(1024): print(block)",
    "descriptor": (
        "block = b'a' * 2**20\nleft = 2**30\nwhile left: left -= os.write(1, block[:left])"
    ),
    "standard error": "block = 'a' * 2**20\nfor _ in range(1024): sys.stderr.write(block)",
}


class ByteCounter:
    """Counts what a caller is shown."""

    def __init__(self) -> None:
        """Begins at nothing."""
        self.count = 0

    def __call__(self, _stream: OutputStream, data: bytes) -> None:
        """Counts a piece."""
        self.count += len(data)


def host_bytes() -> int:
    """Returns the memory of this process and of the brokers that it has started.

    What was freed is given back first: otherwise a flood that is kept would fill, unseen, what
    tests before it have left.
    """
    ctypes.CDLL(None).malloc_trim(0)
    this = psutil.Process()
    return sum(int(each.memory_info().rss) for each in (this, *this.children()))


@pytest.mark.parametrize("attack", ONE_GIB.values(), ids=ONE_GIB)
async def test_one_gib_printed_costs_the_host_nothing(shared_sandbox: Sandbox, attack: str) -> None:
    """The session lives, the host keeps and shows no more than the limit, and counts every byte."""
    shown, before_bytes = ByteCounter(), host_bytes()

    result = await run(shared_sandbox, attack, on_output=shown)

    assert result.outcome is Outcome.SUCCEEDED
    kept = result.stdout if result.stdout.total_bytes else result.stderr
    assert kept.total_bytes == GIB
    assert kept.dropped_bytes == GIB - CELL_LIMITS.output_bytes
    assert len(kept.head) + len(kept.tail) == CELL_LIMITS.output_bytes
    assert shown.count <= CELL_LIMITS.output_bytes
    assert host_bytes() - before_bytes < FLAT_BYTES
    assert await goes_on(shared_sandbox)


async def test_host_memory_control() -> None:
    """With a limit of 32 MiB the same flood is seen in the host's memory, so the meter works."""
    cell = replace(CELL_LIMITS, output_bytes=32 * MIB)
    async with (
        open_provider(cell=cell) as provider,
        provider.open(EchoQueries()) as sandbox,
    ):
        before_bytes = host_bytes()

        result = await run(sandbox, ONE_GIB["print"])

        assert host_bytes() - before_bytes > FLAT_BYTES
    assert result.stdout.total_bytes == GIB


async def test_flood_without_end_is_stopped_like_any_cell(shared_sandbox: Sandbox) -> None:
    """Printing for ever from many processes does not keep a cell from being stopped."""
    result = await run(
        shared_sandbox,
        "block = b'a' * 2**16\nfor _ in range(5): os.fork()\nwhile True: os.write(1, block)",
        timeout_s=1,
    )

    assert result.outcome is Outcome.TIMED_OUT
    assert await goes_on(shared_sandbox)


async def test_thread_that_floods_on_holds_nobody_up(sandbox: Sandbox) -> None:
    """What a thread prints after its cell has ended is bounded, and later cells have their turn."""
    await run(
        sandbox,
        "import threading\n"
        "def flood():\n    while True: os.write(1, b'late' * 2**14)\n"
        "threading.Thread(target=flood, daemon=True).start()",
    )

    results = [await run(sandbox, "time.sleep(0.1)", timeout_s=5) for _ in range(3)]

    assert {result.outcome for result in results} == {Outcome.SUCCEEDED}
    assert {len(result.stdout.head) + len(result.stdout.tail) for result in results} == {
        CELL_LIMITS.output_bytes
    }
