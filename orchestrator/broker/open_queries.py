"""The queries of one sandbox that are being answered.

Without it a sandbox could ask outside a cell, ask without end, or leave paid requests running after
its cell is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum

from orchestrator.broker import wire
from orchestrator.broker.child_contexts import ChildContexts
from orchestrator.broker.claims import ClaimedPart, ClaimedQuery, read_query
from orchestrator.broker.clock import CellClock
from orchestrator.broker.order import ExcessError
from orchestrator.broker.query_limits import (
    INTERNAL_FAILURE,
    MAX_OPEN_FACTOR,
    MAX_QUERIES,
    SETTLE_S,
)
from orchestrator.domain import (
    CellId,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryRequest,
)
from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import QueryLimits
from orchestrator.ports import QueryHandler

_log = logging.getLogger(__name__)

#: An honest worker refuses long batches itself. Beyond this the answers, one for each prompt, would
#: cost the orchestrator more than the request cost the sandbox.
_MAX_BATCH_FACTOR = 16


class QueryRefusal(StrEnum):
    """Why a query gets no reply at all, though no rule was broken."""

    NO_CELL = "the cell that asks is not running"
    CANCELLED = "the cell ended, or was stopped, while the query was open"


class OpenQueries:
    """Answers the queries of the running cell, and cancels what is open when the cell ends."""

    def __init__(self, *, handler: QueryHandler, limits: QueryLimits) -> None:
        """Begins without a cell: every query is refused."""
        self._handler = handler
        self._limits = limits
        self._max_open_count = MAX_OPEN_FACTOR * limits.concurrent_queries
        self._max_prompt_count = _MAX_BATCH_FACTOR * limits.batch_prompts
        # Hashes, not ids: a sandbox chooses the ids, and a hash is keyed anew in each process, so
        # what is kept for each is small and the same for all.
        self._used_ids: set[int] = set()
        self._cell_id: CellId | None = None
        self._clock: CellClock | None = None
        self._is_stopping = False
        self._unsettled: set[asyncio.Task[Sequence[QueryAnswer]]] = set()
        self._contexts = ChildContexts(limit_bytes=limits.child_context_bytes)

    def begin_cell(self, cell_id: CellId, clock: CellClock) -> None:
        """Admits queries of `cell_id`; `clock` stands still while one is open."""
        self._cell_id = cell_id
        self._clock = clock
        self._is_stopping = False

    def stop_cell(self) -> None:
        """Cancels every open query and refuses new ones. Idempotent."""
        self._is_stopping = True
        for task in self._unsettled:
            task.cancel()

    def end_cell(self) -> None:
        """Does what `stop_cell` does; from here on there is no cell. Idempotent."""
        self.stop_cell()
        self._cell_id = self._clock = None
        self._contexts.clear()

    async def settle(self) -> None:
        """Waits until every cancelled query has been settled by the handler."""
        if self._unsettled:
            _, late = await asyncio.wait(self._unsettled, timeout=SETTLE_S)
            if late:
                _log.error("%d cancelled queries are not settled after %s s", len(late), SETTLE_S)

    async def answer(self, raw: bytes) -> bytes | QueryRefusal:
        """Answers one `LlmQueryRequest`; cancelling the call cancels the handler's.

        Returns:
            An `LlmQueryReply`, or why there is none.

        Raises:
            ProtocolViolationError: The request breaks a rule.
            ExcessError: It is one request more than any cell could need.
        """
        claimed = read_query(raw)
        self._use_up(claimed.query_id)
        if claimed.cell_id != self._cell_id or self._clock is None:
            return QueryRefusal.NO_CELL
        if self._is_stopping:
            return QueryRefusal.CANCELLED
        if isinstance(claimed, ClaimedPart):
            self._contexts.take_part(claimed)
            return wire.query_reply([])
        context = claimed.child_context
        child_context = None if context is None else self._contexts.whole(context)
        if len(claimed.prompts) > self._max_prompt_count:
            raise ExcessError(f"a query has at most {self._max_prompt_count:,} prompts")
        failures = failures_of(claimed, self._limits)
        if len(failures) == len(claimed.prompts):
            return wire.query_reply(list(failures.values()))
        if len(self._unsettled) >= self._max_open_count:
            raise ExcessError(f"at most {self._max_open_count:,} queries are open at once")
        request = QueryRequest(
            query_id=claimed.query_id,
            cell_id=self._cell_id,
            prompts=tuple(
                prompt for index, prompt in enumerate(claimed.prompts) if index not in failures
            ),
            model_alias=claimed.model_alias or None,
            kind=claimed.kind,
            json_schema=claimed.json_schema,
            child_context=child_context,
            tool_name=claimed.tool_name,
        )
        answers = await self._ask(request, self._clock)
        if answers is None:
            return QueryRefusal.CANCELLED
        return wire.query_reply(_woven(failures, answers) if failures else answers)

    def _use_up(self, query_id: QueryId) -> None:
        if hash(query_id) in self._used_ids:
            raise ProtocolViolationError(f"a query id is used once: {query_id}")
        if len(self._used_ids) >= MAX_QUERIES:
            raise ExcessError(f"a sandbox makes at most {MAX_QUERIES:,} queries")
        self._used_ids.add(hash(query_id))

    async def _ask(self, request: QueryRequest, clock: CellClock) -> Sequence[QueryAnswer] | None:
        """Returns the handler's answers, or None if the query was cancelled with its cell."""
        # A task of its own, so that the end of the cell can cancel the handler's call and still
        # give the worker the documented status.
        task = asyncio.ensure_future(self._handler.answer(request))
        self._unsettled.add(task)
        task.add_done_callback(self._unsettled.discard)
        clock.pause()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_log_failure)
            raise
        finally:
            clock.resume()
        if task.cancelled() or self._cell_id != request.cell_id or self._is_stopping:
            _log_failure(task)
            return None
        if task.exception() is None and len(task.result()) == len(request.prompts):
            return task.result()
        # A mistake on this side of the wire must not tell the sandbox anything about this side.
        _log.error(
            "query %s was not answered as agreed", request.query_id, exc_info=task.exception()
        )
        return [INTERNAL_FAILURE] * len(request.prompts)


def failures_of(claimed: ClaimedQuery, limits: QueryLimits) -> Mapping[int, QueryFailure]:
    """Returns, by index, the prompts that are refused before anybody is asked, and why."""
    count = len(claimed.prompts)
    if count > limits.batch_prompts:
        failure = QueryFailure(
            reason=QueryFailureReason.TOO_MANY,
            message=f"{count:,} prompts in one call; a call takes {limits.batch_prompts:,}."
            " Send fewer, longer prompts.",
        )
        return dict.fromkeys(range(count), failure)
    return {
        index: QueryFailure(
            reason=QueryFailureReason.TOO_LARGE,
            message=f"The prompt has {len(prompt):,} characters; a prompt takes"
            f" {limits.prompt_chars:,}. Cut it into pieces and ask about each.",
        )
        for index, prompt in enumerate(claimed.prompts)
        if len(prompt) > limits.prompt_chars
    }


def _woven(
    failures: Mapping[int, QueryFailure], answers: Sequence[QueryAnswer]
) -> list[QueryAnswer]:
    """Returns the handler's answers with the early failures in their places."""
    rest = iter(answers)
    return [
        failures[index] if index in failures else next(rest)
        for index in range(len(failures) + len(answers))
    ]


def _log_failure(task: asyncio.Task[Sequence[QueryAnswer]]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a cancelled query failed", exc_info=task.exception())
