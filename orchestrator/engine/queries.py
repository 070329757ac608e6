"""Answers what cells ask for: the engine's end of the broker.

Without it a sandbox's prompts would reach a provider unchecked: in any number, of any length, to
any model, and the same one as often as a loop repeats it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence

from orchestrator.domain import (
    Message,
    ModelReply,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryRequest,
)
from orchestrator.engine.ledger import Ledger, Reservation
from orchestrator.engine.query_rules import QueryRules
from orchestrator.errors import BudgetExhaustedError, ModelRefusedError, ModelUnavailableError
from orchestrator.events import QueryEnded, QueryRefused, QueryStarted
from orchestrator.ports import EventSink, ModelClient

_logger = logging.getLogger(__name__)

# Sentences for the cell. What the provider said stays on the host: it may name keys, addresses and
# models.
_UNAVAILABLE = (
    "the sub-model did not answer, retries included; ask again later in the run, or go on without"
)
_REFUSED = (
    "the sub-model refused this prompt for good; if the prompt is long, send a shorter one, else "
    "go on without"
)
_CANCELLED = "the cell ended before the answer came"


class _SharedQuery:
    """One prompt under way or answered, and how many requests wait for it."""

    def __init__(self, key: tuple[str, str], task: asyncio.Task[ModelReply | QueryFailure]) -> None:
        self.key = key
        self.task = task
        self.waiting_count = 0


class QueryDesk:
    """A `QueryHandler` for one run: checks, pays, asks, and answers a repeated prompt once.

    Not shared between runs: its memory of answers is one tenant's property.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, ModelClient],
        ledger: Ledger,
        sink: EventSink,
        rules: QueryRules,
    ) -> None:
        """Opens the desk.

        Args:
            models: The models cells may ask, by alias.
            ledger: Pays for each query that leaves.
            sink: Told of each query.
            rules: What queries may be.
        """
        self._models = models
        self._ledger = ledger
        self._sink = sink
        self._rules = rules
        self._shared: dict[tuple[str, str], _SharedQuery] = {}

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        if failure := self._rules.reason_to_refuse(request, aliases=self._models):
            return self._refuse(request, failure, prompt_count=len(request.prompts))
        too_large = self._rules.too_large(request)
        if too_large:
            self._refuse(request, next(iter(too_large.values())), prompt_count=len(too_large))
        model = self._models[request.model_alias or self._rules.default_alias]
        fitting = {i: p for i, p in enumerate(request.prompts) if i not in too_large}
        try:
            queries, repeats = self._dispatch(request, model, fitting)
        except BudgetExhaustedError as error:
            failure = QueryFailure(reason=QueryFailureReason.BUDGET_EXHAUSTED, message=str(error))
            return self._refuse(request, failure, prompt_count=len(request.prompts))
        started_s = time.monotonic()
        try:
            if queries:
                await asyncio.wait({query.task for query in queries.values()})
        finally:
            await self._release(tuple(queries.values()))
            for index in repeats:
                self._tell_repeat_ended(request.query_id, index, queries[index], started_s)
        return [
            too_large[index] if index in too_large else _answer_of(queries[index].task.result())
            for index in range(len(request.prompts))
        ]

    def _refuse(
        self, request: QueryRequest, failure: QueryFailure, *, prompt_count: int
    ) -> list[QueryAnswer]:
        self._sink(
            QueryRefused(
                query_id=request.query_id,
                cell_id=request.cell_id,
                prompt_count=prompt_count,
                failure=failure,
            )
        )
        return [failure] * prompt_count

    def _dispatch(
        self, request: QueryRequest, model: ModelClient, prompts: Mapping[int, str]
    ) -> tuple[dict[int, _SharedQuery], list[int]]:
        """Starts what has to be asked and joins what was asked before.

        Nothing is awaited in here: between the look at `_shared` and the last entry made in it no
        other request of the run can come.

        Returns:
            The query that answers each prompt, and the indexes of those that were asked before.

        Raises:
            BudgetExhaustedError: The new ones cannot be afforded whole; nothing was started.
        """
        keys = {
            index: self._key(request.query_id, index, model, prompt)
            for index, prompt in prompts.items()
        }
        new_indexes: dict[tuple[str, str], int] = {}
        for index, key in keys.items():
            if key not in self._shared:
                new_indexes.setdefault(key, index)
        reservations = self._ledger.reserve(query_count=len(new_indexes)) if new_indexes else ()
        for (key, index), reservation in zip(new_indexes.items(), reservations, strict=True):
            self._start(request, index, model, key, reservation)
        queries = {index: self._shared[key] for index, key in keys.items()}
        for query in queries.values():
            query.waiting_count += 1
        repeats = [index for index, key in keys.items() if new_indexes.get(key) != index]
        for index in repeats:
            self._tell_started(request, index, is_repeat=True)
        return queries, repeats

    def _key(
        self, query_id: QueryId, index: int, model: ModelClient, prompt: str
    ) -> tuple[str, str]:
        if not self._rules.answers_repeats_once:
            return (model.name, f"{query_id}/{index}")
        # A digest, because the prompts of a run may be hundreds of megabytes together.
        # "surrogatepass": a prompt is any str a cell can make.
        return (model.name, hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest())

    def _start(
        self,
        request: QueryRequest,
        index: int,
        model: ModelClient,
        key: tuple[str, str],
        reservation: Reservation,
    ) -> None:
        task = asyncio.create_task(self._ask(request, index, model, reservation))

        query = self._shared[key] = _SharedQuery(key, task)

        def settle(ended: asyncio.Task[ModelReply | QueryFailure]) -> None:
            # Not a `finally` in the task: one that is cancelled before its first step never
            # enters its own body.
            reservation.close()
            if ended.cancelled() or ended.exception() or isinstance(ended.result(), QueryFailure):
                self._forget(query)  # a failure is not an answer to share

        task.add_done_callback(settle)

    def _forget(self, query: _SharedQuery) -> None:
        if self._shared.get(query.key) is query:
            del self._shared[query.key]

    async def _ask(
        self, request: QueryRequest, index: int, model: ModelClient, reservation: Reservation
    ) -> ModelReply | QueryFailure:
        async with self._ledger.slot():
            reservation.spend()
            self._tell_started(request, index, is_repeat=False)
            started_s = time.monotonic()
            outcome: ModelReply | QueryFailure = QueryFailure(
                reason=QueryFailureReason.CANCELLED, message=_CANCELLED
            )
            try:
                outcome = await self._complete(model, request.prompts[index])
            finally:
                self._tell_ended(request.query_id, index, outcome, started_s, is_repeat=False)
        return outcome

    async def _complete(self, model: ModelClient, prompt: str) -> ModelReply | QueryFailure:
        try:
            reply = await model.complete(
                [Message("user", prompt)], max_completion_tokens=self._rules.max_completion_tokens
            )
        except ModelUnavailableError as error:
            _logger.warning("a query failed: %s", error)
            return QueryFailure(reason=QueryFailureReason.MODEL_FAILED, message=_UNAVAILABLE)
        except ModelRefusedError as error:
            _logger.warning("a query was refused: %s", error)
            return QueryFailure(reason=QueryFailureReason.MODEL_REFUSED, message=_REFUSED)
        self._ledger.record(model.name, reply)
        return reply

    async def _release(self, queries: Sequence[_SharedQuery]) -> None:
        """Stops waiting for queries, and cancels those nobody else waits for."""
        for query in queries:
            query.waiting_count -= 1
        deserted = {q for q in queries if not q.waiting_count and not q.task.done()}
        for query in deserted:
            self._forget(query)  # at once: the next request must not join what is being cancelled
            query.task.cancel()
        if deserted:
            await asyncio.wait({query.task for query in deserted})

    def _tell_started(self, request: QueryRequest, index: int, *, is_repeat: bool) -> None:
        self._sink(
            QueryStarted(
                query_id=request.query_id,
                prompt_index=index,
                cell_id=request.cell_id,
                prompt=request.prompts[index],
                is_repeat=is_repeat,
            )
        )

    def _tell_repeat_ended(
        self, query_id: QueryId, index: int, query: _SharedQuery, started_s: float
    ) -> None:
        outcome: ModelReply | QueryFailure = QueryFailure(
            reason=QueryFailureReason.CANCELLED, message=_CANCELLED
        )
        if query.task.done() and not query.task.cancelled():
            outcome = query.task.result()
        if isinstance(outcome, ModelReply):
            outcome = ModelReply(text=outcome.text, was_cut=outcome.was_cut)
        self._tell_ended(query_id, index, outcome, started_s, is_repeat=True)

    def _tell_ended(
        self,
        query_id: QueryId,
        index: int,
        outcome: ModelReply | QueryFailure,
        started_s: float,
        *,
        is_repeat: bool,
    ) -> None:
        self._sink(
            QueryEnded(
                query_id=query_id,
                prompt_index=index,
                reply=outcome if isinstance(outcome, ModelReply) else None,
                failure=outcome if isinstance(outcome, QueryFailure) else None,
                wall_s=time.monotonic() - started_s,
                is_repeat=is_repeat,
            )
        )


def _answer_of(outcome: ModelReply | QueryFailure) -> QueryAnswer:
    return outcome.text if isinstance(outcome, ModelReply) else outcome
