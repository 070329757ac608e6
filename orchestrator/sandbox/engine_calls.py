"""What this project asks of a Docker engine about containers, with a bound on every wait.

Without it the SDK's blocking calls would stand in the event loop, an engine that hangs would hang
every run, and its three families of errors would reach code that knows none of them.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import docker.errors
from docker.types import CancellableStream

from orchestrator.controls import EngineStatement
from orchestrator.errors import SandboxError, SandboxLostError, SandboxStartError
from orchestrator.sandbox.docker_client import DockerClient, engine_errors
from orchestrator.sandbox.exit_watch import EventStream, ExitWatch
from orchestrator.sandbox.obituary import LOG_LINES
from orchestrator.sandbox.readback import find_differences
from orchestrator.sandbox.reaper import LabelledContainer
from orchestrator.sandbox.runtimes import explain_vanished
from orchestrator.sandbox.statement import read_engine

#: Longest wait for one answer of the engine. Creating takes 0.05 s and starting 0.3 s on two busy
#: cores; an engine that needs fifty times as long is not coming back.
CALL_TIMEOUT_S: Final = 20.0
_THREADS = 8  # calls at a time; the engine works most of what they ask for off one by one

_CONFLICT = 409  # what the engine answers when a container is being removed already

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeContainer:
    """One container, and what the engine said it was before anything ran in it."""

    container_id: str
    record: dict[str, Any]


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
        self._statement: EngineStatement | None = None

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

    def describe(self) -> EngineStatement:
        """Returns what the engine says of itself for a statement of controls; asks it once."""
        if self._statement is None:
            with engine_errors("asking the engine what it is"):
                self._statement = read_engine(self._client.info(), self._client.version())
        return self._statement

    def make(self, config: dict[str, Any], name: str) -> MadeContainer:
        """Creates a container, checks what it became, and returns it; nothing runs in it yet.

        Whatever fails, nothing is left behind.

        Raises:
            SandboxStartError: The engine refused, or set something other than what was asked for.
        """
        try:
            return self._make(config, name)
        except SandboxStartError as error:
            # By name: a request that was not answered in time may have been carried out.
            self._give_up(name, str(config["HostConfig"]["Runtime"]), error)

    def start(self, made: MadeContainer, watch: ExitWatch) -> None:
        """Starts what `make` has made. If that fails, it is removed.

        Raises:
            SandboxStartError: The engine refused.
        """
        watch.expect(made.container_id)
        try:
            with engine_errors("starting a sandbox"):
                self._client.api.start(made.container_id)
        except SandboxStartError as error:
            watch.forget(made.container_id)
            self._give_up(made.container_id, str(made.record["HostConfig"]["Runtime"]), error)

    def _give_up(self, container: str, runtime: str, error: SandboxStartError) -> NoReturn:
        """Removes what may have been made, and says why it is not there."""
        with suppress(SandboxError):
            self.remove(container)
        raise SandboxStartError(self._explain(runtime, error)) from error

    def _explain(self, runtime: str, error: SandboxStartError) -> str:
        """Returns why a sandbox was not started; the engine's own words name no remedy."""
        # One that did not answer is not asked again: that would double the wait.
        if isinstance(error.__cause__, docker.errors.APIError):
            with suppress(SandboxStartError):
                return explain_vanished(runtime, self.info()) or str(error)
        return str(error)

    def _make(self, config: dict[str, Any], name: str) -> MadeContainer:
        api = self._client.api
        with engine_errors("creating a sandbox"):
            try:
                created = api.create_container_from_config(config, name)  # type: ignore[no-untyped-call] # its stub has no types
            except docker.errors.ImageNotFound as error:
                message = f"The engine has no image {config['Image']}. Run `rlm image build`."
                raise SandboxStartError(message) from error
            container_id = str(created["Id"])
            record = api.inspect_container(container_id)
            differences = find_differences(config, record)
            if differences:
                raise SandboxStartError(_describe_gaps(differences, created.get("Warnings") or []))
        return MadeContainer(container_id=container_id, record=record)

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


def _describe_gaps(differences: tuple[str, ...], warnings: list[str]) -> str:
    gaps = "\n".join(f"  {difference}" for difference in differences)
    words = "".join(f"\nThe engine says: {warning}" for warning in warnings)
    return (
        "The engine did not build the walls it was asked for, so nothing was started:\n"
        f"{gaps}{words}\n`rlm doctor` says what this host lacks."
    )
