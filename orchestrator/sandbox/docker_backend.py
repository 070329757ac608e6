"""Starts, watches and destroys containers: the description of `spec` made real on an engine.

Without it the walls would be a document. What the engine says it has set is read back before
anything runs behind it, and nothing here waits for the engine without a bound.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from orchestrator.controls import ContainerStatement
from orchestrator.domain import SandboxId, Walls
from orchestrator.errors import SandboxError, SandboxLostError, SandboxStartError
from orchestrator.limits import SandboxLimits
from orchestrator.ports import UntilListening
from orchestrator.run_to_end import run_to_end
from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_calls import CALL_TIMEOUT_S, Engine, MadeContainer
from orchestrator.sandbox.exit_watch import ExitWatch
from orchestrator.sandbox.lease import Lease
from orchestrator.sandbox.obituary import write_obituary
from orchestrator.sandbox.readback import find_missing_seccomp
from orchestrator.sandbox.reaper import OWNER_LABEL, lease_labels, plan_sweep
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.sandbox.seccomp import read_profile
from orchestrator.sandbox.spec import SandboxSpec, container_config, promised_walls
from orchestrator.sandbox.statement import read_container

_log = logging.getLogger(__name__)


class DockerContainer:
    """One started container. Made by `DockerBackend.start`."""

    def __init__(
        self,
        *,
        engine: Engine,
        spec: SandboxSpec,
        container_id: str,
        statement: ContainerStatement,
        watch: ExitWatch,
    ) -> None:
        """Takes over a running container; `watch` was told of it before it started."""
        self._engine = engine
        self._spec = spec
        self._container_id = container_id
        self._statement = statement
        self._watch = watch
        self._destruction: asyncio.Task[None] | None = None

    @property
    def container_id(self) -> str:
        """The engine's own id."""
        return self._container_id

    @property
    def runtime(self) -> str:
        """The runtime it runs under; the engine confirmed it before the start."""
        return self._spec.runtime.name

    @property
    def statement(self) -> ContainerStatement:
        """What it is, read back from the engine before it was started."""
        return self._statement

    async def wait_for_exit(self) -> None:
        """Returns when the container has stopped, for whatever reason.

        Raises:
            SandboxLostError: The engine went away first.
        """
        await self._watch.wait(self._container_id)

    async def obituary(self) -> str:
        """Says why it stopped, for the operator. Never fails; bounded by two engine calls."""
        try:
            state, log = await self._engine.call(self._engine.read_end, self._container_id)
        except SandboxError as error:
            return f"Nothing is known of the container's end: {error}"
        return write_obituary(state, log, memory_bytes=self._spec.limits.memory_bytes)

    async def destroy(self) -> None:
        """Kills and removes it. Idempotent; runs to its end under cancellation.

        Where the engine does not answer this logs a warning and returns: what the sandbox was for
        is not undone by it, and the sweep of whoever meets that engine next removes the container.
        """
        if self._destruction is None:
            self._destruction = asyncio.create_task(self._destroy())
        await run_to_end(self._destruction)

    async def _destroy(self) -> None:
        try:
            await self._engine.call(self._engine.remove, self._container_id)
        except SandboxError as error:
            # str(): whoever keeps the record would keep the error's frames and their sockets.
            _log.warning(
                "container %s is left to the sweep: %s", self._container_id[:12], str(error)
            )
        finally:
            self._watch.forget(self._container_id)


