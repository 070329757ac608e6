"""The orchestrator's end of a sandbox's queries, where the broker is another process.

Without it that process, once taken over, could leave paid requests running after its cell, ask
outside a cell, or open more of them than its sandbox may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from orchestrator.broker.clock import CellClock
from orchestrator.broker.query_limits import (
    INTERNAL_FAILURE,
    MAX_OPEN_FACTOR,
    MAX_QUERIES,
    SETTLE_S,
)
from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import Frame
from orchestrator.broker_process.query_frames import read_query
from orchestrator.domain import CellId, QueryAnswer, QueryRequest
from orchestrator.limits import QueryLimits
from orchestrator.ports import QueryHandler

_log = logging.getLogger(__name__)

#: What the broker's own clock may stand still longer than this one, for one query: the way of its
#: request and of its answer, on a busy machine.
_CLOCK_SLACK_S = 0.1


class RelayedQueries:
    """Has the queries of the running cell answered, and cancels what is open when it ends."""

    def __init__(
        self,
        *,
        handler: QueryHandler,
        limits: QueryLimits,
        send: Callable[[int, Sequence[QueryAnswer] | None], None],
    ) -> None:
        """Begins without a cell.

        Args:
            handler: Answers.
            limits: What one request may have.
            send: Sends the answers to the query of a number, None if it was cancelled.
        """
        self._handler = handler
        self._limits = limits
        self._send = send
        self._last_number = 0
        # Hashes: see `OpenQueries`, which keeps the same.
        self._used_ids: set[int] = set()
        self._cell_id: CellId | None = None
        self._clock: CellClock | None = None
        self._is_stopping = False
        self._open: dict[int, asyncio.Task[None]] = {}

    def begin_cell(self, cell_id: CellId, clock: CellClock) -> None:
        """Admits queries, as those of `cell_id`; `clock` stands still while one is open."""
        self._cell_id = cell_id
        self._clock = clock
        self._is_stopping = False

    def stop_cell(self) -> None:
        """Cancels every open query and admits no new ones. Idempotent."""
        self._is_stopping = True
        for task in self._open.values():
            task.cancel()

    def end_cell(self) -> None:
        """Does what `stop_cell` does; from here on a query breaks a rule. Idempotent."""
        self.stop_cell()
        self._cell_id = self._clock = None

    async def settle(self) -> None:
        """Waits until every cancelled query has been settled by the handler."""
        if self._open:
            _, late = await asyncio.wait(self._open.values(), timeout=SETTLE_S)
            if late:
                _log.error("%d cancelled queries are not settled after %s s", len(late), SETTLE_S)

    def take(self, frame: Frame) -> None:
        """Takes a `Said.QUERY` and has it answered.

        Raises:
            FrameError: It is none, or the broker would have refused it.
        """
        number = frame.fields.integer("number", least=self._last_number + 1)
        if self._cell_id is None or self._clock is None:
            raise FrameError("a query comes from a cell that runs")
        request = read_query(frame, cell_id=self._cell_id, limits=self._limits)
        if hash(request.query_id) in self._used_ids:
            raise FrameError(f"a query id is used once: {request.query_id}")
        if len(self._used_ids) >= MAX_QUERIES:
            raise FrameError(f"a sandbox makes at most {MAX_QUERIES:,} queries")
        if len(self._open) >= MAX_OPEN_FACTOR * self._limits.concurrent_queries:
            raise FrameError("no more queries are open than a sandbox may have")
        self._used_ids.add(hash(request.query_id))
        self._last_number = number
        if self._is_stopping:
            self._send(number, None)
            return
        task = asyncio.create_task(self._answer(number, request, self._clock))
        self._open[number] = task
        task.add_done_callback(lambda ended: self._forget(number, ended))

    def refuse(self, frame: Frame) -> None:
        """Answers a `Said.QUERY` as one that was cancelled.

        Raises:
            FrameError: It is none.
        """
        self._send(frame.fields.integer("number"), None)

    def cancel(self, frame: Frame) -> None:
        """Takes a `Said.QUERY_CANCELLED`; one that is answered already is not cancelled.

        Raises:
            FrameError: It is none.
        """
        number = frame.fields.integer("number", least=1, most=self._last_number)
        if number in self._open:
            self._open[number].cancel()

    def _forget(self, number: int, ended: asyncio.Task[None]) -> None:
        del self._open[number]
        if ended.cancelled():
            # Not in the task: one that is cancelled before its first step never enters its own
            # body, and the broker's process would wait for this word until it gives the cell up.
            self._send(number, None)

    async def _answer(self, number: int, request: QueryRequest, clock: CellClock) -> None:
        clock.pause()
        try:
            answers = await self._handler.answer(request)
        except Exception:  # noqa: BLE001 # whatever it is, the cell must not wait for ever
            _log.exception("answering query %s failed", request.query_id)
            answers = []
        finally:
            asyncio.get_running_loop().call_later(_CLOCK_SLACK_S, clock.resume)
        if len(answers) != len(request.prompts):
            # A mistake on this side must not tell the sandbox anything about this side.
            _log.error("query %s was not answered as agreed", request.query_id)
            answers = [INTERNAL_FAILURE] * len(request.prompts)
        self._send(number, answers)
