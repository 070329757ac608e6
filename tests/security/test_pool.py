"""A sandbox that waited for its session: it is one session's alone, and nobody's before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio
from support.broker_host import EchoQueries, broker_in, short_directory, until
from support.docker_sandboxes import container_id_of, limits_under_test, open_provider
from support.fake_container import FakeBackend, FakeContainer
from support.pool_bench import PoolBench, in_virtual_time
from support.probes import probe
from support.scripted_worker import WALLS, ScriptedWorker

from orchestrator.domain import CellId, QueryAnswer, QueryId, QueryRequest, SandboxId, Walls
from orchestrator.limits import PoolLimits, SandboxLimits
from orchestrator.ports import SandboxProvider, UntilListening
from orchestrator.sandbox.launcher import SandboxLauncher
from orchestrator.sandbox.pool import SandboxPool, open_pool

LEAVE_SOMETHING = """
secret = "of the first session"
open("/tmp/secret", "w").write(secret)
tell(None)
"""
FIND_IT = "tell([globals().get('secret'), os.listdir('/tmp')])"


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    """A pool of one, so that whoever comes second would be given what the first had."""
    async with open_provider(sandbox=limits_under_test(), pool=PoolLimits(size=1)) as provider:
        assert isinstance(provider, SandboxPool)
        yield provider


async def ids_of(provider: SandboxProvider, source: str) -> tuple[str, object]:
    """Runs a probe in a session of its own; returns the container and what the probe tells."""
    async with provider.open(EchoQueries()) as sandbox:
        return container_id_of(sandbox), await probe(sandbox, source)


@pytest.mark.docker
async def test_next_session_has_another_container(pool: SandboxPool) -> None:
    """What one session has bound and written is not there for the next, nor is its container."""
    first, _ = await ids_of(pool, LEAVE_SOMETHING)
    second, found = await ids_of(pool, FIND_IT)

    assert first != second
    assert found == [None, []]


@pytest.mark.docker
async def test_same_session_has_the_same_container_control(pool: SandboxPool) -> None:
    """Within one session the same probe finds both."""
    async with pool.open(EchoQueries()) as sandbox:
        await probe(sandbox, LEAVE_SOMETHING)

        assert await probe(sandbox, FIND_IT) == ["of the first session", ["secret"]]


class DiallingBackend(FakeBackend):
    """Starts a worker of the test's for each container, which says an honest hello.

    Attributes:
        workers: Every one, in the order in which they were started.
    """

    def __init__(self) -> None:
        """Begins without workers."""
        super().__init__([])
        self.workers: list[ScriptedWorker] = []
        self.stack = AsyncExitStack()

    @property
    def promised_walls(self) -> Walls:
        """What the workers of the test claim to find."""
        return WALLS

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> FakeContainer:
        """See `ContainerBackend.start`."""
        container = await super().start(
            sandbox_id=sandbox_id, socket_directory=socket_directory, listening=listening
        )
        worker = await self.stack.enter_async_context(ScriptedWorker(socket_directory))
        self.workers.append(worker)
        await worker.greet()
        return container


class Noted:
    """Answers each prompt with itself, and notes that it was asked."""

    def __init__(self) -> None:
        """Begins unasked."""
        self.asked: list[QueryRequest] = []

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        self.asked.append(request)
        return list(request.prompts)


@asynccontextmanager
async def pool_of_workers() -> AsyncIterator[tuple[SandboxPool, DiallingBackend]]:
    """Yields a pool of one behind the real broker, and what starts its workers."""
    backend = DiallingBackend()
    with short_directory() as directory:
        async with backend.stack:
            launcher = SandboxLauncher(
                backend=backend, broker=broker_in(directory), limits=SandboxLimits()
            )
            async with open_pool(launcher, limits=PoolLimits(size=1)) as pool:
                yield pool, backend


async def test_query_of_a_waiting_sandbox_reaches_nobody() -> None:
    """What a worker asks before anybody has it is refused, and no session is asked, then or later.

    The broker refuses it: no cell runs. It goes on, as after a query that comes late for its cell.
    """
    noted = Noted()
    async with pool_of_workers() as (pool, backend):
        await until(lambda: pool.figures.ready_count == 1)
        with pytest.raises(aio.AioRpcError) as refusal:
            await backend.workers[0].query(["for nobody"], cell_id=1)
        async with pool.open(noted) as sandbox:
            assert sandbox.container is backend.containers[0]

    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert noted.asked == []


async def test_waiting_sandbox_that_breaks_the_contract_is_given_to_nobody() -> None:
    """A worker that sends a result although nobody ran a cell is destroyed while it waits."""
    async with pool_of_workers() as (pool, backend):
        await until(lambda: pool.figures.ready_count == 1)
        await backend.workers[0].finish(1)
        await until(lambda: pool.figures.destroyed_unused_count == 1)
        async with pool.open(Noted()) as sandbox:
            assert sandbox.container is not backend.containers[0]
        await until(lambda: backend.containers[0].is_destroyed)


async def test_query_of_an_assigned_sandbox_control() -> None:
    """The same query of the same worker is answered by its session while a cell runs."""
    noted = Noted()
    async with pool_of_workers() as (pool, backend):
        await until(lambda: pool.figures.ready_count == 1)
        [worker] = backend.workers
        async with pool.open(noted) as sandbox:
            running = asyncio.create_task(sandbox.run_cell("llm_query(…)", timeout_s=20))
            cell_id = await worker.hear_cell()
            reply = await worker.query(["for nobody"], cell_id=cell_id)
            await worker.finish(cell_id)
            await running

    assert reply.answers[0].text == "for nobody"
    assert len(noted.asked) == 1


@in_virtual_time
async def test_query_past_the_broker_s_rules_finds_nobody() -> None:
    """Whoever has taken the broker over asks in the name of a waiting sandbox: nobody answers."""
    bench = PoolBench(size=1)
    noted = Noted()
    async with bench.opened() as pool:
        [sandbox_id] = bench.broker.endpoints
        request = QueryRequest(query_id=QueryId("q1"), cell_id=CellId(1), prompts=("for nobody",))
        [answer] = await bench.broker.queries[sandbox_id].answer(request)
        async with pool.open(noted) as sandbox:
            assert sandbox.sandbox_id != sandbox_id

    assert not isinstance(answer, str)
    assert noted.asked == []
