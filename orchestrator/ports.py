"""Where the parts of the orchestrator meet.

Without it engine, models, sandbox and broker would import one another, and none could be replaced
or tested alone. Each protocol's docstring is its contract; one suite in `tests/contract/` holds
every implementation to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from orchestrator.chat import ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.controls import BrokerStatement, ContainerStatement, Controls
from orchestrator.domain import (
    CellResult,
    EncodedContext,
    OutputStream,
    QueryAnswer,
    QueryRequest,
    RunOffer,
    SandboxId,
    Walls,
)
from orchestrator.events import RunEvent

#: Called with each piece of output as it arrives. Must not block. The bytes are untrusted.
OutputSink = Callable[[OutputStream, bytes], None]
#: Called with each event of a run, in order. Must not block and must not raise.
EventSink = Callable[[RunEvent], None]
#: `Endpoint.listening` of the endpoint that a container's worker will dial.
UntilListening = Callable[[], Awaitable[object]]


class ModelClient(Protocol):
    """One model that answers chats. Safe for concurrent calls."""

    @property
    def name(self) -> str:
        """The model's name, as usage and prices are reported under."""
        ...

    @property
    def is_scripted(self) -> bool:
        """Whether no model is asked: replies come from a script or an echo."""
        ...

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model before it is asked; the same for all its life."""
        ...

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Asks the model once. Whether to ask again is for whoever pays to decide.

        Cancelling the call cancels the provider's request.

        Args:
            request: What is asked.
            on_text: Given each piece of the reply as it comes, its reasoning left out, by a model
                that can; once it returns False the request is ended, and what has come is the
                reply, marked as cut. A model that cannot gives it the whole reply at its end.

        Raises:
            ModelUnavailableError: Transient; asking again may help.
            ModelRefusedError: Final: key, model name or request refused. Nothing is billed.
        """
        ...

    async def aclose(self) -> None:
        """Frees connections. Idempotent."""
        ...


class QueryHandler(Protocol):
    """Answers what a sandbox asks for; the engine's end of the broker."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers each prompt or says why not, in order; as many answers as prompts.

        Never raises for a prompt that failed. Cancelling the call cancels every open request and
        settles what was reserved.
        """
        ...


class Sandbox(Protocol):
    """One running container, owned by exactly one session."""

    @property
    def sandbox_id(self) -> SandboxId:
        """Names it in logs, labels and events."""
        ...

    @property
    def image_id(self) -> str:
        """The image by digest."""
        ...

    @property
    def runtime(self) -> str:
        """The engine's runtime it runs under: `runc`, `runsc`."""
        ...

    @property
    def controls(self) -> Controls:
        """Every control in force for it, as read back and as found; the same for all its life."""
        ...

    async def begin_run(self, offer: RunOffer) -> None:
        """Begins a run: `answer` is empty again, and cells find what `offer` says.

        To be called before the first context and the first cell, and again for each further run
        of a session. Variables stay.

        Raises:
            SandboxLostError: The container died and has been destroyed.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        ...

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """Sends a context and binds it to `name` in the REPL process before the next cell.

        Args:
            name: An identifier; reserved from then on.
            context: What to bind.
            aliases: Further names for the same value.

        Raises:
            SandboxLostError: The container died on it and has been destroyed.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        ...

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """Runs `source` in the sandbox's REPL process and waits for it to end.

        Names bound by one cell are visible to the next. Calls must not overlap. Cancelling the call
        stops the cell and waits for its end.

        Args:
            source: Python source; at most `CellLimits.source_bytes` once UTF-8 encoded.
            timeout_s: Wall-clock seconds the cell may run, not counting time in which one of its
                queries is open.
            on_output: Called with each piece of output as it arrives.

        Returns:
            How the cell ended. A cell that raised is a result, not an error. A source that is too
            large or not encodable is `REJECTED` without being sent.

        Raises:
            SandboxLostError: The container died. It has already been destroyed; nothing it printed
                is to be trusted.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        ...

    def stop_cell(self) -> None:
        """Stops the cell that runs, if one does; its `run_cell` then returns what came of it.

        It is interrupted, and killed after its grace: what it has bound, its draft among that, is
        kept if the interrupt ends it. Its open queries are cancelled.
        """
        ...


class SandboxProvider(Protocol):
    """Hands out sandboxes, fresh, each to one session, and destroys them after."""

    def open(self, queries: QueryHandler) -> AbstractAsyncContextManager[Sandbox]:
        """Starts a sandbox whose queries `queries` answers; leaving the context destroys it.

        Raises (on entering):
            SandboxStartError: No engine, no image, or a wall not as promised.
        """
        ...


class Container(Protocol):
    """One started container, as its backend sees it."""

    @property
    def container_id(self) -> str:
        """The engine's own id."""
        ...

    @property
    def runtime(self) -> str:
        """The runtime the engine really used."""
        ...

    @property
    def statement(self) -> ContainerStatement:
        """What it is, read back from the engine before it was started."""
        ...

    async def wait_for_exit(self) -> None:
        """Returns when the container has stopped, for whatever reason."""
        ...

    async def obituary(self) -> str:
        """Says why it stopped, for the operator: exit code, memory kill, last log lines."""
        ...

    async def destroy(self) -> None:
        """Kills and removes it. Idempotent; runs to its end under cancellation."""
        ...


