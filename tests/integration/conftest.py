"""The engine, the image and a corner of the host for each test that wants the whole product."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.engine_proxy import EngineProxy, open_proxy
from support.real_host import RealHost, SandboxEngine

from orchestrator.app.host import set_up
from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.lease import open_runtime_directory
from orchestrator.settings import load


@pytest.fixture(scope="session")
def sandbox_engine() -> Iterator[SandboxEngine]:
    """What `rlm setup` sees to; after the last test, no container of any test may be there."""
    info, image = set_up(load(), print)
    client = connect(info.endpoint)
    engine = SandboxEngine(info=info, image=image, client=client)
    yield engine
    left_over = [container for realm in engine.realms for container in engine.containers(realm)]
    client.close()
    assert left_over == []


@pytest.fixture
def host(sandbox_engine: SandboxEngine, tmp_path: Path) -> Iterator[RealHost]:
    """A corner of the host; whatever a test did in it, nothing may be left there."""
    short_path = Path(tempfile.mkdtemp(prefix="rlm-"))  # leaves room for a socket's path (unix(7))
    host = RealHost(
        engine=sandbox_engine,
        home=tmp_path,
        runtime_directory=open_runtime_directory(short_path / "r"),
    )
    yield host
    left_over = host.leftovers()
    host.clear()
    shutil.rmtree(short_path)
    assert left_over == []


@pytest.fixture
async def engine_proxy(host: RealHost) -> AsyncIterator[EngineProxy]:
    """A way to the engine that can be cut."""
    engine_socket = host.engine.info.endpoint.removeprefix("unix://")
    async with open_proxy(engine_socket, host.runtime_directory.path / "p.sock") as proxy:
        yield proxy


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file that is a context, and a cell as well."""
    path = tmp_path / "text"
    path.write_text("'a few words'")
    return path
