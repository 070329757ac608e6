"""A real engine's runtimes: set up again, missing from the disk, gone from the configuration."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest
from support.broker_host import EchoQueries, until
from support.real_host import RealHost, SandboxEngine
from support.runtimes import why_no_gvisor

from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.errors import SandboxStartError
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.engine_config import CONFIG_FILE, read_config, with_runtime, write_config
from orchestrator.sandbox.engine_setup import reload_engine
from orchestrator.sandbox.runtimes import NEEDED_FLAGS
from orchestrator.settings import Settings

pytestmark = [pytest.mark.docker]

_SYSTEM_ENGINE = "unix:///var/run/docker.sock"


#: The last one is refused by `required`: whoever else uses this engine is to take another.
FLAGS = (*NEEDED_FLAGS, "--alsologtostderr")


@contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Keeps two runs of the tests from writing over each other's change."""
    with Path("/tmp/rlm-test-engine-config.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


@asynccontextmanager
async def registered(engine: SandboxEngine, name: str, program: Path) -> AsyncIterator[None]:
    """Has the engine know a runtime, for as long as the context; nobody else's is touched."""
    if os.getuid() or engine.info.endpoint != _SYSTEM_ENGINE:
        pytest.skip("only root may configure the system's engine")
    with only_one_at_a_time():
        before = read_config(CONFIG_FILE)
        text = with_runtime(before, name=name, path=str(program), arguments=FLAGS)
        write_config(CONFIG_FILE, text)
        try:
            await _read_anew(engine, name, is_there=True)
            yield
        finally:
            write_config(CONFIG_FILE, before)
            await _read_anew(engine, name, is_there=False)


async def _read_anew(engine: SandboxEngine, name: str, *, is_there: bool) -> None:
    reload_engine(print)
    endpoint = engine.info.endpoint
    await until(lambda: (name in ask_engine(endpoint).info["Runtimes"]) is is_there)


def settings(host: RealHost, runtime: str) -> Settings:
    return Settings(
        runtime=runtime,
        docker_host=host.engine.info.endpoint,
        runtime_directory=host.runtime_directory.path,
        # Under a gVisor that is none, the host's kernel counts what all sandboxes have together.
        sandbox=SandboxLimits(process_count=512),
    )


def test_gvisor_is_set_up_once(host: RealHost) -> None:
    """Where gVisor is registered, setting it up again says so and changes nothing."""
    if reason := why_no_gvisor():
        pytest.skip(reason)
    before = read_config(CONFIG_FILE)

    ended = host.call("setup", "--gvisor")

    assert ended.exit_code == 0, ended.stderr
    assert "gvisor: runsc" in ended.stdout
    assert "--host-uds=open" in ended.stdout
    assert read_config(CONFIG_FILE) == before


async def test_registered_program_that_is_missing(host: RealHost, tmp_path: Path) -> None:
    """A registration without its program starts nothing, and nothing else is taken for it."""
    program = tmp_path / "runsc"
    async with (
        registered(host.engine, "rlm-test-missing", program),
        open_docker_sandboxes(settings(host, "rlm-test-missing")) as provider,
    ):
        with pytest.raises(SandboxStartError, match="where nothing is") as caught:
            async with provider.open(EchoQueries()):
                pass

    assert str(program) in str(caught.value)
    assert "no other runtime is taken instead" in str(caught.value)


async def test_runtime_that_is_gone_while_the_orchestrator_runs(
    host: RealHost, tmp_path: Path
) -> None:
    """One that was there when it was chosen, and is not any more, is named as what is missing."""
    async with AsyncExitStack() as stack:
        async with registered(host.engine, "rlm-test-gone", tmp_path / "runsc"):
            provider = await stack.enter_async_context(
                open_docker_sandboxes(settings(host, "rlm-test-gone"))
            )

        with pytest.raises(SandboxStartError, match="not registered with the engine any more"):
            async with provider.open(EchoQueries()):
                pass


async def test_program_that_is_not_gvisor_runs_no_cell(host: RealHost, tmp_path: Path) -> None:
    """A program of gVisor's name that is the host's own runtime is found out from inside."""
    program = tmp_path / "runsc"
    program.write_text(f'#!/bin/sh\nshift {len(FLAGS)}\nexec runc "$@"\n')  # without gVisor's own
    program.chmod(0o755)
    async with (
        registered(host.engine, "rlm-test-posing", program),
        open_docker_sandboxes(settings(host, "rlm-test-posing")) as provider,
    ):
        with pytest.raises(SandboxStartError, match="is_host_kernel: promised False"):
            async with provider.open(EchoQueries()):
                pass
