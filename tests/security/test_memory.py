"""A cell that wants more memory than there is: in one piece, in many, in processes, in files."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import LIMITS, open_provider, open_sandbox
from support.probes import goes_on, probe, run
from support.runtimes import RuntimeUnderTest, under_test
from support.weakenings import lift

from orchestrator.domain import Outcome, VariableState
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20
LIMIT_MIB = LIMITS.memory_bytes // MIB
#: Room for every probe here, and for what runs beside it.
ROOMY = replace(LIMITS, memory_bytes=4 * LIMITS.memory_bytes, tmp_bytes=2 * LIMITS.memory_bytes)

ONE_STRING = f"text = 'a' * ({LIMIT_MIB + 50} * 2**20)"
MANY_STRINGS = f"texts = [str(number) * 2**18 for number in range(100, {LIMIT_MIB * 2})]"
#: Memory that is not the interpreter's own: no soft limit of a process counts it.
SHARED_PAGES = f"""
import mmap
pages = mmap.mmap(-1, {LIMIT_MIB + 50} * 2**20)
for offset in range(0, len(pages), 4096):
    pages[offset] = 1
"""
MEMORY_FILES = f"""
descriptors = []
for number in range({LIMIT_MIB + 50}):
    if number % 50 == 0:  # one file has a bound of its own
        descriptors.append(os.memfd_create("m"))
    os.write(descriptors[-1], b"a" * 2**20)
"""
#: Each of them takes a piece; the cell waits a second and looks who has ended.
PROCESSES = """
children = []
for _ in range({count}):
    pid = os.fork()
    if pid == 0:
        try:
            text = "a" * ({each_mib} * 2**20)
        except MemoryError:
            os._exit(7)
        signal.pause()
    children.append(pid)
time.sleep(1)
ended = [os.waitpid(pid, os.WNOHANG)[1] for pid in children]
"""
#: None of them takes a fifth of what there is; all together take twice as much.
SEVERAL_PROCESSES = PROCESSES.format(count=10, each_mib=LIMIT_MIB // 5)
FILL_TMP = """
for number in range({tmp_mib}):
    with open(f'/tmp/f{{number}}', 'wb') as file: file.write(bytes(2**20))
