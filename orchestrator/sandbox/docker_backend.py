"""Starts, watches and destroys containers: the description of `spec` made real on an engine.

Without it the walls would be a document. What the engine says it has set is read back before
anything runs behind it, and nothing here waits for the engine without a bound.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import docker.errors
from docker.types import CancellableStream

from orchestrator.domain import SandboxId, SandboxLimits, Walls
from orchestrator.errors import SandboxError, SandboxLostError, SandboxStartError
from orchestrator.sandbox.docker_client import DockerClient, connect, engine_errors
from orchestrator.sandbox.exit_watch import EventStream, ExitWatch
from orchestrator.sandbox.lease import Lease
from orchestrator.sandbox.obituary import LOG_LINES, write_obituary
from orchestrator.sandbox.readback import find_differences, find_missing_seccomp
from orchestrator.sandbox.reaper import OWNER_LABEL, LabelledContainer, lease_labels, plan_sweep
from orchestrator.sandbox.run_to_end import run_to_end
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.sandbox.spec import SandboxSpec, container_config, promised_walls

#: Longest wait for one answer of the engine. Creating takes 0.05 s and starting 0.3 s on two busy
#: cores; an engine that needs fifty times as long is not coming back.
CALL_TIMEOUT_S: Final = 20.0
_THREADS = 8  # calls at a time; the engine works most of what they ask for off one by one

_CONFLICT = 409  # what the engine answers when a container is being removed already

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class _Events:
    """The SDK's stream of events, with its connection given back at the end.

    The SDK's own `close` shuts the connection down and leaves the response that holds it open.
    """

    def __init__(self, stream: "CancellableStream[dict[str, Any]]") -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._stream
        finally:
            # No public name leads to the response.
            self._stream._response.close()  # type: ignore[attr-defined] # noqa: SLF001

    def close(self) -> None:
        self._stream.close()


class Engine:
    """What this project asks of one Docker engine about containers.

    The SDK blocks. `call` runs a blocking method on one of few threads; each method makes a few
    calls to the engine and waits `CALL_TIMEOUT_S` at most for the answer to each.
    """

    def __init__(self, client: DockerClient) -> None:
        """Takes over a connected client."""
        self._client = client
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rlm-docker")

    async def call(
        self, method: Callable[_P, _T], *arguments: _P.args, **keywords: _P.kwargs
    ) -> _T:
        """Runs a blocking method of this class on a thread. Cancelling does not end the method."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(method, *arguments, **keywords))

    def info(self) -> dict[str, Any]:
        """Returns what the engine says of itself."""
        with engine_errors("asking the engine what it is"):
            return self._client.info()

    def start(self, config: dict[str, Any], name: str, watch: ExitWatch) -> str:
        """Creates a container, checks what it became, starts it, and returns its id.

        Whatever fails, nothing is left behind.

        Raises:
            SandboxStartError: The engine refused, or set something other than what was asked for.
        """
        try:
            return self._start(config, name, watch)
        except SandboxStartError:
            # By name: a request that was not answered in time may have been carried out.
            with suppress(SandboxError):
                self.remove(name)
            raise

    def _start(self, config: dict[str, Any], name: str, watch: ExitWatch) -> str:
        api = self._client.api
        with engine_errors("creating a sandbox"):
            try:
                created = api.create_container_from_config(config, name)  # type: ignore[no-untyped-call] # its stub has no types
            except docker.errors.ImageNotFound as error:
                message = f"The engine has no image {config['Image']}. Run `rlm image build`."
                raise SandboxStartError(message) from error
            container_id = str(created["Id"])
            differences = find_differences(config, api.inspect_container(container_id))
            if differences:
                raise SandboxStartError(_describe_gaps(differences, created.get("Warnings") or []))
            watch.expect(container_id)
            api.start(container_id)
        return container_id

    def read_end(self, container_id: str) -> tuple[dict[str, Any], bytes]:
        """Returns a container's state, and the end of what it logged.

        Raises:
            SandboxLostError: The engine does not know it any more, or did not answer.
        """
        with engine_errors("reading a sandbox's end", raises=SandboxLostError):
            state = self._client.api.inspect_container(container_id)["State"]
            return state, self._client.api.logs(container_id, tail=LOG_LINES)

    def remove(self, container: str) -> None:
        """Kills and removes a container, given by id or name; one that is gone is no error.

        Raises:
            SandboxLostError: The engine refused or did not answer.
        """
        with engine_errors("destroying a sandbox", raises=SandboxLostError):
            try:
                self._client.api.remove_container(container, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != _CONFLICT:
                    raise

    def list_labelled(self, label: str) -> list[LabelledContainer]:
        """Returns every container with `label` (`name` or `name=value`), running or not."""
        with engine_errors("listing sandboxes"):
            found = self._client.api.containers(all=True, filters={"label": label})
        return [
            LabelledContainer(container_id=entry["Id"], labels=entry["Labels"]) for entry in found
        ]

    def open_exits(self, label: str) -> EventStream:
        """Opens the stream of ends of containers with `label`. It blocks without a bound."""
        filters = {"type": "container", "event": "die", "label": label}
        return _Events(self._client.api.events(filters=filters, decode=True))

    def close(self) -> None:
        """Gives the connections back; calls that still run end in an error nobody waits for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


class DockerContainer:
    """One started container. Made by `DockerBackend.start`."""

    def __init__(
        self, *, engine: Engine, spec: SandboxSpec, container_id: str, watch: ExitWatch
    ) -> None:
        """Takes over a running container; `watch` was told of it before it started."""
        self._engine = engine
        self._spec = spec
        self._container_id = container_id
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
            _log.warning("container %s is left to the sweep: %s", self._container_id[:12], error)
        finally:
            self._watch.forget(self._container_id)


class DockerBackend:
    """Starts containers on one Docker engine. Made by `open_docker_backend`."""

    def __init__(self, *, engine: Engine, spec: SandboxSpec, lease: Lease) -> None:
        """Takes over an engine; `lease` is held for as long as this lives."""
        self._engine = engine
        self._spec = spec
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
        return promised_walls(self._spec.runtime)

    async def start(self, *, sandbox_id: SandboxId, socket_directory: Path) -> DockerContainer:
        """Starts one container with `socket_directory` mounted read-only at `/run/rlm`.

        Cancelled, it ends once what it had begun is removed again.

        Raises:
            SandboxStartError: The engine refused, did not answer within `CALL_TIMEOUT_S`, or set
                something other than what was asked for.
        """
        watch = await self._open_watch()
        expires_s = time.time() + self._spec.limits.lifetime_s
        config = container_config(
            self._spec,
            sandbox_id=sandbox_id,
            socket_directory=socket_directory,
            labels=lease_labels(self._lease, expires_s=expires_s),
        )
        starting = asyncio.ensure_future(
            self._engine.call(self._engine.start, config, f"rlm-sandbox-{sandbox_id}", watch)
        )
        try:
            container_id = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await run_to_end(self._discard(starting, watch))
            raise
        return DockerContainer(
            engine=self._engine, spec=self._spec, container_id=container_id, watch=watch
        )

    async def _discard(self, starting: asyncio.Future[str], watch: ExitWatch) -> None:
        # The engine cannot be told to forget a request: it is waited for, then undone.
        with suppress(SandboxError):
            container_id = await starting
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
                _log.warning("container %s is left to the next sweep: %s", container_id[:12], error)
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
            _log.warning("sandboxes may be left to the next sweep: %s", error)
        if self._watch is not None:
            self._watch.close()

    def _remove_own(self) -> None:
        own = self._engine.list_labelled(self._own_label)
        self._remove_all(tuple(container.container_id for container in own))


@asynccontextmanager
async def open_docker_backend(
    *,
    endpoint: str,
    image_id: str,
    limits: SandboxLimits,
    runtime: str | None,
    lease: Lease,
) -> AsyncIterator[DockerBackend]:
    """Connects to an engine and yields a backend; leaving the context destroys what it started.

    Args:
        endpoint: Where the engine listens, as `EngineInfo.endpoint` has it.
        image_id: The image by digest.
        limits: What one container may use.
        runtime: See `choose_runtime`.
        lease: This orchestrator's claim; held for longer than this context.

    Raises:
        SandboxStartError: The engine did not answer, lacks seccomp or the runtime asked for.
        SettingsError: The engine has no runtime of that name.
    """
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
            seccomp_profile=None,
        )
        backend = DockerBackend(engine=engine, spec=spec, lease=lease)
        try:
            yield backend
        finally:
            await backend.aclose()
    finally:
        engine.close()


def _describe_gaps(differences: tuple[str, ...], warnings: list[str]) -> str:
    gaps = "\n".join(f"  {difference}" for difference in differences)
    words = "".join(f"\nThe engine says: {warning}" for warning in warnings)
    return (
        "The engine did not build the walls it was asked for, so nothing was started:\n"
        f"{gaps}{words}\n`rlm doctor` says what this host lacks."
    )
