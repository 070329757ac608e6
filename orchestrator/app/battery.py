"""Runs the hostile battery against sandboxes of this host, as the settings make them.

Without it the attacks would be a test suite: something that is known of a machine nobody uses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from orchestrator.app.host import find_host_engine
from orchestrator.app.parts import open_docker_sandboxes
from orchestrator.attacks.attack import Attack
from orchestrator.attacks.hostile_worker import HOSTILE_COMMAND, HostileWorkers
from orchestrator.attacks.report import Report
from orchestrator.attacks.runner import ResultSink, Runner
from orchestrator.attacks.scene import open_scene
from orchestrator.attacks.settling import AttackResult
from orchestrator.domain import LanguagePolicy
from orchestrator.errors import SandboxError, SandboxStartError
from orchestrator.sandbox.docker_backend import DockerBackend, open_docker_backend
from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_calls import CALL_TIMEOUT_S, Engine
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.lease import hold_lease
from orchestrator.settings import Settings


@asynccontextmanager
async def open_runner(settings: Settings, *, sink: ResultSink) -> AsyncIterator[Runner]:
    """Yields a runner of attacks on this host's sandboxes; leaving the context destroys them all.

    The sandboxes are the settings' own but for the language policy, which is open; none waits in a
    pool meanwhile.

    Raises:
        SandboxStartError: There is no engine that can be used, or no image.
        SettingsError: The runtime, its directory or the engine's address is not usable.
    """
    open_settings = settings.for_one_call.model_copy(update={"policy": LanguagePolicy.OPEN})
    async with (
        open_scene(settings.sandbox) as scene,
        open_docker_sandboxes(open_settings) as provider,
        _open_hostile_workers(settings) as workers,
    ):
        yield Runner(provider=provider, open_hostile_worker=workers.open, scene=scene, sink=sink)


@asynccontextmanager
async def _open_hostile_workers(settings: Settings) -> AsyncIterator[HostileWorkers]:
    engine_info = await asyncio.to_thread(find_host_engine, settings)
    image = await asyncio.to_thread(find_image, engine_info)
    with hold_lease(settings.runtime_directory) as lease:
        async with open_docker_backend(
            endpoint=engine_info.endpoint,
            image_id=image.image_id,
            limits=settings.sandbox,
            runtime=settings.runtime,
            lease=lease,
        ) as backend:
            client = await asyncio.to_thread(
                connect, engine_info.endpoint, timeout_s=CALL_TIMEOUT_S
            )
            engine = Engine(client)
            hostile = DockerBackend(
                engine=engine, spec=replace(backend.spec, command=HOSTILE_COMMAND), lease=lease
            )
            try:
                yield HostileWorkers(
                    backend=hostile,
                    socket_root=lease.socket_root,
                    start_s=settings.sandbox.start_s,
                )
            finally:
                await hostile.aclose()
                engine.close()


async def attack_host(settings: Settings, attacks: Sequence[Attack], *, sink: ResultSink) -> Report:
    """Runs attacks on this host's sandboxes and returns the report; see `open_runner`.

    What goes wrong once a sandbox was there is part of the report.

    Raises:
        SandboxStartError: No sandbox could be had at all.
        SettingsError: The runtime, its directory or the engine's address is not usable.
    """
    results: list[AttackResult] = []
    started_s, problem = time.monotonic(), ""

    def keep(result: AttackResult) -> None:
        results.append(result)
        sink(result)

    async with open_runner(settings, sink=keep) as runner:
        try:
            results = list(await runner.run(attacks))
        except (SandboxError, OSError) as error:
            if not results:
                raise SandboxStartError(f"the battery could not begin: {error}") from error
            problem = f"the battery ended early: {error}"
        return Report(
            results=tuple(results),
            grounds=runner.grounds,
            problem=problem,
            took_s=time.monotonic() - started_s,
        )
