"""Containers on a real engine: what they become, how they end, and that none is left over."""

import asyncio
import gc
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.broker_host import until
from support.engine_proxy import EngineProxy, open_proxy
from support.runtimes import under_test

from orchestrator.domain import SandboxId, Walls
from orchestrator.errors import SandboxLostError, SandboxStartError, SettingsError
from orchestrator.limits import SandboxLimits
from orchestrator.ports import UntilListening
from orchestrator.sandbox.docker_backend import (
    DockerBackend,
    DockerContainer,
    open_docker_backend,
)
from orchestrator.sandbox.docker_client import DockerClient, connect
from orchestrator.sandbox.engine_calls import Engine
from orchestrator.sandbox.engine_host import EngineInfo, find_engine
from orchestrator.sandbox.image_build import build_image
from orchestrator.sandbox.lease import Lease, hold_lease
from orchestrator.sandbox.runtimes import read_runtimes

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

# The SDK does not close a socket whose connect(2) failed, which these tests bring about.
sdk_leaks = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

PYTHON = ("/usr/bin/python3.13", "-I", "-c")
LIMITS = SandboxLimits(memory_bytes=128 * 2**20)
WAIT_FOR_EVER = "import signal; signal.pause()"
FIND_WALLS = """
import json, platform
from pathlib import Path
from sandbox_image.__main__ import find_all_walls
from sandbox_image.first_stage import refuse_calls
from sandbox_image.repl.process import ReplProcess
if platform.release() == "4.4.0" or "gvisor" in platform.release():
    refuse_calls()
repl = ReplProcess.start(hidden=Path("/run/rlm"))
print(json.dumps(find_all_walls(repl)._asdict()))
"""
LIST_MOUNTS = "import json; print(json.dumps(open('/proc/mounts').read().splitlines()))"
FILL_MEMORY = """
kept = []
while True:
    kept.append(b"x" * 2**20)
"""
# The engine is told what to run by the test's backend, so a whole second orchestrator is a script.
ORCHESTRATOR = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from orchestrator.domain import SandboxId
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.docker_backend import DockerBackend, open_docker_backend
from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_calls import Engine
from orchestrator.sandbox.lease import hold_lease

async def main(endpoint, image_id, runtime_directory, runtime, *command):
    with hold_lease(Path(runtime_directory)) as lease:
        async with open_docker_backend(
            endpoint=endpoint, image_id=image_id, limits=SandboxLimits(), runtime=runtime,
            lease=lease,
        ) as backend:
            sockets = lease.socket_root / "a"
            sockets.mkdir()
            backend = DockerBackend(
                engine=Engine(connect(endpoint)),
                spec=replace(backend.spec, command=command),
                lease=lease,
            )
            container = await backend.start(
                sandbox_id=SandboxId("other"), socket_directory=sockets
            )
            print(container.container_id, flush=True)
            await container.wait_for_exit()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def engine_info() -> EngineInfo:
    return find_engine(docker_host=None, runtime_dir=None)


@pytest.fixture(scope="module")
def image_id(engine_info: EngineInfo) -> str:
    return build_image(print, engine=engine_info, release=version("rlm-sandbox")).image_id