tell(0)
"""
FREE = "texts = text = pages = [os.close(number) for number in globals().pop('descriptors', ())]"
#: The filter of system calls refuses such files. Whether their memory counts is another wall.
MEMORY_FILES_ALLOWED = lift("hidden-programs")
#: Why one test stands for runc and another for gVisor.
WHOLE_SANDBOX = "under gVisor the host's kernel sees one process, the sentry, and ends all of it"
BEYOND_THE_SOFT_LIMIT = {"shared pages": SHARED_PAGES, "files in memory": MEMORY_FILES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(runtime: RuntimeUnderTest) -> AsyncIterator[SandboxProvider]:
    """Sandboxes with the same little memory under every runtime."""
    assert runtime == under_test()
    async with open_provider(sandbox=LIMITS) as opened:
        yield opened


async def test_one_string_larger_than_the_limit(shared_sandbox: Sandbox) -> None:
    """Too large a value is a `MemoryError` in the cell, which can be caught, and costs nothing."""
    await run(shared_sandbox, "before = 41")

    result = await run(shared_sandbox, ONE_STRING)

    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert result.error is not None
    assert result.error.type_name == "MemoryError"
    assert await probe(shared_sandbox, "tell(before)") == 41


async def test_many_strings_larger_than_the_limit_together(shared_sandbox: Sandbox) -> None:
    """So is too much in small pieces; what the cell held is free again for the next."""
    result = await run(shared_sandbox, MANY_STRINGS)

    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert await goes_on(shared_sandbox)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox_with_memory_files(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    """A sandbox whose filter of system calls lets files be made of memory."""
    assert runtime == under_test()
    async with open_sandbox(limits=LIMITS, weakening=MEMORY_FILES_ALLOWED) as opened:
        yield opened


@pytest.mark.runc_only(WHOLE_SANDBOX)
@pytest.mark.parametrize("attack", BEYOND_THE_SOFT_LIMIT.values(), ids=BEYOND_THE_SOFT_LIMIT)
async def test_memory_that_no_soft_limit_counts(
    sandbox_with_memory_files: Sandbox, attack: str
) -> None:
    """The kernel ends the interpreter, not the worker: variables are as before, and it is said."""
    await run(sandbox_with_memory_files, "before = 41")

    result = await run(sandbox_with_memory_files, f"before = 0\n{attack}")

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert result.error is not None
    assert result.error.type_name == "MemoryError"
    assert f"{LIMIT_MIB} MiB" in result.error.message
    assert await probe(sandbox_with_memory_files, "tell(before)") == 41
    assert await goes_on(sandbox_with_memory_files)


@pytest.mark.gvisor_only(WHOLE_SANDBOX)
@pytest.mark.parametrize("attack", [MEMORY_FILES, SEVERAL_PROCESSES], ids=["files", "processes"])
async def test_gvisor_that_ran_out_is_lost_in_words(provider: SandboxProvider, attack: str) -> None:
    """The limit holds, the sandbox ends as a whole, the operator reads why; the next one works."""
    async with open_sandbox(limits=LIMITS, weakening=MEMORY_FILES_ALLOWED) as sandbox:
        with pytest.raises(SandboxLostError, match=f"want of memory .limit {LIMIT_MIB} MiB"):
            await run(sandbox, attack)

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


@pytest.mark.gvisor_only("there a limit on addresses stands in for the one on data")
async def test_gvisor_refuses_shared_pages_in_the_cell(shared_sandbox: Sandbox) -> None:
    """What no soft limit counts under runc is an error in the cell, and costs nothing."""
    result = await run(shared_sandbox, SHARED_PAGES)

    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert await goes_on(shared_sandbox)


@pytest.mark.runc_only(WHOLE_SANDBOX)
async def test_several_processes_share_one_limit(sandbox: Sandbox) -> None:
    """What a cell starts counts with the cell: some of it dies, the worker does not."""
    result = await run(sandbox, f"{SEVERAL_PROCESSES}\ntell(ended)")

    assert result.outcome is Outcome.KILLED or set(json.loads(str(result.stdout))) != {0}
    assert await goes_on(sandbox)


async def test_memory_control() -> None:
    """With the memory there, every one of these cells succeeds, and no process dies."""
    async with open_sandbox(limits=ROOMY, weakening=MEMORY_FILES_ALLOWED) as sandbox:
        for source in (ONE_STRING, MANY_STRINGS, *BEYOND_THE_SOFT_LIMIT.values()):
            result = await run(sandbox, source)
            assert result.outcome is Outcome.SUCCEEDED, source
            await run(sandbox, FREE)
        assert await probe(sandbox, f"{SEVERAL_PROCESSES}\ntell(ended)") == [0] * 10


@pytest.mark.runc_only("gVisor refuses shared pages in the cell, before they count")
async def test_scratch_counts_as_memory(sandbox: Sandbox) -> None:
    """What lies in /tmp is no second memory beside the first."""
    tmp_mib = LIMITS.tmp_bytes // MIB
    await probe(sandbox, FILL_TMP.format(tmp_mib=tmp_mib))

    result = await run(sandbox, SHARED_PAGES.replace(str(LIMIT_MIB + 50), str(LIMIT_MIB - tmp_mib)))

    assert result.outcome is Outcome.KILLED
    assert await goes_on(sandbox)


@pytest.mark.gvisor_only(WHOLE_SANDBOX)
async def test_gvisor_scratch_counts_as_memory(runtime: RuntimeUnderTest) -> None:
    """Processes that fit end the sandbox where /tmp has been filled before."""
    assert runtime == under_test()
    half_mib = LIMIT_MIB // 2
    limits = replace(LIMITS, tmp_bytes=half_mib * MIB)
    processes = PROCESSES.format(count=3, each_mib=30)
    async with open_sandbox(limits=limits) as sandbox:
        assert await probe(sandbox, f"{processes}\ntell(ended)") == [0, 0, 0]
    async with open_sandbox(limits=limits) as sandbox:
        await probe(sandbox, FILL_TMP.format(tmp_mib=half_mib))
        with pytest.raises(SandboxLostError, match="want of memory"):
            await run(sandbox, processes)


@pytest.mark.runc_only("gVisor shows no control group; what the engine set is read back from it")
async def test_there_is_no_swap(shared_sandbox: Sandbox) -> None:
    """What memory does not hold is not written to a disk: the kernel names both limits."""
    version_1 = "/sys/fs/cgroup/memory/memory{}limit_in_bytes"
    version_2 = "/sys/fs/cgroup/memory.{}max"
    source = (
        f"old = os.path.exists({version_1.format('.')!r})\n"
        f"paths = [{version_1!r}.format(part) for part in ('.', '.memsw.')] if old else"
        f" [{version_2!r}.format(part) for part in ('', 'swap.')]\n"
        "limit, swap = [open(path).read().strip() for path in paths]\n"
        "tell([int(limit), int(swap) - int(limit) if old else int(swap)])"
    )

    assert await probe(shared_sandbox, source) == [LIMITS.memory_bytes, 0]


async def test_hosts_own_memory_stays_flat(sandbox: Sandbox) -> None:
    """What a sandbox does to its memory is nothing to the process that serves it."""
    host_bytes = psutil.Process().memory_info().rss

    for attack in (ONE_STRING, SHARED_PAGES):
        await run(sandbox, attack)

    assert psutil.Process().memory_info().rss - host_bytes < 16 * MIB