class ContainerBackend(Protocol):
    """Starts containers hardened as `orchestrator.sandbox.spec` defines it."""

    @property
    def image_id(self) -> str:
        """The image by digest that every container of this backend runs."""
        ...

    @property
    def promised_walls(self) -> Walls:
        """What a worker must find around itself, for the runtime in use."""
        ...

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> Container:
        """Starts one container with `socket_directory` mounted read-only at `/run/rlm`.

        Args:
            sandbox_id: Whose it is.
            socket_directory: What its worker finds; absolute, and there already.
            listening: Awaited before anything in the container runs; what it takes until then is
                done meanwhile. What it raises is raised, and nothing is left behind.

        Raises:
            SandboxStartError: The engine refused, or set something other than what was asked for.
        """
        ...

    async def sweep(self) -> int:
        """Destroys containers whose orchestrator is gone or whose lifetime is over.

        Returns:
            How many were destroyed.
        """
        ...


class Attachment(Protocol):
    """The broker's end of one attached sandbox: what `Sandbox` does, without the container."""

    @property
    def walls(self) -> Walls:
        """What the worker said it found around itself, in the hello that was accepted."""
        ...

    async def begin_run(self, offer: RunOffer) -> None:
        """See `Sandbox.begin_run`."""
        ...

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """See `Sandbox.bind_context`."""
        ...

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """See `Sandbox.run_cell`."""
        ...

    def stop_cell(self) -> None:
        """See `Sandbox.stop_cell`."""
        ...

    async def wait_for_end(self) -> None:
        """Returns when the stream has ended, for whatever reason."""
        ...


class Endpoint(Protocol):
    """One listening socket for exactly one sandbox."""

    @property
    def socket_directory(self) -> Path:
        """The directory to mount: in it one socket, and what the worker takes, nothing else, ever.

        That is a token, and contexts while they are handed over.

        It is there at once, and they are in it when `listening` returns.
        """
        ...

    async def listening(self) -> None:
        """Waits until a worker can dial.

        Raises:
            SandboxStartError: The socket could not be made, or whoever is to serve it could not be
                started, or not be shut in.
        """
        ...

    async def attached(self, *, timeout_s: float) -> Attachment:
        """Waits until the worker has dialled, shown the token and said a hello that keeps its word.

        Raises:
            SandboxStartError: It did not in time, or a wall it found is not as promised.
            ProtocolViolationError: It broke the contract while saying hello.
        """
        ...


class Broker(Protocol):
    """Opens endpoints."""

    @property
    def statement(self) -> BrokerStatement:
        """What it enforces for every sandbox, and where it parses what they send."""
        ...

    def open(
        self, *, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AbstractAsyncContextManager[Endpoint]:
        """Listens for one sandbox; leaving the context closes the stream and removes the socket.

        A worker that finds other walls than `promised_walls` is refused before any cell.
        """
        ...
