"""Sandboxes of the real engine: as the product makes them, and with one wall taken down.

An attack that fails proves nothing until it is seen to succeed. So the same one definition of a
sandbox is started a second time without the wall that the attack met; only the controls do that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from support.broker_host import EchoQueries, short_directory
from support.probes import probe
from support.runtimes import under_test

from orchestrator.app.brokers import open_brokers
from orchestrator.app.host import set_up
from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.controls import BrokerIsolation, ContainerStatement
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, PoolLimits, QueryLimits, SandboxLimits
from orchestrator.ports import Sandbox, SandboxProvider, UntilListening
from orchestrator.sandbox.docker_backend import (
    DockerBackend,
    DockerContainer,
    open_docker_backend,
)
from orchestrator.sandbox.docker_client import DockerClient, connect
from orchestrator.sandbox.engine_calls import CALL_TIMEOUT_S, Engine
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.exit_watch import ExitWatch
from orchestrator.sandbox.launcher import LaunchedSandbox, SandboxLauncher
from orchestrator.sandbox.lease import Lease, hold_lease
from orchestrator.sandbox.reaper import OWNER_LABEL, lease_labels
from orchestrator.sandbox.spec import container_config
from orchestrator.sandbox.statement import read_container
from orchestrator.settings import Settings, load

#: A quarter of the default's memory, so that an attack on it is over sooner; else the default.
LIMITS = SandboxLimits(memory_bytes=256 * 2**20)
#: Under gVisor each process that a cell forks takes 17 MiB, where it takes 0.5 under runc: what is
#: no attack on memory is not to end for want of it.
_LIMITS_UNDER_GVISOR = SandboxLimits()
#: A shorter grace than the default's, which attacks that eat the interrupt use up whole.
CELL_LIMITS = CellLimits(grace_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakening:
    """One wall taken down.

    Attributes:
        change: Changes the body of the request that makes the container.
        walls: Names in `Walls`, or of its ceilings, of what the worker then finds otherwise than
            promised. Left out, the worker is to notice.
    """

    change: Callable[[dict[str, Any]], None]
    walls: tuple[str, ...] = ()


class WeakenedBackend:
    """Starts containers of the product's definition but for one wall; a `ContainerBackend`.

    What the engine says it has set is not compared with the definition here: that comparison would
    refuse, and has its own tests.
    """

    def __init__(
        self, *, backend: DockerBackend, client: DockerClient, lease: Lease, weakening: Weakening
    ) -> None:
        """Takes the product's own backend, which removes what is left over when it is closed."""
        self._backend = backend
        self._client = client
        self._engine = Engine(client)
        self._lease = lease
        self._weakening = weakening
        self._watch = ExitWatch(partial(self._engine.open_exits, f"{OWNER_LABEL}={lease.owner}"))

    @property
    def image_id(self) -> str:
        """See `ContainerBackend.image_id`."""
        return self._backend.image_id

    @property
    def promised_walls(self) -> Walls:
        """See `ContainerBackend.promised_walls`; nothing is promised of the wall that is down."""
        promised = self._backend.promised_walls
        ceilings = {
            name: ceiling
            for name, ceiling in promised.ceilings.items()
            if name not in self._weakening.walls
        }
        nothing: dict[str, Any] = dict.fromkeys(set(self._weakening.walls) - set(promised.ceilings))
        return replace(promised, ceilings=ceilings, **nothing)

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> DockerContainer:
        """See `ContainerBackend.start`."""
        if listening is not None:
            await listening()
        spec = self._backend.spec
        config = container_config(
            spec,
            sandbox_id=sandbox_id,
            socket_directory=socket_directory,
            labels=lease_labels(self._lease, expires_s=time.time() + spec.limits.lifetime_s),
        )
        self._weakening.change(config)
        await self._watch.opened(timeout_s=CALL_TIMEOUT_S)
        container_id = await asyncio.to_thread(self._start, config, f"rlm-sandbox-{sandbox_id}")
        statement = await asyncio.to_thread(self._state, container_id)
        return DockerContainer(
            engine=self._engine,
            spec=spec,
            container_id=container_id,
            statement=statement,
            watch=self._watch,
        )

    def _state(self, container_id: str) -> ContainerStatement:
        return read_container(
            self._client.api.inspect_container(container_id),
            engine=self._engine.describe(),
            runtime=self._backend.spec.runtime,
        )

    def _start(self, config: dict[str, Any], name: str) -> str:
        api = self._client.api
        created = api.create_container_from_config(config, name)  # type: ignore[no-untyped-call] # its stub has no types
        container_id = str(created["Id"])
        self._watch.expect(container_id)
        api.start(container_id)
        return container_id

    async def sweep(self) -> int:
        """See `ContainerBackend.sweep`."""
        return await self._backend.sweep()

    def close(self) -> None:
        """Gives the engine's connections back."""
        self._watch.close()
        self._engine.close()