class DockerBackend:
    """Starts containers on one Docker engine. Made by `open_docker_backend`."""

    def __init__(
        self, *, engine: Engine, spec: SandboxSpec, lease: Lease, longest_wait_s: float = 0.0
    ) -> None:
        """Takes over an engine; `lease` is held for as long as this lives."""
        self._engine = engine
        self._spec = spec
        self._longest_wait_s = longest_wait_s
        self._lease = lease
        self._own_label = f"{OWNER_LABEL}={lease.owner}"
        self._watch: ExitWatch | None = None
        self._watch_lock = asyncio.Lock()

    @property
    def spec(self) -> SandboxSpec:
        """What every container of this backend is."""
        return self._spec

    @property
    def image_id(self) -> str:
        """The image by digest that every container of this backend runs."""
        return self._spec.image_id

    @property
    def promised_walls(self) -> Walls:
        """What a worker must find around itself, for the runtime in use."""
        return promised_walls(self._spec)

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> DockerContainer:
        """See `ContainerBackend.start`. Until `listening` returns the container is made.

        Cancelled, it ends once what it had begun is removed again.

        Raises:
            SandboxStartError: The engine refused, did not answer within `CALL_TIMEOUT_S`, or set
                something other than what was asked for; or `listening` raised it.
        """
        watch = await self._open_watch()
        # Asked before anything is started, so that a failure leaves nothing behind.
        engine = await self._engine.call(self._engine.describe)
        # A label cannot be changed once a session has the sandbox and its lifetime begins.
        expires_s = time.time() + self._longest_wait_s + self._spec.limits.lifetime_s
        config = container_config(
            self._spec,
            sandbox_id=sandbox_id,
            socket_directory=socket_directory,
            labels=lease_labels(self._lease, expires_s=expires_s),
        )
        dialable = asyncio.create_task(_waited_for(listening))
        starting = asyncio.create_task(
            self._start(config, f"rlm-sandbox-{sandbox_id}", watch, dialable)
        )
        try:
            made = await asyncio.shield(starting)
        except asyncio.CancelledError:
            dialable.cancel()
            await run_to_end(self._discard(starting, watch))
            raise
        return DockerContainer(
            engine=self._engine,
            spec=self._spec,
            container_id=made.container_id,
            statement=read_container(made.record, engine=engine, runtime=self._spec.runtime),
            watch=watch,
        )

    async def _start(
        self,
        config: dict[str, Any],
        name: str,
        watch: ExitWatch,
        dialable: asyncio.Task[None],
    ) -> MadeContainer:
        made, dialled = await asyncio.gather(
            self._engine.call(self._engine.make, config, name), dialable, return_exceptions=True
        )
        if isinstance(made, BaseException):
            raise made
        if isinstance(dialled, BaseException):
            with suppress(SandboxError):
                await self._engine.call(self._engine.remove, made.container_id)
            raise dialled
        await self._engine.call(self._engine.start, made, watch)
        return made

    async def _discard(self, starting: asyncio.Task[MadeContainer], watch: ExitWatch) -> None:
        # The engine cannot be told to forget a request: it is waited for, then undone.
        await asyncio.wait({starting})
        if starting.cancelled() or starting.exception() is not None:
            return  # then there is none
        container_id = starting.result().container_id
        with suppress(SandboxError):
            await self._engine.call(self._engine.remove, container_id)
        watch.forget(container_id)

    async def _open_watch(self) -> ExitWatch:
        """Returns the watch, a new one where the engine went away and may be back."""
        async with self._watch_lock:
            if self._watch is None or self._watch.is_over:
                watch = ExitWatch(partial(self._engine.open_exits, self._own_label))
                await watch.opened(timeout_s=CALL_TIMEOUT_S)
                self._watch = watch
            return self._watch

    async def sweep(self) -> int:
        """Destroys containers whose orchestrator is gone or whose lifetime is over.

        Also removes what dead orchestrators left in the runtime directory.

        Returns:
            How many were destroyed.

        Raises:
            SandboxStartError: The engine did not answer.
        """
        return await self._engine.call(self._sweep)

    def _sweep(self) -> int:
        runtime_directory = self._lease.runtime_directory
        doomed = plan_sweep(
            self._engine.list_labelled(OWNER_LABEL),
            realm=runtime_directory.realm,
            is_alive=cache(runtime_directory.is_alive),
            now_s=time.time(),
        )
        destroyed_count = self._remove_all(doomed)
        for owner in runtime_directory.known_owners():
            runtime_directory.forget(owner)
        return destroyed_count

    def _remove_all(self, container_ids: tuple[str, ...]) -> int:
        """Destroys what can be destroyed; one stubborn container does not save the others."""
        destroyed_count = 0
        for container_id in container_ids:
            try:
                self._engine.remove(container_id)
            except SandboxLostError as error:
                _log.warning(
                    "container %s is left to the next sweep: %s", container_id[:12], str(error)
                )
            else:
                destroyed_count += 1
        return destroyed_count

    async def aclose(self) -> None:
        """Destroys whatever this backend started and nobody destroyed. Idempotent."""
        await run_to_end(self._close())

    async def _close(self) -> None:
        try:
            await self._engine.call(self._remove_own)
        except SandboxError as error:
            _log.warning("sandboxes may be left to the next sweep: %s", str(error))
        if self._watch is not None:
            self._watch.close()

    def _remove_own(self) -> None:
        own = self._engine.list_labelled(self._own_label)
        self._remove_all(tuple(container.container_id for container in own))


async def _waited_for(listening: UntilListening | None) -> None:
    if listening is not None:
        await listening()


@asynccontextmanager
async def open_docker_backend(  # noqa: PLR0913 # all by keyword; a type to group them would have no other use
    *,
    endpoint: str,
    image_id: str,
    limits: SandboxLimits,
    runtime: str | None,
    lease: Lease,
    longest_wait_s: float = 0.0,
) -> AsyncIterator[DockerBackend]:
    """Connects to an engine and yields a backend; leaving the context destroys what it started.

    Args:
        endpoint: Where the engine listens, as `EngineInfo.endpoint` has it.
        image_id: The image by digest.
        limits: What one container may use.
        runtime: See `choose_runtime`.
        lease: This orchestrator's claim; held for longer than this context.
        longest_wait_s: How long a container may wait before its lifetime begins: sweeps, which see
            its start alone, leave it alone for as much longer.

    Raises:
        SandboxStartError: The engine did not answer, lacks seccomp or the runtime asked for.
        SettingsError: The engine has no runtime of that name, or there is no seccomp profile to
            give it.
    """
    profile = read_profile()
    client = await asyncio.to_thread(connect, endpoint, timeout_s=CALL_TIMEOUT_S)
    engine = Engine(client)
    try:
        info = await engine.call(engine.info)
        gap = find_missing_seccomp(info)
        if gap is not None:
            message = f"No sandbox can be sealed on this engine: {gap}."
            raise SandboxStartError(message)
        spec = SandboxSpec(
            image_id=image_id,
            limits=limits,
            runtime=choose_runtime(runtime, info),
            cgroup_version=2 if str(info.get("CgroupVersion")) == "2" else 1,
            seccomp_profile=profile.text,
        )
        backend = DockerBackend(
            engine=engine, spec=spec, lease=lease, longest_wait_s=longest_wait_s
        )
        try:
            yield backend
        finally:
            await backend.aclose()
    finally:
        engine.close()
