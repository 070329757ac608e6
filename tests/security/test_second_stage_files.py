"""A cell that opens what no cell needs: the worker's directory, the kernel's knobs, devices.

Landlock is what refuses; where the kernel has none, the container's own mounts are all there is.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import Weakening, open_provider
from support.probes import probe
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_LANDLOCK, together

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

needs_landlock = pytest.mark.runc_only("gVisor has no Landlock")

NAME, TEXT = "left-behind", "for nobody's eyes"
READ = f"tell(attempt(lambda: open('/run/rlm/{NAME}').read()))"
READ_SIDEWAYS = f"""
os.chdir("/run")
folder = os.open("rlm", os.O_RDONLY)
os.symlink("/run/rlm/{NAME}", "/tmp/link{{suffix}}")
tell([attempt(open, f"../run/./rlm/{NAME}"),
      attempt(open, "/proc/self/root/run/rlm/{NAME}"),
      attempt(open, "/proc/self/cwd/rlm/{NAME}"),
      attempt(os.open, "{NAME}", os.O_RDONLY, dir_fd=folder),
      attempt(open, "/tmp/link{{suffix}}"),
      attempt(os.link, "/run/rlm/{NAME}", "/tmp/hard{{suffix}}")])
"""
#: Files of its own process that a cell could turn against its sandbox.
WRITE = """
tell({path: attempt(lambda: os.close(os.open(path, os.O_WRONLY))) for path in (
    "/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/timerslack_ns",
    "/proc/self/clear_refs", "/proc/self/coredump_filter", "/dev/ptmx", "/dev/zero")})
"""
#: Everything that the scratch directories are for.
USE_SCRATCH = """
import shutil, tempfile
for folder in ("/tmp", "/dev/shm"):
    with tempfile.TemporaryDirectory(dir=folder) as place:
        os.makedirs(f"{place}/a/b")
        with open(f"{place}/a/file", "w+") as file:
            file.write("text")
            file.truncate(2)
        os.truncate(f"{place}/a/file", 1)
        os.rename(f"{place}/a/file", f"{place}/a/b/file")
        os.link(f"{place}/a/b/file", f"{place}/hard")
        os.symlink("hard", f"{place}/soft")
        os.mkfifo(f"{place}/fifo")
        os.chmod(f"{place}/hard", 0o600)
        os.utime(f"{place}/hard")
        shutil.move(f"{place}/a/b", f"{place}/c")
        assert open(f"{place}/soft").read() == "t"
with open("/dev/null", "w") as null:
    null.write("gone")
open("/dev/stdout", "w").close()
tell([len(open("/dev/urandom", "rb").read(8)), "python3.13" in os.listdir("/usr/bin"),
      "tmp" in os.listdir("/"), open("/etc/passwd").read(4), os.path.exists("/proc/meminfo")])
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """A sandbox, and where on the host its socket's directory is."""

    sandbox: Sandbox
    directory: Path


async def open_with_directory(stack: AsyncExitStack, weakening: Weakening | None = None) -> Opened:
    """Opens a sandbox, and leaves a file beside its socket that any user may read."""
    seen: list[Path] = []

    def look(config: dict[str, Any]) -> None:
        [bind] = config["HostConfig"]["Binds"]
        seen.append(Path(bind.partition(":")[0]))

    look_only = Weakening(change=look)
    provider = await stack.enter_async_context(
        open_provider(weakening=together(look_only, weakening) if weakening else look_only)
    )
    sandbox = await stack.enter_async_context(provider.open(EchoQueries()))
    file = seen[0] / NAME
    file.write_text(TEXT)
    file.chmod(0o644)
    stack.callback(file.unlink)
    return Opened(sandbox=sandbox, directory=seen[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def confined(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    assert runtime == under_test()
    async with AsyncExitStack() as stack:
        opened = await open_with_directory(stack)
        if not opened.sandbox.controls.walls.landlock_abi:
            pytest.skip("this kernel has no Landlock")
        yield opened.sandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def without_landlock(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    assert runtime == under_test()
    async with AsyncExitStack() as stack:
        yield (await open_with_directory(stack, NO_LANDLOCK)).sandbox


@needs_landlock
async def test_the_sockets_directory_cannot_be_read(confined: Sandbox) -> None:
    """Whatever lies beside the worker's socket, a token among it, no cell opens."""
    assert await probe(confined, READ) == "EACCES"


@needs_landlock
async def test_no_way_around_leads_there(confined: Sandbox) -> None:
    """Nor by another path, a link, a descriptor of the directory, or a name for it in scratch."""
    told = await probe(confined, READ_SIDEWAYS.format(suffix=1))

    assert set(told) <= {"EACCES", "EXDEV", "EPERM"}


async def test_the_sockets_directory_control(without_landlock: Sandbox) -> None:
    """Without Landlock each way leads to the file but the link, which no two mounts share."""
    assert await probe(without_landlock, READ) == "done"
    assert (await probe(without_landlock, READ_SIDEWAYS.format(suffix=2)))[:5] == ["done"] * 5


@needs_landlock
async def test_nothing_outside_scratch_is_opened_for_writing(confined: Sandbox) -> None:
    """Neither what the kernel shows of a process, nor a device but the one that keeps nothing."""
    assert set((await probe(confined, WRITE)).values()) == {"EACCES"}


async def test_writing_control(bare_sandbox: Sandbox) -> None:
    """A REPL process that gave nothing up opens what is its own."""
    assert set((await probe(bare_sandbox, WRITE)).values()) == {"done"}


async def test_scratch_is_whole(shared_sandbox: Sandbox) -> None:
    """What honest cells do with files is theirs as before, and the image can be read."""
    assert await probe(shared_sandbox, USE_SCRATCH) == [8, True, True, "root", True]
