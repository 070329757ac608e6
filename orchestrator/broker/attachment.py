"""The broker's end of one sandbox's stream.

Without it cells, contexts, output and results would have no owner between the gRPC stream and the
session that runs them. Knows the contract, not gRPC: `service` reads and writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any

from orchestrator.broker import wire
from orchestrator.broker.claims import (
    ClaimedHello,
    ClaimedOpening,
    ClaimedOutput,
    ClaimedResult,
    read_worker_message,
)
from orchestrator.broker.context_pieces import ContextHead, cut
from orchestrator.broker.context_place import ContextPlace
from orchestrator.broker.ending import EndKind, StreamEnd
from orchestrator.broker.open_queries import OpenQueries, QueryRefusal
from orchestrator.broker.order import BrokerSide, WorkerSide
from orchestrator.broker.outbox import Outbox, Write
from orchestrator.broker.running_cell import RunningCell
from orchestrator.broker.source import source_problem
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
from orchestrator.errors import SandboxStartError
from orchestrator.limits import CellLimits
from orchestrator.ports import OutputSink
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

#: A worker between cells does nothing but read; one that takes no MiB, or opens no file, in this
#: time is dead.
_CHUNK_S = 30.0
#: For the goodbye on the way out. The container is destroyed next, whether it has heard or not.
_GOODBYE_S = 0.2


class StreamAttachment:
    """One sandbox's stream, from before its worker dials until after it has gone."""

    def __init__(  # noqa: PLR0913 # all by keyword; a type to group them would have no other use
        self,
        *,
        sandbox_id: SandboxId,
        promised_walls: Walls,
        cell_limits: CellLimits,
        told_limits: wire.Limits,
        queries: OpenQueries,
        stop_margin_s: float,
        place: ContextPlace | None = None,
    ) -> None:
        """Begins unattached, in the running event loop.

        Args:
            sandbox_id: For messages and logs.
            promised_walls: What the worker must have found.
            cell_limits: What is enforced here.
            told_limits: What the worker is told.
            queries: Answers what the sandbox asks; owned by this object from here on.
            stop_margin_s: How long a stopped cell's result may take beyond twice the grace.
            place: Where `bind_context` lays large contexts; without it all go in pieces.
        """
        self._place = place
        self._sandbox_id = sandbox_id
        self._promised_walls = promised_walls
        self._cell_limits = cell_limits
        self._told_limits = told_limits
        self._queries = queries
        self._stop_s = 2 * cell_limits.grace_s + stop_margin_s
        self._heard = WorkerSide(output_bytes=cell_limits.output_bytes)
        self._said = BrokerSide()
        self._outbox: Outbox | None = None
        self._last_cell = CellId(0)
        self._cell: RunningCell | None = None
        self._is_busy = False
        self._is_closing = False
        self._walls: Walls | None = None
        self._opened: asyncio.Future[None] | None = None
        loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[StreamEnd] = loop.create_future()

    @property
    def is_attached(self) -> bool:
        """Whether a worker has dialled with the token, ever."""
        return self._outbox is not None

    @property
    def walls(self) -> Walls:
        """See `Attachment.walls`."""
        if self._walls is None:
            raise RuntimeError("the sandbox is not attached yet; await Endpoint.attached() first")
        return self._walls

    def attach(self, write: Write) -> None:
        """Begins the stream; `write` sends one message."""
        self._outbox = Outbox(write)

    async def greeted(self, *, timeout_s: float) -> None:
        """Waits until the worker has said a hello that keeps its word.

        Raises:
            SandboxStartError: It did not in time, went away, or found other walls.
            ProtocolViolationError: It broke the contract while saying hello.
        """
        either: tuple[asyncio.Future[Any], ...] = (self._greeted, self._ended)
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            end = self._ended.result()
            if end.kind is EndKind.LOST:
                raise SandboxStartError(f"the sandbox was lost before its first cell: {end.reason}")
            raise end.error()
        if not self._greeted.done():
            found = "its worker dialled and said nothing" if self.is_attached else "nobody dialled"
            raise SandboxStartError(
                f"the sandbox did not attach within {timeout_s:g} s: {found}; see the container's"
                " log for why, or allow it more time if the machine is slow"
            )

    def receive(self, raw: bytes) -> None:
        """Takes one message of the worker.

        Raises:
            ProtocolViolationError: It breaks a rule; the caller ends the stream.
        """
        if self._ended.done():
            return
        sequence, claim = read_worker_message(raw, answer_bytes=self._cell_limits.answer_bytes)
        if isinstance(claim, ClaimedOutput):
            self._heard.output(
                sequence=sequence,
                cell_id=claim.cell_id,
                stream=claim.stream,
                offset_bytes=claim.offset_bytes,
                size_bytes=len(claim.data),
            )
            if self._cell is not None:
                self._cell.take_output(claim)
        elif isinstance(claim, ClaimedResult):
            self._heard.result(sequence=sequence, cell_id=claim.cell_id)
            self._said.cell_ended()
            self._queries.end_cell()
            if self._cell is not None:
                self._cell.take_result(claim)
        elif isinstance(claim, ClaimedOpening):
            self._heard.context_opened(sequence=sequence)
            if self._opened is not None and not self._opened.done():
                self._opened.set_result(None)
        else:
            self._heard.hello(sequence=sequence)
            self._greet(claim)

    async def answer_query(self, raw: bytes) -> bytes | QueryRefusal:
        """See `OpenQueries.answer`."""
        return await self._queries.answer(raw)

    async def begin_run(self, offer: RunOffer) -> None:
        """See `Sandbox.begin_run`."""
        outbox = self._begin()
        outbox.post(wire.begin_run(sequence=self._said.begin_run(), offer=offer))
        self._is_busy = False

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """See `Sandbox.bind_context`, `bind_file` and `bind_pieces`."""

        async def pieces() -> AsyncIterator[bytes]:
            for piece in cut(context.data):
                yield bytes(piece)

        head = ContextHead.of(context, aliases=aliases)
        async with contextlib.AsyncExitStack() as stack:
            if self._place is not None and await stack.enter_async_context(
                self._place.laid(context.data)
            ):
                await self.bind_file(name, head)
            else:
                await self.bind_pieces(name, head, pieces())

    async def bind_file(self, name: str, head: ContextHead) -> None:
        """Does what `bind_context` does, with a context that lies beside the socket.

        Returns when the worker has opened it. Cancelling the call ends the stream: what the name is
        bound to would be unknown.
        """
        outbox = self._begin()
        opened = self._opened = asyncio.get_running_loop().create_future()
        either: tuple[asyncio.Future[Any], ...] = (opened, self._ended)
        try:
            await self._require_not_closing()
            outbox.post(
                wire.context_file(sequence=self._said.context_file(name=name), name=name, head=head)
            )
            self._heard.file_sent()
            await asyncio.wait(either, timeout=_CHUNK_S, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                self._lose(f"it did not open {name} within {_CHUNK_S:g} s")
                self._require_open()
        except asyncio.CancelledError:
            self._lose(f"the hand-over of {name} was cancelled in the middle")
            raise
        finally:
            self._opened = None
            self._is_busy = False

    async def bind_pieces(self, name: str, head: ContextHead, pieces: AsyncIterable[bytes]) -> None:
        """Does what `bind_context` does, with a context that comes piece by piece.

        Returns when the last piece has been taken. Cancelling the call ends the stream, because
        nothing but the next piece may follow a piece.
        """
        outbox = self._begin()
        offset_bytes = 0
        try:
            async for data in pieces:
                await self._require_not_closing()
                sequence = self._said.context_chunk(
                    name=name,
                    offset_bytes=offset_bytes,
                    size_bytes=len(data),
                    total_bytes=head.total_bytes,
                )
                outbox.post(
                    wire.context_chunk(
                        sequence=sequence,
                        name=name,
                        head=head,
                        offset_bytes=offset_bytes,
                        data=data,
                    )
                )
                offset_bytes += len(data)
                async with asyncio.timeout(_CHUNK_S):
                    await outbox.flush()
                self._require_open()
        except TimeoutError:
            self._lose(f"it took no piece of {name} for {_CHUNK_S:g} s")
            self._require_open()
        except asyncio.CancelledError:
            self._lose(f"the hand-over of {name} was cancelled in the middle")
            raise
        finally:
            self._is_busy = False

    async def run_cell(
        self,
        source: str,
        *,
        timeout_s: float,
        on_output: OutputSink | None = None,
        cell_id: CellId | None = None,
    ) -> CellResult:
        """See `Sandbox.run_cell`.

        The cell is `cell_id`, larger than that of any cell before, or the next one if left out.
        """
        outbox = self._begin()
        try:
            cell_id = self._last_cell = cell_id or CellId(self._last_cell + 1)
            refusal = source_problem(source, limit_bytes=self._cell_limits.source_bytes)
            if refusal is not None:
                return CellResult(
                    cell_id=cell_id,
                    outcome=Outcome.REJECTED,
                    state=VariableState.KEPT,
                    error=refusal,
                )
            sequence = self._said.run_cell(cell_id)
            self._heard.cell_sent(cell_id)
            cell = self._cell = RunningCell(
                cell_id=cell_id,
                timeout_s=timeout_s,
                output_bytes=self._cell_limits.output_bytes,
                on_output=on_output,
            )
            self._queries.begin_cell(cell_id, cell.clock)
            outbox.post(
                wire.run_cell(
                    sequence=sequence, cell_id=cell_id, source=source, timeout_s=timeout_s
                )
            )
            await self._wait_for(cell, outbox)
            return cell.result()
        finally:
            self._is_busy = False

    def stop_cell(self) -> None:
        """See `Sandbox.stop_cell`."""
        if self._cell is not None:
            self._cell.stop()

    async def _wait_for(self, cell: RunningCell, outbox: Outbox) -> None:
        """Waits for the cell's result, stopping it when its clock runs out or the caller leaves."""
        try:
            await cell.wait()
            if not cell.has_ended:
                await self._stop(cell, outbox, is_timeout=not cell.is_stopped)
            await self._queries.settle()
        except BaseException:
            # Cancelled, or the caller's sink failed: the next cell must find an idle sandbox.
            if not cell.has_ended:
                await run_to_end(self._stop(cell, outbox, is_timeout=False))
            raise
        finally:
            cell.stop_clock()
            self._cell = None

    async def _stop(self, cell: RunningCell, outbox: Outbox, *, is_timeout: bool) -> None:
        """Stops the cell and waits for its result, for a bounded time."""
        cell.stop_clock()
        outbox.post(
            wire.stop_cell(
                sequence=self._said.stop_cell(), cell_id=cell.cell_id, is_timeout=is_timeout
            )
        )
        try:
            async with asyncio.timeout(self._stop_s):
                # The order first: a cell that hears of its cancelled query before it ends by
                # itself, and nobody would know that it was stopped.
                await outbox.flush()
                self._queries.stop_cell()
                await cell.wait()
        except TimeoutError:
            self._lose(
                f"it stopped answering: no result of cell {cell.cell_id} within"
                f" {self._stop_s:g} s of being told to stop it"
            )
            self._require_open()

    async def wait_for_end(self) -> None:
        """See `Attachment.wait_for_end`."""
        await asyncio.wait({self._ended})

    async def ended(self) -> StreamEnd:
        """Returns how the stream ended, once it has."""
        await asyncio.wait({self._ended})
        return self._ended.result()

    def end(self, end: StreamEnd) -> None:
        """Ends the stream, cell and queries with it; only the first end counts."""
        if self._ended.done():
            return
        self._ended.set_result(end)
        self._queries.end_cell()
        if self._outbox is not None:
            self._outbox.close()
        if self._cell is not None:
            self._cell.take_stream_end(end.error())
        # A sandbox that is not in use may go: its container is destroyed before its stream is
        # closed. Whoever still wants something of it is told by the error.
        is_news = self._cell is not None if end.kind is EndKind.LOST else end.kind != EndKind.CLOSED
        level = logging.WARNING if is_news else logging.DEBUG
        _log.log(level, "sandbox %s: stream %s: %s", self._sandbox_id, end.kind, end.reason)

    async def close(self) -> None:
        """Says goodbye, ends the stream and settles what was asked. Idempotent."""
        is_first, self._is_closing = not self._is_closing, True
        is_open = self._greeted.done() and not self._ended.done()
        if is_first and is_open and self._outbox is not None:
            self._outbox.post(wire.shutdown(sequence=self._said.shutdown()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._outbox.flush()
        self.end(StreamEnd(kind=EndKind.CLOSED, reason="the sandbox has been closed"))
        await self._queries.settle()

    def _greet(self, claimed: ClaimedHello) -> None:
        """Answers a hello, or ends the stream if it is not as promised."""
        if claimed.min_version > wire.VERSION:
            self._refuse(
                f"the worker speaks versions {claimed.min_version} to {claimed.max_version} of the"
                f" contract, the orchestrator version {wire.VERSION}: build the image anew"
            )
            return
        differences = self._promised_walls.differences(claimed.walls)
        if differences:
            self._refuse("walls are not as promised: " + "; ".join(differences))
            return
        _log.debug(
            "sandbox %s attached: image %r, kernel %r",
            self._sandbox_id,
            claimed.image_release,
            claimed.kernel_release,
        )
        self._walls = claimed.walls
        if self._outbox is not None:
            self._outbox.post(wire.hello(sequence=self._said.hello(), limits=self._told_limits))
        self._greeted.set_result(None)

    def _begin(self) -> Outbox:
        """Takes the stream for one call and returns what it sends with."""
        self._require_open()
        if self._outbox is None or not self._greeted.done():
            raise RuntimeError("the sandbox is not attached yet; await Endpoint.attached() first")
        if self._is_busy:
            raise RuntimeError("calls on one sandbox must not overlap; await the one before")
        self._is_busy = True
        return self._outbox

    def _require_open(self) -> None:
        if self._ended.done():
            raise self._ended.result().error()

    async def _require_not_closing(self) -> None:
        if self._is_closing:  # a goodbye is on its way, and nothing follows it
            await self.wait_for_end()
            self._require_open()

    def _lose(self, reason: str) -> None:
        self.end(StreamEnd(kind=EndKind.LOST, reason=reason))

    def _refuse(self, reason: str) -> None:
        self.end(StreamEnd(kind=EndKind.REFUSED, reason=reason))
