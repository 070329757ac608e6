"""A sandbox's two halves in a test's hand: a container without engine, a broker without gRPC.

Both keep one diary, so that a test can tell in which order things were opened and destroyed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from support.specs import SPEC
from support.statements import BROKER, CONTAINER

from orchestrator.controls import BrokerStatement, ContainerStatement
from orchestrator.domain import (
    CellId,
    CellResult,
    EncodedContext,
    Outcome,
    RunOffer,
    SandboxId,
    VariableState,
    Walls,
)
from orchestrator.errors import SandboxError
from orchestrator.ports import OutputSink, QueryHandler, UntilListening
from orchestrator.sandbox.spec import promised_walls


class FakeContainer:
    """A container that stops when the test says so."""

    def __init__(self, diary: list[str]) -> None:
        """Begins running."""
        self._diary = diary
        self._stopped = asyncio.Event()
        self._engine_error: SandboxError | None = None
        self.last_words = "The container stopped with exit code 0."
        self.is_destroyed = False

    @property
    def container_id(self) -> str:
        """See `Container.container_id`."""
        return "c0ffee"

    @property
    def runtime(self) -> str:
        """See `Container.runtime`."""
        return "runc"

    @property
    def statement(self) -> ContainerStatement:
        """See `Container.statement`."""
        return CONTAINER

    def stop(self, last_words: str) -> None:
        """Ends it, leaving `last_words` to its obituary."""
        self.last_words = last_words
        self._stopped.set()

    def lose_engine(self, error: SandboxError) -> None:
        """Has whoever waits for the end get `error` instead."""
        self._engine_error = error
        self._stopped.set()

    async def wait_for_exit(self) -> None:
        """See `Container.wait_for_exit`."""
        await self._stopped.wait()
        if self._engine_error is not None:
            raise self._engine_error

    async def obituary(self) -> str:
        """See `Container.obituary`."""
        return self.last_words

    async def destroy(self) -> None:
        """See `Container.destroy`."""
        if not self.is_destroyed:
            self._diary.append("container destroyed")
        self.is_destroyed = True
        self._stopped.set()


class FakeBackend:
    """Starts fake containers; `start_gate` holds the start up until the test opens it."""

    def __init__(self, diary: list[str]) -> None:
        """Begins without containers, with the gate open."""
        self._diary = diary
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.is_starting = asyncio.Event()
        self.start_error: SandboxError | None = None
        self.containers: list[FakeContainer] = []
        self.mounted: list[Path] = []

    @property
    def image_id(self) -> str:
        """See `ContainerBackend.image_id`."""
        return "sha256:0123"

    @property
    def promised_walls(self) -> Walls:
        """See `ContainerBackend.promised_walls`."""
        return promised_walls(SPEC)

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> FakeContainer:
        """See `ContainerBackend.start`."""
        assert sandbox_id
        self.is_starting.set()
        await self.start_gate.wait()
        if listening is not None:
            await listening()
        if self.start_error is not None:
            raise self.start_error
        self._diary.append("container started")
        self.mounted.append(socket_directory)
        container = FakeContainer(self._diary)
        self.containers.append(container)
        return container

    async def sweep(self) -> int:
        """See `ContainerBackend.sweep`."""
        return 0


CellBody = Callable[[str], Awaitable[CellResult]]


async def succeed(_source: str) -> CellResult:
    """Ends a cell well, at once."""
    return CellResult(cell_id=CellId(1), outcome=Outcome.SUCCEEDED, state=VariableState.KEPT)


async def never_end(_source: str) -> CellResult:
    """Runs until it is cancelled."""
    await asyncio.Event().wait()
    raise AssertionError


class FakeAttachment:
    """An attachment whose cells are coroutine functions of the test."""

    def __init__(self) -> None:
        """Begins with cells that succeed."""
        self.body: CellBody = succeed
        self.stop_count = 0
        self.is_running = asyncio.Event()
        self.was_cancelled = False
        self.bound: dict[str, EncodedContext] = {}
        self.offers: list[RunOffer] = []
        self.has_ended = asyncio.Event()

    @property
    def walls(self) -> Walls:
        """See `Attachment.walls`."""
        return promised_walls(SPEC)

    async def begin_run(self, offer: RunOffer) -> None:
        """See `Attachment.begin_run`."""
        self.offers.append(offer)

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """See `Attachment.bind_context`."""
        for bound in (name, *aliases):
            self.bound[bound] = context

    def stop_cell(self) -> None:
        """See `Attachment.stop_cell`."""
        self.stop_count += 1

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """See `Attachment.run_cell`."""
        assert timeout_s > 0
        del on_output
        self.is_running.set()
        try:
            return await self.body(source)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def wait_for_end(self) -> None:
        """See `Attachment.wait_for_end`."""
        await self.has_ended.wait()


class FakeEndpoint:
    """An endpoint that attaches when the test says so."""

    def __init__(self, directory: Path) -> None:
        """Begins unattached."""
        self._directory = directory
        self.attachment = FakeAttachment()
        self.is_waiting = asyncio.Event()
        self.may_attach = asyncio.Event()
        self.attach_error: SandboxError | None = None
        self.listening_error: SandboxError | None = None

    @property
    def socket_directory(self) -> Path:
        """See `Endpoint.socket_directory`."""
        return self._directory

    async def listening(self) -> None:
        """See `Endpoint.listening`."""
        if self.listening_error is not None:
            raise self.listening_error

    async def attached(self, *, timeout_s: float) -> FakeAttachment:
        """See `Endpoint.attached`."""
        assert timeout_s > 0
        self.is_waiting.set()
        await self.may_attach.wait()
        if self.attach_error is not None:
            raise self.attach_error
        return self.attachment


class FakeBroker:
    """Opens one endpoint, which the test holds from the beginning."""

    def __init__(self, diary: list[str], directory: Path) -> None:
        """Makes the endpoint, unattached."""
        self._diary = diary
        self.endpoint = FakeEndpoint(directory)
        self.promised: list[Walls] = []

    @property
    def statement(self) -> BrokerStatement:
        """See `Broker.statement`."""
        return BROKER

    @asynccontextmanager
    async def open(
        self, *, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AsyncIterator[FakeEndpoint]:
        """See `Broker.open`."""
        assert sandbox_id
        del queries
        self.promised.append(promised_walls)
        self._diary.append("endpoint opened")
        try:
            yield self.endpoint
        finally:
            self._diary.append("endpoint closed")