def limits_under_test() -> SandboxLimits:
    """Returns the limits of a sandbox for which a test asks for no others."""
    return _LIMITS_UNDER_GVISOR if under_test().is_gvisor else LIMITS


def container_id_of(sandbox: Sandbox) -> str:
    """Returns the engine's own id of a sandbox's container."""
    assert isinstance(sandbox, LaunchedSandbox)
    assert isinstance(sandbox.container, DockerContainer)
    return sandbox.container.container_id


def engine_client() -> DockerClient:
    """Connects to the engine beside the product, to look at a sandbox from outside."""
    engine, _ = engine_and_image()
    return connect(engine.endpoint)


@cache
def engine_and_image() -> tuple[EngineInfo, str]:
    """Returns the engine and the image's digest, both as `rlm setup` sees to them."""
    engine, image = set_up(load(), print)
    return engine, image.image_id


@asynccontextmanager
async def open_provider(
    *,
    sandbox: SandboxLimits | None = None,
    cell: CellLimits = CELL_LIMITS,
    queries: QueryLimits | None = None,
    policy: LanguagePolicy = LanguagePolicy.OPEN,
    weakening: Weakening | None = None,
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS,
    pool: PoolLimits | None = None,
) -> AsyncIterator[SandboxProvider]:
    """Yields a provider in a runtime directory of its own, which is empty again afterwards.

    The policy is open unless told otherwise: a guard rail is not what attacks are to be stopped by.
    """
    engine, image_id = await asyncio.to_thread(engine_and_image)
    with short_directory() as directory:
        settings = Settings(
            policy=policy,
            runtime=under_test().setting,
            docker_host=engine.endpoint,
            runtime_directory=directory / "r",
            sandbox=sandbox or limits_under_test(),
            cell=cell,
            query=queries or QueryLimits(),
            broker=broker,
            pool=pool or PoolLimits(),
        )
        if weakening is None:
            async with open_docker_sandboxes(settings) as provider:
                yield provider
        else:
            async with _open_weakened(settings, image_id, weakening) as provider:
                yield provider
        assert list((directory / "r" / "sockets").iterdir()) == []


@asynccontextmanager
async def open_sandbox(
    *,
    limits: SandboxLimits | None = None,
    weakening: Weakening | None = None,
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS,
) -> AsyncIterator[Sandbox]:
    """Yields one sandbox, whose queries are answered with an echo."""
    async with (
        open_provider(sandbox=limits, weakening=weakening, broker=broker) as provider,
        provider.open(EchoQueries()) as sandbox,
    ):
        yield sandbox


async def told_in_another(
    source: str,
    *,
    limits: SandboxLimits | None = None,
    weakening: Weakening | None = None,
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS,
) -> Any:  # noqa: ANN401 - JSON
    """Returns what a probe tells in a sandbox of its own: a control's, with one wall down."""
    async with open_sandbox(limits=limits, weakening=weakening, broker=broker) as sandbox:
        return await probe(sandbox, source)


@asynccontextmanager
async def _open_weakened(
    settings: Settings, image_id: str, weakening: Weakening
) -> AsyncIterator[SandboxProvider]:
    assert settings.docker_host is not None
    async with AsyncExitStack() as stack:
        make_broker = await stack.enter_async_context(open_brokers(settings))
        lease = stack.enter_context(hold_lease(settings.runtime_directory))
        async with open_docker_backend(
            endpoint=settings.docker_host,
            image_id=image_id,
            limits=settings.sandbox,
            runtime=settings.runtime,
            lease=lease,
        ) as backend:
            client = await asyncio.to_thread(connect, settings.docker_host)
            weakened = WeakenedBackend(
                backend=backend, client=client, lease=lease, weakening=weakening
            )
            stack.callback(weakened.close)
            broker = make_broker(lease.socket_root)
            yield SandboxLauncher(backend=weakened, broker=broker, limits=settings.sandbox)
