"""Sealed sandboxes to attack: one for each module's harmless probes, a fresh one for the rest."""

from collections.abc import AsyncIterator

import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_provider
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_SECOND_STAGE

from orchestrator.ports import Sandbox, SandboxProvider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(runtime: RuntimeUnderTest) -> AsyncIterator[SandboxProvider]:
    """The product's own way to a sandbox, with every wall up."""
    assert runtime == under_test()
    async with open_provider() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_sandbox(provider: SandboxProvider) -> AsyncIterator[Sandbox]:
    """A sandbox for probes that leave it as they found it."""
    async with provider.open(EchoQueries()) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare_provider(runtime: RuntimeUnderTest) -> AsyncIterator[SandboxProvider]:
    """The way to sandboxes whose REPL process gives up nothing.

    What holds there, the container and the worker hold by themselves.
    """
    assert runtime == under_test()
    async with open_provider(weakening=NO_SECOND_STAGE) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare_sandbox(bare_provider: SandboxProvider) -> AsyncIterator[Sandbox]:
    """One of those, for probes that leave it as they found it."""
    async with bare_provider.open(EchoQueries()) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(provider: SandboxProvider) -> AsyncIterator[Sandbox]:
    """A fresh sandbox."""
    async with provider.open(EchoQueries()) as opened:
        yield opened
