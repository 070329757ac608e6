"""An engine that does not set a limit: it says so, or it says nothing. Neither starts a sandbox.

The engine is the real one; what stands before it changes what it is told, and what it answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.broker_host import EchoQueries, short_directory
from support.docker_sandboxes import engine_and_image
from support.engine_proxy import EngineProxy, open_proxy
from support.probes import goes_on

from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.domain import LanguagePolicy
from orchestrator.errors import SandboxStartError
from orchestrator.limits import SandboxLimits
from orchestrator.ports import SandboxProvider
from orchestrator.settings import Settings

pytestmark = [
    pytest.mark.docker,
    # The SDK does not close a socket whose peer went away, as the proxy does in the end.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

LIMITS = SandboxLimits()
MEMORY = str(LIMITS.memory_bytes).encode()
MORE_MEMORY = b"9" + MEMORY[1:]


def nothing(_proxy: EngineProxy) -> None:
    """Leaves the engine as it is."""


@asynccontextmanager
async def behind_a_proxy(
    pretend: Callable[[EngineProxy], None] = nothing,
) -> AsyncIterator[tuple[EngineProxy, SandboxProvider]]:
    """Yields sandboxes of an engine, and what stands between, which pretends from the start."""
    engine, _ = engine_and_image()
    with short_directory() as directory:
        async with open_proxy(
            engine.endpoint.removeprefix("unix://"), directory / "p.sock"
        ) as proxy:
            pretend(proxy)
            settings = Settings(
                runtime="runc",
                policy=LanguagePolicy.OPEN,
                docker_host=proxy.endpoint,
                runtime_directory=directory / "r",
                sandbox=LIMITS,
            )
            async with open_docker_sandboxes(settings) as provider:
                yield proxy, provider


async def refusal(provider: SandboxProvider) -> str:
    """Returns why no sandbox was started."""
    with pytest.raises(SandboxStartError) as caught:
        async with provider.open(EchoQueries()):
            pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("asked", "instead", "ceiling", "found"),
    [
        (MEMORY, MORE_MEMORY, "memory.max", MORE_MEMORY.decode()),
        (b'"PidsLimit": 64', b'"PidsLimit": 65', "pids.max", "65"),
        (b"size=67108864", b"size=97108864", "/tmp bytes", "97"),
        (b"nr_inodes=4096", b"nr_inodes=9096", "/tmp names", "9096"),
        (b'"Hard": 256', b'"Hard": 257', "RLIMIT_NOFILE", "257"),
    ],
    ids=["memory", "processes", "scratch", "names", "descriptors"],
)
async def test_limit_that_is_written_down_and_not_set_is_found(
    asked: bytes, instead: bytes, ceiling: str, found: str
) -> None:
    """An engine whose record says what it was told, and whose kernel was told another thing.

    Nothing outside tells: the worker reads the limit where it applies, and no cell runs.
    """
    async with behind_a_proxy() as (proxy, provider):
        proxy.twist(asked, instead)
        # The engine leaves the spaces out.
        proxy.pretend(instead.replace(b" ", b""), asked.replace(b" ", b""))

        message = await refusal(provider)

    assert f"{ceiling}: promised at most" in message
    assert f"found {found}" in message


SWAP = b'"MemorySwap":' + MEMORY
NO_SWAP_ACCOUNTING = b'"MemorySwap":-1'.ljust(len(SWAP))


@pytest.mark.parametrize("version", [b"1", b"2"], ids=["version 1", "version 2"])
async def test_engine_without_swap_accounting_starts_nothing(version: bytes) -> None:
    """Such an engine leaves the bound on swap out, and says so: that is no limit on memory.

    Whichever version of control groups it has, or is taken to have.
    """

    def pretend(proxy: EngineProxy) -> None:
        for real in (b"1", b"2"):
            proxy.pretend(b'"CgroupVersion":"%b"' % real, b'"CgroupVersion":"%b"' % version)
        proxy.pretend(SWAP, NO_SWAP_ACCOUNTING)

    async with behind_a_proxy(pretend) as (_, provider):
        message = await refusal(provider)

    assert f"MemorySwap: asked for {LIMITS.memory_bytes}, the engine set -1" in message
    assert "`rlm doctor` says what this host lacks" in message


async def test_same_engine_untouched_control() -> None:
    """Through the same proxy, left alone, a sandbox starts and works."""
    async with behind_a_proxy() as (_, provider), provider.open(EchoQueries()) as sandbox:
        assert await goes_on(sandbox)
