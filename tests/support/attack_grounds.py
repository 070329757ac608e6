"""Grounds for the battery: sandboxes of the real engine, whole or with one wall taken down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

from support.broker_host import short_directory
from support.docker_sandboxes import (
    CELL_LIMITS,
    LIMITS,
    WeakenedBackend,
    Weakening,
    engine_and_image,
    open_provider,
)

from orchestrator.attacks.attack import Attack, Position
from orchestrator.attacks.battery import BATTERY
from orchestrator.attacks.hostile_worker import HOSTILE_COMMAND, HostileWorkers
from orchestrator.attacks.runner import Runner
from orchestrator.attacks.scene import open_scene
from orchestrator.attacks.settling import AttackResult
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.docker_backend import DockerBackend, open_docker_backend
from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_calls import Engine
from orchestrator.sandbox.lease import hold_lease

#: Nothing is taken down.
WHOLE = Weakening(change=lambda _config: None)


def attacks_of(*attack_ids: str, position: Position) -> tuple[Attack, ...]:
    """Returns attacks by their ids, to be tried from one position alone."""
    by_id = {attack.attack_id: attack for attack in BATTERY}
    return tuple(replace(by_id[name], positions=(position,)) for name in attack_ids)


@asynccontextmanager
async def open_grounds(
    weakening: Weakening = WHOLE, *, limits: SandboxLimits = LIMITS
) -> AsyncIterator[Runner]:
    """Yields a runner of attacks on sandboxes with one wall down, in either position."""
    async with (
        open_scene(limits) as scene,
        open_provider(sandbox=limits, cell=CELL_LIMITS, weakening=weakening) as provider,
        _open_workers(weakening, limits) as workers,
    ):
        yield Runner(
            provider=provider,
            open_hostile_worker=workers.open,
            scene=scene,
            sink=lambda _result: None,
        )


@asynccontextmanager
async def _open_workers(
    weakening: Weakening, limits: SandboxLimits
) -> AsyncIterator[HostileWorkers]:
    engine, image_id = await asyncio.to_thread(engine_and_image)
    with short_directory() as directory, ExitStack() as stack:
        lease = stack.enter_context(hold_lease(directory / "r"))
        async with open_docker_backend(
            endpoint=engine.endpoint,
            image_id=image_id,
            limits=limits,
            runtime="runc",
            lease=lease,
        ) as backend:
            client = await asyncio.to_thread(connect, engine.endpoint)
            hostile = DockerBackend(
                engine=Engine(client),
                spec=replace(backend.spec, command=HOSTILE_COMMAND),
                lease=lease,
            )
            weakened = WeakenedBackend(
                backend=hostile, client=client, lease=lease, weakening=weakening
            )
            stack.callback(weakened.close)
            yield HostileWorkers(
                backend=weakened, socket_root=lease.socket_root, start_s=limits.start_s
            )


async def results_of(
    attacks: Sequence[Attack], *, weakening: Weakening = WHOLE, limits: SandboxLimits = LIMITS
) -> dict[str, AttackResult]:
    """Returns what came of attacks with one wall down, by id; each has one position."""
    async with open_grounds(weakening, limits=limits) as runner:
        results = await runner.run(attacks)
    return {result.attack.attack_id: result for result in results}
