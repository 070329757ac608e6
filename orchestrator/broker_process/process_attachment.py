"""The orchestrator's end of one sandbox, where the broker is another process.

Without it a caller would have to know that there are two processes. Everything that comes out of
the other one is held against the same rules as what a sandbox says: whoever takes that process over
has gained a sandbox, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from orchestrator.broker.clock import CellClock
from orchestrator.broker.context_pieces import ContextHead, cut
from orchestrator.broker.context_place import ContextPlace
from orchestrator.broker.ending import EndKind, StreamEnd
from orchestrator.broker.source import source_problem
from orchestrator.broker_process.calls import BindCall, RunCall
from orchestrator.broker_process.cell_frames import read_result
from orchestrator.broker_process.ending_frames import read_end, read_start_error
from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import Frame, Said, Told
from orchestrator.broker_process.link import Link
from orchestrator.broker_process.log_frames import RelayedLog
from orchestrator.broker_process.query_frames import answer_parts
from orchestrator.broker_process.relayed_queries import RelayedQueries
from orchestrator.broker_process.run_frames import bind_fields, offer_fields
from orchestrator.broker_process.setup_frames import (
    SetUp,
    read_listening,
    read_walls,
)
from orchestrator.domain import (
    CellId,
    CellResult,
    EncodedContext,
    Outcome,
    QueryAnswer,
    RunOffer,
    VariableState,
    Walls,
)
from orchestrator.errors import SandboxError, SandboxStartError
from orchestrator.ports import OutputSink, QueryHandler
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

#: What the broker's process may need beyond the time after which it gives a worker up by itself,
#: on a busy machine. Reached only by a process that does not do its work.
_LATE_S: Final = 10.0
#: For one piece of a context: the broker gives its worker 30 s for each, and four are under way.
_PIECE_S: Final = 150.0
#: Told and not taken by a process that reads all the time: it does not read any more.
_MAX_UNTAKEN_BYTES: Final = 64 * 2**20


class ProcessAttachment:
    """One sandbox's stream, as far as the orchestrator sees it; implements `ports.Attachment`."""

    def __init__(
        self,
        *,
        set_up: SetUp,
        queries: QueryHandler,
        destroy: Callable[[], None],
        place: ContextPlace,
    ) -> None:
        """Begins without a link, in the running event loop.

        Args:
            set_up: What the broker's process was told.
            queries: Answers what the sandbox asks.
            destroy: Kills the broker's process; called when it breaks a rule or hangs.
            place: Where large contexts are laid; the caller's.
        """
        self._place = place
        self._set_up = set_up
        self._limits = set_up.cell_limits
        self._stop_s = 2 * self._limits.grace_s + set_up.stop_margin_s + _LATE_S
        self._destroy = destroy
        self._queries = RelayedQueries(
            handler=queries, limits=set_up.query_limits, send=self._send_answers
        )
        self._log = RelayedLog(set_up.sandbox_id)
        self._link: Link | None = None
        self._last_cell = CellId(0)
        self._call: BindCall | RunCall | None = None
        self._is_busy = False
        self._found_walls: Walls | None = None
        loop = asyncio.get_running_loop()
        self._listening: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self._greeted: asyncio.Future[Walls | SandboxError] | None = None
        self._ended: asyncio.Future[StreamEnd] = loop.create_future()
        self._pong: asyncio.Future[None] | None = None
        self._takers: Mapping[int, Callable[[Frame], None]] = {
            Said.LISTENING: self._take_listening,
            Said.ATTACHED: self._take_attached,
            Said.NOT_ATTACHED: self._take_not_attached,
            Said.PIECE_TAKEN: lambda _: self._binding().take_piece_taken(),
            Said.BOUND: lambda _: self._binding().take_bound(),
            Said.OUTPUT: self._take_output,
            Said.RESULT: self._take_result,
            Said.CANCELLED: lambda _: self._running().take_cancelled(),
            Said.QUERY: self._queries.take,
            Said.QUERY_CANCELLED: self._queries.cancel,
            Said.ENDED: lambda frame: self.end(read_end(frame.fields)),
            Said.LOG: lambda frame: self._log.take(frame.fields),
            Said.PONG: self._take_pong,
        }

    @property
    def walls(self) -> Walls:
        """What the worker found around itself."""
        if self._found_walls is None:
            raise RuntimeError("the sandbox is not attached yet; await Endpoint.attached() first")
        return self._found_walls

    def begin(self, link: Link) -> None:
        """Speaks over `link`, whose frames come to `take`."""
        self._link = link

    def take(self, frame: Frame) -> None:
        """Takes one frame of the broker's process.

        Raises:
            FrameError: It breaks a rule; `take_broken` is to be called next.
        """
        if not self._ended.done():
            self._takers[frame.kind](frame)
        elif frame.kind == Said.QUERY:
            # It crossed the end; the broker waits for an answer before it ends itself.
            self._queries.refuse(frame)

    def take_broken(self, error: FrameError) -> None:
        """Ends the sandbox because its broker's process broke a rule."""
        rule = f"its broker's process broke the rules of its link: {error}"
        self.end(StreamEnd(kind=EndKind.BROKEN, reason=rule))
        _log.error("sandbox %s: %s", self._set_up.sandbox_id, rule)
        self._destroy()

    async def listening(self, *, timeout_s: float) -> tuple[str, ...]:
        """Returns what shuts the broker's process in, by name, once it listens.

        Raises:
            SandboxStartError: The broker's process ended first, or took too long.
        """
        either: tuple[asyncio.Future[Any], ...] = (self._listening, self._ended)
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._listening.done():
            return self._listening.result()
        reason = f"it made no socket within {timeout_s:g} s"
        if self._ended.done():
            reason = self._ended.result().reason
        raise SandboxStartError(f"the sandbox's broker could not be started: {reason}")

    async def greeted(self, *, timeout_s: float) -> None:
        """See `Endpoint.attached`."""
        if self._found_walls is not None:
            return
        greeted = self._greeted = asyncio.get_running_loop().create_future()
        self._tell(Told.AWAIT_WORKER, timeout_s=timeout_s)
        either: tuple[asyncio.Future[Any], ...] = (greeted, self._ended)
        await asyncio.wait(either, timeout=timeout_s + _LATE_S, return_when=asyncio.FIRST_COMPLETED)
        if greeted.done():
            found = greeted.result()
            if isinstance(found, SandboxError):
                raise found
            self._found_walls = found
            return
        if not self._ended.done():
            self._give_up("it said nothing of the worker it was to wait for")
        end = self._ended.result()
        if end.kind is EndKind.LOST:
            raise SandboxStartError(f"the sandbox was lost before its first cell: {end.reason}")
        raise end.error()

    async def begin_run(self, offer: RunOffer) -> None:
        """See `Sandbox.begin_run`."""
        link = self._begin()
        link.send(Told.BEGIN_RUN, offer_fields(offer))
        self._is_busy = False

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """See `Sandbox.bind_context`.

        Cancelling the call ends the stream: nothing but the next piece may follow a piece, and what
        a name is bound to would be unknown.
        """
        link = self._begin()
        call = self._call = BindCall()
        head = ContextHead.of(context, aliases=aliases)
        try:
            async with self._place.laid(context.data) as is_laid:
                if is_laid:
                    link.send(Told.BIND_FILE, bind_fields(name, head))
                else:
                    link.send(Told.BIND, bind_fields(name, head))
                    await self._send_pieces(link, call, context.data)
                async with asyncio.timeout(_PIECE_S):
                    await asyncio.wait({call.done})
            call.done.result()
        except TimeoutError:
            self._give_up(f"it took no piece of {name} for {_PIECE_S:g} s")
            call.done.result()
        except asyncio.CancelledError:
            link.send(Told.CANCEL)
            reason = f"the hand-over of {name} was cancelled in the middle"
            self.end(StreamEnd(kind=EndKind.LOST, reason=reason))
            raise
        finally:
            self._finish(call)

    @staticmethod
    async def _send_pieces(link: Link, call: BindCall, data: bytes) -> None:
        for piece in cut(data):
            async with asyncio.timeout(_PIECE_S):
                await call.room()
                link.send(Told.PIECE, body=piece)
                await link.drained()
            if call.done.done():
                return

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """See `Sandbox.run_cell`."""
        link = self._begin()
        cell_id = self._last_cell = CellId(self._last_cell + 1)
        refusal = source_problem(source, limit_bytes=self._limits.source_bytes)
        if refusal is not None:
            self._is_busy = False
            return CellResult(
                cell_id=cell_id,
                outcome=Outcome.REJECTED,
                state=VariableState.KEPT,
                error=refusal,
            )
        call = self._call = RunCall(
            cell_id=cell_id,
            clock=CellClock(timeout_s=timeout_s + self._stop_s, expire=self._expire),
            output_bytes=self._limits.output_bytes,
            on_output=on_output,
        )
        self._queries.begin_cell(cell_id, call.clock)
        link.send(
            Told.RUN,
            {"cell_id": cell_id, "timeout_s": timeout_s, "wants_output": call.wants_output},
            body=source.encode(),
        )
        try:
            return await self._result_of(call)
        finally:
            self._finish(call)

    async def _result_of(self, call: RunCall) -> CellResult:
        try:
            await asyncio.wait({call.done})
        except asyncio.CancelledError:
            # The next cell must find an idle sandbox.
            self._cancel(call)
            await run_to_end(self._settled(call))
            raise
        await self._settled(call)
        if call.sink_error is not None:
            raise call.sink_error
        result = call.done.result()
        if result is None:
            raise RuntimeError(f"cell {call.cell_id} was stopped and nobody wanted it")
        return result

    async def _settled(self, call: RunCall) -> None:
        """Waits for the end of a cell, and of what it asked."""
        await asyncio.wait({call.done})
        self._queries.end_cell()
        await self._queries.settle()

    def stop_cell(self) -> None:
        """See `Sandbox.stop_cell`."""
        if isinstance(self._call, RunCall) and not self._call.is_cancelled:
            self._end_soon(self._call, Told.STOP)

    def _cancel(self, call: RunCall) -> None:
        if not call.is_cancelled:
            call.is_cancelled = True
            self._end_soon(call, Told.CANCEL)

    def _end_soon(self, call: RunCall, how: Told) -> None:
        """Has the broker's process stop a cell, which it does in a bounded time."""
        if call.done.done():
            return
        # In this order: see `StreamAttachment._stop`.
        self._tell(how)
        self._queries.stop_cell()
        call.clock.stop()
        call.clock = CellClock(timeout_s=self._stop_s, expire=self._expire)

    def _expire(self) -> None:
        self._give_up(f"it sent no result of cell {self._last_cell}, long after its time was over")

    def _finish(self, call: BindCall | RunCall) -> None:
        """Makes room for the next call."""
        call.done.cancel()
        if not call.done.cancelled():
            call.done.exception()  # marks it as seen: a cancelled caller gets its cancellation
        if isinstance(call, RunCall):
            call.clock.stop()
        self._call = None
        self._is_busy = False

    async def wait_for_end(self) -> None:
        """See `Attachment.wait_for_end`."""
        await asyncio.wait({self._ended})

    def end(self, end: StreamEnd) -> None:
        """Ends the stream, call and queries with it; only the first end counts."""
        if self._ended.done():
            return
        self._ended.set_result(end)
        self._queries.end_cell()
        if self._call is not None:
            self._call.fail(end.error())

    async def watch(self, *, interval_s: float, patience_s: float) -> None:
        """Ends the sandbox when its broker's process does not answer any more; until then, waits.

        Args:
            interval_s: From one question to the next.
            patience_s: How long an answer may take.
        """
        while not self._ended.done():
            await asyncio.wait({self._ended}, timeout=interval_s)
            pong = self._pong = asyncio.get_running_loop().create_future()
            self._tell(Told.PING)
            either: tuple[asyncio.Future[Any], ...] = (pong, self._ended)
            await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not pong.done() and not self._ended.done():
                self._give_up(f"it has not answered for {patience_s:g} s")

    async def close(self) -> None:
        """Ends the stream and settles what was asked. Idempotent."""
        if self._link is not None:
            self._link.send(Told.CLOSE)
        self.end(StreamEnd(kind=EndKind.CLOSED, reason="the sandbox has been closed"))
        await self._queries.settle()

    def _take_listening(self, frame: Frame) -> None:
        if self._listening.done():
            raise FrameError("a broker's process says once that it listens")
        self._listening.set_result(read_listening(frame.fields))

    def _take_attached(self, frame: Frame) -> None:
        walls = read_walls(frame.fields)
        # The broker has compared them; a broker that has been taken over says what it likes.
        if self._set_up.promised_walls.differences(walls):
            raise FrameError("a worker that found other walls is refused")
        self._greeting().set_result(walls)

    def _take_not_attached(self, frame: Frame) -> None:
        # A value, so that nothing complains where the caller has stopped waiting meanwhile.
        self._greeting().set_result(read_start_error(frame.fields))

    def _take_output(self, frame: Frame) -> None:
        call = self._running()
        call.take_output(frame)
        if call.sink_error is not None:
            self._cancel(call)

    def _take_result(self, frame: Frame) -> None:
        call = self._running()
        call.take_result(read_result(frame, cell_id=call.cell_id, limits=self._limits))
        # From here on a query is no cell's; the caller's task may be a while in coming.
        self._queries.end_cell()

    def _take_pong(self, frame: Frame) -> None:
        del frame
        if self._pong is None or self._pong.done():
            raise FrameError("a pong answers a ping")
        self._pong.set_result(None)

    def _greeting(self) -> asyncio.Future[Walls | SandboxError]:
        if self._greeted is None or self._greeted.done():
            raise FrameError("a worker attaches once, when it is waited for")
        return self._greeted

    def _binding(self) -> BindCall:
        if not isinstance(self._call, BindCall) or self._call.done.done():
            raise FrameError("a context is taken while one is bound")
        return self._call

    def _running(self) -> RunCall:
        if not isinstance(self._call, RunCall) or self._call.done.done():
            raise FrameError("a cell prints and ends while it runs")
        return self._call

    def _begin(self) -> Link:
        """Takes the stream for one call."""
        if self._ended.done():
            raise self._ended.result().error()
        if self._link is None or self._found_walls is None:
            raise RuntimeError("the sandbox is not attached yet; await Endpoint.attached() first")
        if self._is_busy:
            raise RuntimeError("calls on one sandbox must not overlap; await the one before")
        self._is_busy = True
        return self._link

    def _tell(self, kind: Told, **fields: float) -> None:
        if self._link is not None and not self._ended.done():
            self._link.send(kind, fields)

    def _send_answers(self, number: int, answers: Sequence[QueryAnswer] | None) -> None:
        if self._link is None:
            return
        fields, body = answer_parts(number, answers)
        self._link.send(Told.ANSWERS, fields, body=body)
        if self._link.waiting_bytes > _MAX_UNTAKEN_BYTES:
            self._give_up("it does not take what it is told")

    def _give_up(self, what: str) -> None:
        """Ends a sandbox whose broker's process does not do its work."""
        reason = f"the broker's process stopped answering: {what}"
        _log.error("sandbox %s: %s", self._set_up.sandbox_id, reason)
        self.end(StreamEnd(kind=EndKind.LOST, reason=reason))
        self._destroy()
