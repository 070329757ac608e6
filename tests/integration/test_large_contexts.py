"""Contexts of 400 MB in a sandbox of the default size: what they take, and what cells can do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import container_id_of, engine_client, open_provider
from support.model_server import ModelServer
from support.probes import probe, run
from support.real_host import COMMAND, RealHost, cell
from support.runtimes import RuntimeUnderTest, under_test

from orchestrator.context import encode_context
from orchestrator.domain import ContextKind, EncodedContext, Json, Outcome, VariableState
from orchestrator.errors import InputError
from orchestrator.limits import SandboxLimits
from orchestrator.ports import Sandbox, SandboxProvider
from orchestrator.sandbox.launcher import IDLE_BYTES, needed_bytes

MB = 10**6
MIB = 2**20
SIZE_BYTES = 400 * MB
#: What a context may take of its sandbox's memory while it is bound, for each byte of its value.
MOST_SHARE = 1.4
LINE = "a line of plain text, of which there are some millions in the context\n"
NEEDLE = "the needle"
#: A document of as much text as a page has, and with it most of what is in memory.
DOCUMENT = LINE * 60

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(600),  # the first one may have to build
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        psutil.virtual_memory().available < 4 * 2**30,
        reason="a context of 400 MB takes 4 GiB: as it is made, as it is sent, and in a sandbox",
    ),
]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel says of the memory of a sandbox's container."""

    files: tuple[Path, Path]

    @classmethod
    def of(cls, sandbox: Sandbox) -> Memory:
        """Finds the files of a container's control group, of either version."""
        client = engine_client()
        pid = client.api.inspect_container(container_id_of(sandbox))["State"]["Pid"]
        client.close()
        groups = dict(
            line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        )
        if "memory" in groups:
            folder = Path(f"/sys/fs/cgroup/memory{groups['memory']}")
            names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        else:
            folder = Path(f"/sys/fs/cgroup{groups['']}")
            names = ("memory.current", "memory.peak")
        if not (folder / names[1]).exists():
            pytest.skip("this kernel does not say what a control group's memory was at its peak")
        return cls((folder / names[0], folder / names[1]))

    @property
    def now_bytes(self) -> int:
        """What is used."""
        return int(self.files[0].read_text())

    @property
    def peak_bytes(self) -> int:
        """The most that was ever used."""
        return int(self.files[1].read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(runtime: RuntimeUnderTest) -> AsyncIterator[SandboxProvider]:
    """Sandboxes of the default size."""
    assert runtime == under_test()
    async with open_provider(sandbox=SandboxLimits()) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(provider: SandboxProvider) -> AsyncIterator[Sandbox]:
    """A fresh one."""
    async with provider.open(EchoQueries()) as opened:
        yield opened


def text_of(size_bytes: int) -> EncodedContext:
    text = LINE * (size_bytes // len(LINE))
    return encode_context(text + NEEDLE)


def documents_of(size_bytes: int) -> EncodedContext:
    documents: list[Json] = [
        {"name": f"{number}.txt", "text": f"{number}\n{DOCUMENT}"}
        for number in range(size_bytes // len(DOCUMENT))
    ]
    documents.append({"name": "last.txt", "text": NEEDLE})
    return encode_context(documents)


@pytest.fixture(scope="module")
def large_text() -> EncodedContext:
    """A text of 400 MB."""
    return text_of(SIZE_BYTES)


@pytest.fixture(scope="module")
def large_documents() -> EncodedContext:
    """A hundred thousand documents of 400 MB."""
    return documents_of(SIZE_BYTES)


async def bind(sandbox: Sandbox, context: EncodedContext) -> float:
    """Binds a context and uses it; returns what that took at its peak, by its own size."""
    memory = Memory.of(sandbox)
    idle_bytes = memory.now_bytes
    await sandbox.bind_context("context", context)
    assert await probe(sandbox, "tell(len(context) > 0)") is True
    return (memory.peak_bytes - idle_bytes) / context.resident_bytes


@pytest.mark.both_runtimes
async def test_text_of_400_megabytes(sandbox: Sandbox, large_text: EncodedContext) -> None:
    """A text is searched, counted and cut in cells, and takes little more than itself."""
    share = await bind(sandbox, large_text)

    assert share < MOST_SHARE
    found, count, piece, length = await probe(
        sandbox,
        f"""
tell([context.find({NEEDLE!r}), context.count("millions"), context[len({LINE!r}):][:6],
      len(context)])
""",
    )
    assert found == length - len(NEEDLE)
    assert count == SIZE_BYTES // len(LINE)
    assert (piece, length) == ("a line", large_text.total_chars)


#: Memory that is not the interpreter's own: no soft limit of a process counts it, but gVisor's.
SHARED_PAGES = """
import mmap
pages = mmap.mmap(-1, 900 * 2**20)
for offset in range(0, len(pages), 4096):
    pages[offset] = 1
"""


@pytest.mark.both_runtimes
async def test_text_outlives_a_cell_that_takes_too_much(
    sandbox: Sandbox, large_text: EncodedContext
) -> None:
    """Beside 400 MB a cell that copies them too often ends alone, and the context is still there.

    Where the kernel ends it, what the cell did is undone; a `MemoryError` undoes nothing.
    """
    await sandbox.bind_context("context", large_text)
    await run(sandbox, "before = 41")

    copied = await run(sandbox, "before = 42\ncopies = [context + str(n) for n in range(9)]")
    shared = await run(sandbox, f"before = 43\n{SHARED_PAGES}")

    assert (copied.outcome, copied.state) == (Outcome.RAISED, VariableState.KEPT)
    assert copied.error is not None
    assert copied.error.type_name == "MemoryError"
    if under_test().is_gvisor:
        assert (shared.outcome, shared.state) == (Outcome.RAISED, VariableState.KEPT)
    else:
        assert (shared.outcome, shared.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    before, length, is_there = await probe(
        sandbox, f"tell([before, len(context), {NEEDLE!r} in context])"
    )
    assert before == (43 if under_test().is_gvisor else 42)
    assert (length, is_there) == (large_text.total_chars, True)


@pytest.mark.both_runtimes
async def test_documents_of_400_megabytes(
    sandbox: Sandbox, large_documents: EncodedContext
) -> None:
    """A list of a hundred thousand documents takes little more than itself, cell after cell.

    Each cell looks at each document. Were they not shared with the checkpoints, each would copy all
    of them, and the second would be ended for it.
    """
    memory = Memory.of(sandbox)

    share = await bind(sandbox, large_documents)

    assert share < MOST_SHARE
    bound_bytes = memory.now_bytes
    for _ in range(4):
        chars, hits = await probe(
            sandbox,
            f"""
tell([sum(len(document["text"]) for document in context),
      [document["name"] for document in context if {NEEDLE!r} in document["text"]]])
""",
        )
        assert (chars, hits) == (large_documents.total_chars, ["last.txt"])
    assert memory.now_bytes - bound_bytes < large_documents.resident_bytes // 2


@pytest.mark.both_runtimes
async def test_documents_outlive_a_cell_that_takes_too_much(
    sandbox: Sandbox, large_documents: EncodedContext
) -> None:
    """What a checkpoint takes over has all its documents, and they are still shared."""
    await sandbox.bind_context("context", large_documents)

    result = await run(sandbox, f"context[0]['text'] = 'changed'\n{SHARED_PAGES}")

    is_undone = result.state is VariableState.ROLLED_BACK
    assert is_undone is not under_test().is_gvisor
    for _ in range(2):
        count = await probe(sandbox, "tell(sum('millions' in d['text'] for d in context))")
        assert count == SIZE_BYTES // len(DOCUMENT) - (not is_undone)


@pytest.mark.both_runtimes
@pytest.mark.parametrize("make", [text_of, documents_of])
async def test_largest_context_that_is_taken_binds(
    sandbox: Sandbox, make: Callable[[int], EncodedContext]
) -> None:
    """What just fits by the figures fits in truth; what does not is told what memory to ask for."""
    limits = SandboxLimits()
    room_bytes = limits.memory_bytes - IDLE_BYTES
    sample = make(10 * MB)
    largest = make(int(room_bytes * 10 * MB / needed_bytes(sample) * 0.998))
    assert 0.99 * room_bytes < needed_bytes(largest) <= room_bytes

    await sandbox.bind_context("context", largest)

    is_text = largest.kind is ContextKind.TEXT
    count = largest.total_chars if is_text else largest.data.count(b'{"name":')
    assert await probe(sandbox, "tell(len(context))") == count
    # What is there counts, too.
    with pytest.raises(InputError, match=r"has room for \d+ MiB; pass --memory \d+m or more"):
        await sandbox.bind_context("context_1", make(200 * MB))


#: Runs a command, and says after it what the largest process of it took.
MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(ended.returncode)
"""


async def test_file_of_400_megabytes_is_held_once_on_the_host(
    host: RealHost, tmp_path: Path
) -> None:
    """Asking about a large file takes the memory of the file, and what the command takes anyway."""
    path = tmp_path / "large.txt"
    path.write_text(LINE * (SIZE_BYTES // len(LINE)), "ascii")
    small = tmp_path / "small.txt"
    small.write_text(LINE)

    def peak_bytes(context: Path) -> int:
        with ModelServer(root=[cell("FINAL(len(context))")]) as server:
            ended = subprocess.run(
                [sys.executable, "-c", MEASURED, COMMAND, "run", "q", "--context", context, "-q"],
                env=host.environment(server),
                capture_output=True,
                text=True,
                check=False,
            )
        assert ended.returncode == 0, ended.stderr
        answer, peak = ended.stdout.split()
        assert int(answer) == context.stat().st_size
        return int(peak)

    idle_bytes = peak_bytes(small)
    size_bytes = path.stat().st_size
    taken_bytes = peak_bytes(path) - idle_bytes
    path.unlink()

    assert taken_bytes < 1.2 * size_bytes
