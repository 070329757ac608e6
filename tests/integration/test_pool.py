"""A pool of real containers: a burst, one killed from outside, an engine that goes, the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.broker_host import EchoQueries, until
from support.docker_sandboxes import container_id_of
from support.engine_proxy import EngineProxy
from support.model_server import ModelServer
from support.real_host import RealHost, cell

from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy, Outcome
from orchestrator.errors import SandboxStartError
from orchestrator.events import RunEvent, SandboxReady
from orchestrator.limits import PoolLimits, SandboxLimits
from orchestrator.sandbox.pool import SandboxPool
from orchestrator.settings import Settings

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(600),  # the first one may have to build
    # The SDK does not close a socket whose peer went away, as the proxy does.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

SMALL = SandboxLimits(memory_bytes=128 * 2**20)
PATIENCE_S = 60.0


@asynccontextmanager
async def open_real_pool(
    host: RealHost,
    *,
    size: int,
    docker_host: str | None = None,
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS,
    notes: list[str] | None = None,
) -> AsyncIterator[SandboxPool]:
    """Yields the pool that the settings of this corner ask for."""
    settings = Settings(
        policy=LanguagePolicy.OPEN,
        runtime="runc",
        docker_host=docker_host or host.engine.info.endpoint,
        runtime_directory=host.runtime_directory.path,
        sandbox=SMALL,
        broker=broker,
        pool=PoolLimits(size=size),
    )
    told = [] if notes is None else notes
    async with open_docker_sandboxes(settings, report=told.append) as provider:
        assert isinstance(provider, SandboxPool)
        yield provider


async def full(pool: SandboxPool, size: int) -> None:
    """Waits until as many sandboxes wait as are to."""
    async with asyncio.timeout(PATIENCE_S):
        while pool.figures.ready_count != size:  # noqa: ASYNC110 - it has no event to give
            await asyncio.sleep(0.01)


async def number_of(pool: SandboxPool, number: int, served: list[int]) -> str:
    """Has a sandbox, runs a cell in it, and returns its name."""
    async with pool.open(EchoQueries()) as sandbox:
        served.append(number)
        result = await sandbox.run_cell(f"print({number})", timeout_s=60)
        assert (result.outcome, str(result.stdout)) == (Outcome.SUCCEEDED, f"{number}\n")
        return str(sandbox.sandbox_id)


@pytest.mark.slow
async def test_burst_is_served_in_order_and_leaves_nothing(host: RealHost) -> None:
    """Fourteen sessions come to a pool of three: each has one of its own, in order, and is told."""
    served: list[int] = []
    notes: list[str] = []
    async with open_real_pool(host, size=3, notes=notes) as pool:
        await full(pool, 3)
        names = await asyncio.gather(*(number_of(pool, number, served) for number in range(14)))

        assert served == list(range(14))
        assert len(set(names)) == 14
        assert pool.figures.failed_start_count == 0
        assert any("number 11 in line, one is expected in" in note for note in notes)


async def test_idle_container_that_is_killed_is_replaced(host: RealHost) -> None:
    """What somebody kills while it waits is handed out to nobody, and the pool is full again."""
    async with open_real_pool(host, size=2) as pool:
        await full(pool, 2)
        killed, _other = host.containers()
        host.engine.client.api.kill(killed)
        await full(pool, 1)
        await full(pool, 2)

        async with pool.open(EchoQueries()) as first, pool.open(EchoQueries()) as second:
            assert killed not in {container_id_of(first), container_id_of(second)}
        assert pool.figures.destroyed_unused_count == 1


async def test_engine_that_goes_away_and_comes_back(
    host: RealHost, engine_proxy: EngineProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool survives the restart of its engine; meanwhile callers hear what is wrong."""
    caplog.set_level(logging.INFO, logger="orchestrator.sandbox.pool")
    async with open_real_pool(host, size=2, docker_host=engine_proxy.endpoint) as pool:
        await full(pool, 2)
        await engine_proxy.go_away()
        await full(pool, 0)
        with pytest.raises(SandboxStartError, match="engine"):
            async with pool.open(EchoQueries()):
                pytest.fail("it was handed out")
        await engine_proxy.come_back()
        await full(pool, 2)

        assert await number_of(pool, 7, [])
        said = [
            record.message
            for record in caplog.records
            if record.name == "orchestrator.sandbox.pool"
        ]
        assert len(said) == 3, said


@pytest.mark.parametrize("broker", BrokerIsolation)
async def test_drain_while_starting_leaves_nothing(host: RealHost, broker: BrokerIsolation) -> None:
    """Left in the middle of its starts, cancelled as well, a pool leaves no container behind."""
    entered = asyncio.Event()

    async def hold() -> None:
        async with open_real_pool(host, size=4, broker=broker) as pool:
            # At least one: two may have become ready between two looks.
            await until(lambda: pool.figures.ready_count >= 1)
            entered.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    entering = asyncio.create_task(entered.wait())
    await asyncio.wait({holding, entering}, return_when=asyncio.FIRST_COMPLETED)
    # Also where it failed: what else would end gRPC's own tasks is the end of the event loop.
    entering.cancel()
    holding.cancel()
    await asyncio.wait({holding})

    assert holding.cancelled()
    assert host.leftovers() == []


async def test_waiting_container_is_not_swept_before_its_time(host: RealHost) -> None:
    """The label that other orchestrators judge by leaves time to wait, and a whole lifetime."""
    async with open_real_pool(host, size=1) as pool:
        await full(pool, 1)
        [container] = host.containers()
        record = host.engine.client.api.inspect_container(container)
        left_s = int(record["Config"]["Labels"]["rlm-sandbox.expires"]) - time.time()

    longest_wait_s = PoolLimits().max_wait_age_s
    assert left_s > longest_wait_s + SMALL.lifetime_s - PATIENCE_S
    assert left_s <= longest_wait_s + SMALL.start_s + SMALL.lifetime_s + 1


async def test_runs_of_an_open_rlm_have_sandboxes_of_the_pool(host: RealHost) -> None:
    """Inside `with` each run takes one that waits, and its statement of controls is that one's."""
    events: list[RunEvent] = []
    with ModelServer(root=[cell("FINAL(1)"), cell("FINAL(2)")]) as server:
        rlm = host.rlm(server, pool_limits=PoolLimits(size=1), on_event=events.append)
        async with rlm:
            results = [await rlm.acompletion("a context", "Which?") for _ in range(2)]

    ready = [event for event in events if isinstance(event, SandboxReady)]
    assert [result.answer for result in results] == ["1", "2"]
    assert ready[0].sandbox_id != ready[1].sandbox_id
    assert [event.controls.sandbox_id for event in ready] == [event.sandbox_id for event in ready]