@pytest.fixture(scope="module")
def client(engine_info: EngineInfo) -> Iterator[DockerClient]:
    client = connect(engine_info.endpoint)
    yield client
    client.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Makes a directory whose path leaves room for a socket's (unix(7))."""
    path = Path(tempfile.mkdtemp(prefix="rlm-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def lease(short_path: Path) -> Iterator[Lease]:
    with hold_lease(short_path / "r") as lease:
        (lease.socket_root / "a").mkdir()
        yield lease


@pytest.fixture
async def proxy(engine_info: EngineInfo, short_path: Path) -> AsyncIterator[EngineProxy]:
    engine_socket = engine_info.endpoint.removeprefix("unix://")
    async with open_proxy(engine_socket, short_path / "p.sock") as proxy:
        yield proxy
    gc.collect()  # what the SDK leaks is found here, and not in the next test


class Bench:
    """Opens backends whose containers run a probe instead of the worker."""

    def __init__(self, image_id: str, endpoint: str, lease: Lease) -> None:
        """Keeps what every backend of a test has in common."""
        self._image_id = image_id
        self._endpoint = endpoint
        self._lease = lease

    @asynccontextmanager
    async def backend(
        self,
        source: str,
        *,
        limits: SandboxLimits = LIMITS,
        endpoint: str | None = None,
        call_timeout_s: float = 20.0,
    ) -> AsyncIterator[DockerBackend]:
        """Opens a backend whose containers run `source`."""
        endpoint = endpoint or self._endpoint
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(
                open_docker_backend(
                    endpoint=endpoint,
                    image_id=self._image_id,
                    limits=limits,
                    runtime=under_test().setting,
                    lease=self._lease,
                )
            )
            engine = Engine(await asyncio.to_thread(connect, endpoint, timeout_s=call_timeout_s))
            stack.callback(engine.close)
            backend = DockerBackend(
                engine=engine,
                spec=replace(opened.spec, command=(*PYTHON, source)),
                lease=self._lease,
            )
            stack.push_async_callback(backend.aclose)
            yield backend

    async def start(
        self, backend: DockerBackend, name: str = "a", *, listening: UntilListening | None = None
    ) -> DockerContainer:
        """Starts a container with a socket directory of its own."""
        return await backend.start(
            sandbox_id=SandboxId(f"{self._lease.owner}-{name}"),
            socket_directory=self._lease.socket_root / "a",
            listening=listening,
        )


@pytest.fixture
def bench(image_id: str, engine_info: EngineInfo, lease: Lease) -> Bench:
    return Bench(image_id, engine_info.endpoint, lease)


def containers_of(client: DockerClient, lease: Lease) -> list[str]:
    label = f"rlm-sandbox.owner={lease.owner}"
    found = client.api.containers(all=True, filters={"label": label})
    return [str(entry["Id"]) for entry in found]


def exists(client: DockerClient, container_id: str) -> bool:
    return bool(client.api.containers(all=True, filters={"id": container_id}))


def printed(client: DockerClient, container: DockerContainer) -> Any:  # noqa: ANN401 - JSON
    return json.loads(client.api.logs(container.container_id))


async def test_walls_are_found_as_promised(bench: Bench, client: DockerClient) -> None:
    """From inside, the container is what the backend promises a worker it will be."""
    async with bench.backend(FIND_WALLS) as backend:
        container = await bench.start(backend)
        await container.wait_for_exit()
        found = printed(client, container)
        found["is_host_kernel"] = found.pop("kernel_release") == platform.release()
        found |= {name: frozenset(item) for name, item in found.items() if isinstance(item, list)}

        assert backend.promised_walls.differences(Walls(**found)) == ()


async def test_writable_places_are_bounded(bench: Bench, client: DockerClient) -> None:
    """Every mount that can be written is in memory and bounded; nothing of the host can be."""
    async with bench.backend(LIST_MOUNTS) as backend:
        container = await bench.start(backend)
        await container.wait_for_exit()
        mounts = [line.split() for line in printed(client, container)]

    options = {mount[1]: set(mount[3].split(",")) for mount in mounts}
    assert {"size=65536k", "nr_inodes=4096", "noexec", "nosuid", "nodev"} <= options["/tmp"]
    assert {"size=1024k", "nr_inodes=256", "noexec", "nosuid", "nodev"} <= options["/dev/shm"]
    of_the_host = {
        mount[1] for mount in mounts if mount[2] in {"ext4", "xfs", "btrfs", "overlay", "zfs"}
    }
    assert {path for path in of_the_host if "ro" not in options[path]} == set()
    assert of_the_host == {"/", "/run/rlm", "/etc/hostname"}  # the last says "sandbox"


async def test_labels_name_owner_sandbox_and_end(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """A container says whose it is and until when, for a sweep that knows nothing else."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        container = await bench.start(backend)
        labels = client.api.inspect_container(container.container_id)["Config"]["Labels"]

    assert labels["rlm-sandbox.owner"] == lease.owner
    assert labels["rlm-sandbox.realm"] == lease.runtime_directory.realm
    assert labels["rlm-sandbox.sandbox-id"] == f"{lease.owner}-a"
    lifetime_s = int(labels["rlm-sandbox.expires"]) - time.time()
    assert LIMITS.lifetime_s - 60 < lifetime_s <= LIMITS.lifetime_s + 1


@pytest.mark.parametrize(
    ("wall", "asked", "instead"),
    [
        ("CapDrop", b'"CapDrop": ["ALL"]', b'"CapDrop": [     ]'),
        ("ReadonlyRootfs", b'"ReadonlyRootfs": true', b'"ReadonlyRootfs":false'),
        ("PidsLimit", b'"PidsLimit": 64', b'"PidsLimit": -1'),
        ("SecurityOpt", b'["no-new-privileges", ', b"[                     "),
        ("SecurityOpt", b"SCMP_ACT_ERRNO", b"SCMP_ACT_ALLOW"),
        ("NetworkMode", b'"NetworkMode": "none"', b'"NetworkMode": "host"'),
    ],
)
async def test_wall_that_the_engine_left_out_is_refused(  # noqa: PLR0917 - fixtures
    bench: Bench,
    client: DockerClient,
    lease: Lease,
    proxy: EngineProxy,
    wall: str,
    asked: bytes,
    instead: bytes,
) -> None:
    """An engine that sets something else than it was asked starts nothing, and leaves nothing."""
    async with bench.backend(WAIT_FOR_EVER, endpoint=proxy.endpoint) as backend:
        proxy.twist(asked, instead)

        with pytest.raises(SandboxStartError, match=wall):
            await bench.start(backend)

        assert containers_of(client, lease) == []


async def test_same_engine_untwisted_control(
    bench: Bench, client: DockerClient, lease: Lease, proxy: EngineProxy
) -> None:
    """Through the same proxy, left alone, the container starts: the wall is what was refused."""
    async with bench.backend(WAIT_FOR_EVER, endpoint=proxy.endpoint) as backend:
        container = await bench.start(backend)

        assert containers_of(client, lease) == [container.container_id]


async def test_destroy_is_idempotent_and_final(bench: Bench, client: DockerClient) -> None:
    """A destroyed container is gone, and whoever waited for its end goes on."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        container = await bench.start(backend)
        waiting = asyncio.create_task(container.wait_for_exit())
        await asyncio.gather(container.destroy(), container.destroy())
        await container.destroy()
        await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(container.wait_for_exit(), 10)

        assert not exists(client, container.container_id)


async def test_destroy_runs_to_its_end_under_cancellation(
    bench: Bench, client: DockerClient
) -> None:
    """A second Ctrl-C while the container is being removed does not leave it there."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        container = await bench.start(backend)
        destroying = asyncio.create_task(container.destroy())
        await asyncio.sleep(0)  # until it waits for the engine
        destroying.cancel()
        await asyncio.wait({destroying})

        assert destroying.cancelled()
        assert not exists(client, container.container_id)


async def test_cancel_during_the_start_leaves_no_container(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """A request to the engine cannot be taken back, so what comes of it is undone."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        await (await bench.start(backend, "first")).destroy()  # so that the next is at the engine
        starting = asyncio.create_task(bench.start(backend, "second"))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})

        assert starting.cancelled()
        assert containers_of(client, lease) == []


def state_of(client: DockerClient, container_id: str) -> str:
    return str(client.api.inspect_container(container_id)["State"]["Status"])


async def test_container_is_made_while_its_broker_begins_to_listen(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """It is there before anybody listens, and nothing runs in it until then."""
    states: list[str] = []

    async def listening() -> None:
        await until(lambda: bool(containers_of(client, lease)))
        states.append(state_of(client, containers_of(client, lease)[0]))

    async with bench.backend(WAIT_FOR_EVER) as backend:
        container = await bench.start(backend, listening=listening)

        assert states == ["created"]
        assert state_of(client, container.container_id) == "running"


async def test_broker_that_does_not_listen_leaves_no_container(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """What the broker failed with is raised, and the container that was made is removed."""

    async def listening() -> None:
        await until(lambda: bool(containers_of(client, lease)))
        raise SandboxStartError("the disk is full")

    async with bench.backend(WAIT_FOR_EVER) as backend:
        with pytest.raises(SandboxStartError, match="the disk is full"):
            await bench.start(backend, listening=listening)

        assert containers_of(client, lease) == []


async def test_cancel_while_the_broker_does_not_listen_leaves_no_container(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """A broker that never listens is not waited for by whoever has left."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        starting = asyncio.create_task(bench.start(backend, listening=asyncio.Event().wait))
        await until(lambda: bool(containers_of(client, lease)))
        starting.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait({starting})

        assert starting.cancelled()
        assert containers_of(client, lease) == []


async def test_closing_the_backend_destroys_what_it_started(
    bench: Bench, client: DockerClient, lease: Lease
) -> None:
    """A container that its session forgot ends with the backend."""
    async with bench.backend(WAIT_FOR_EVER) as backend:
        await bench.start(backend)

        assert len(containers_of(client, lease)) == 1

    assert containers_of(client, lease) == []


async def test_obituary_after_a_memory_kill(bench: Bench) -> None:
    """A worker that used more memory than it has is said to have been ended for it."""
    async with bench.backend(FILL_MEMORY) as backend:
        container = await bench.start(backend)
        await asyncio.wait_for(container.wait_for_exit(), 60)
        obituary = await container.obituary()

    assert "exit code 137" in obituary
    assert "for want of memory (limit 128 MiB; --memory raises it)" in obituary


async def test_obituary_quotes_the_log_harmlessly(bench: Bench) -> None:
    """The last words are there, without what a terminal would act on, and bounded."""
    source = "import sys; sys.exit('a\\n' * 50 + '\\x1b[2J\\u202ewhy\\0not ' + 'x' * 10_000)"
    async with bench.backend(source) as backend:
        container = await bench.start(backend)
        await asyncio.wait_for(container.wait_for_exit(), 60)
        obituary = await container.obituary()

    assert "exit code 1: it ended by itself" in obituary
    assert "| [2Jwhynot xxx" in obituary
    assert len(obituary) < 1_000
    assert set(obituary) & set("\x1b\u202e\0") == set()


async def test_missing_image_says_what_to_do(
    engine_info: EngineInfo, lease: Lease, client: DockerClient
) -> None:
    """An image that is gone is named together with the command that makes it."""
    async with open_docker_backend(
        endpoint=engine_info.endpoint,
        image_id=f"sha256:{'0' * 64}",
        limits=LIMITS,
        runtime=under_test().setting,
        lease=lease,
    ) as backend:
        with pytest.raises(SandboxStartError, match="rlm image build"):
            await backend.start(
                sandbox_id=SandboxId("a1"), socket_directory=lease.socket_root / "a"
            )

    assert containers_of(client, lease) == []


async def open_with_runtime(engine_info: EngineInfo, lease: Lease, runtime: str) -> None:
    async with open_docker_backend(
        endpoint=engine_info.endpoint,
        image_id="sha256:0",
        limits=LIMITS,
        runtime=runtime,
        lease=lease,
    ):
        pass


async def test_required_gvisor_fails_closed(
    engine_info: EngineInfo, lease: Lease, client: DockerClient
) -> None:
    """Where gVisor is asked for and not there, nothing weaker is taken."""
    if any(runtime.is_gvisor for runtime in read_runtimes(client.info())):
        pytest.skip("this engine has gVisor")

    with pytest.raises(SandboxStartError, match="--host-uds=open"):
        await open_with_runtime(engine_info, lease, "gvisor")


async def test_unknown_runtime_lists_what_the_engine_has(
    engine_info: EngineInfo, lease: Lease
) -> None:
    """A misspelt runtime is refused before anything starts, with the names there are."""
    with pytest.raises(SettingsError, match=r"rnuc.*\brunc\b"):
        await open_with_runtime(engine_info, lease, "rnuc")


@sdk_leaks
async def test_engine_that_goes_away_loses_the_sandbox(
    bench: Bench, proxy: EngineProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for an engine that is gone: the end is an error, and destroying gives up."""
    caplog.set_level(logging.WARNING)
    async with bench.backend(WAIT_FOR_EVER, endpoint=proxy.endpoint) as backend:
        container = await bench.start(backend)
        waiting = asyncio.create_task(container.wait_for_exit())
        await asyncio.sleep(0)
        await proxy.go_away()

        with pytest.raises(SandboxLostError, match="engine went away"):
            await asyncio.wait_for(waiting, 10)
        assert "did not answer" in await asyncio.wait_for(container.obituary(), 10)
        await asyncio.wait_for(container.destroy(), 10)
        assert "left to the sweep" in caplog.text
        with pytest.raises(SandboxStartError):
            await asyncio.wait_for(bench.start(backend, "b"), 10)
        await proxy.come_back()


@sdk_leaks
async def test_engine_that_came_back_is_used_again(
    bench: Bench, client: DockerClient, lease: Lease, proxy: EngineProxy
) -> None:
    """A restart of the engine costs the sandboxes it had, not the orchestrator."""
    async with bench.backend("pass", endpoint=proxy.endpoint) as backend:
        first = await bench.start(backend, "first")
        await first.wait_for_exit()
        await proxy.go_away()
        await proxy.come_back()
        await first.destroy()

        second = await bench.start(backend, "second")
        await asyncio.wait_for(second.wait_for_exit(), 20)

    assert containers_of(client, lease) == []


@sdk_leaks
async def test_engine_that_hangs_is_not_waited_for(
    bench: Bench, client: DockerClient, lease: Lease, proxy: EngineProxy
) -> None:
    """Every call to an engine that took the request and says nothing ends within its bound."""
    async with bench.backend(WAIT_FOR_EVER, endpoint=proxy.endpoint, call_timeout_s=1.0) as backend:
        container = await bench.start(backend)
        proxy.hold_up()

        await asyncio.wait_for(container.destroy(), 5)
        assert "did not answer" in await asyncio.wait_for(container.obituary(), 5)
        with pytest.raises(SandboxStartError, match="did not answer"):
            await asyncio.wait_for(bench.start(backend, "b"), 5)
        await proxy.go_away()

    for left_over in containers_of(client, lease):
        client.api.remove_container(left_over, force=True)


async def test_sweep_removes_what_a_killed_orchestrator_left(
    bench: Bench, client: DockerClient, engine_info: EngineInfo, image_id: str, lease: Lease
) -> None:
    """A living orchestrator's container is left alone; kill -9, and the next sweep takes it."""
    runtime_directory = lease.runtime_directory
    arguments = [
        engine_info.endpoint,
        image_id,
        str(runtime_directory.path),
        under_test().setting,
        *PYTHON,
    ]
    with subprocess.Popen(  # noqa: ASYNC220 - this interpreter, a literal program
        [sys.executable, "-c", ORCHESTRATOR, *arguments, WAIT_FOR_EVER],
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        container_id = (await asyncio.to_thread(other.stdout.readline)).strip()
        async with bench.backend(WAIT_FOR_EVER) as backend:
            own = await bench.start(backend)

            assert await backend.sweep() == 0
            assert exists(client, container_id)

            os.kill(other.pid, signal.SIGKILL)
            await asyncio.to_thread(other.wait, 10)

            assert await backend.sweep() == 1
            assert not exists(client, container_id)
            assert exists(client, own.container_id)
            assert runtime_directory.known_owners() == {lease.owner}
            assert await backend.sweep() == 0


async def test_sweep_ends_a_lifetime(bench: Bench, client: DockerClient) -> None:
    """A container that outlived its lifetime goes, although its orchestrator lives."""
    limits = replace(LIMITS, lifetime_s=-1.0)
    async with bench.backend(WAIT_FOR_EVER, limits=limits) as backend:
        container = await bench.start(backend)

        assert await backend.sweep() == 1
        await asyncio.wait_for(container.wait_for_exit(), 10)
        assert not exists(client, container.container_id)
