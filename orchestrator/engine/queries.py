"""Answers what cells ask for: the engine's end of the broker.

Without it a sandbox's prompts would reach a provider unchecked: in any number, of any length, to
any model, and the same one as often as a loop repeats it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from orchestrator.chat import ModelReply
from orchestrator.domain import (
    EncodedContext,
    Json,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryKind,
    QueryRequest,
    RunId,
)
from orchestrator.engine.account import Account
from orchestrator.engine.errands import CANCELLED, Answerer, Errand, Outcome
from orchestrator.engine.ledger import Reservation
from orchestrator.engine.query_rules import QueryRules
from orchestrator.errors import BudgetExhaustedError
from orchestrator.events import QueryEnded, QueryRefused, QueryStarted, RunEvent

#: The one tool that every run has. It costs nothing, and is no event.
BUDGET_TOOL = "budget"
_TOO_DEEP = "no child run can be started from here (depth limit); the sub-model was asked instead"


class _SharedQuery:
    """One prompt under way or answered, and how many requests wait for it."""

    def __init__(self, key: tuple[str, ...], task: asyncio.Task[Outcome]) -> None:
        self.key = key
        self.task = task
        self.waiting_count = 0


class QueryDesk:
    """A `QueryHandler` for one run: checks, pays, has it answered, and answers repeats once.

    Not shared between runs: its memory of answers is one tenant's property.
    """

    def __init__(  # noqa: PLR0913 - what a desk is joined from, each named at the call
        self,
        *,
        answerers: Mapping[QueryKind, Answerer],
        account: Account,
        rules: QueryRules,
        run_id: RunId,
        tell: Callable[[RunEvent], None],
        aliases: Collection[str],
        tool_names: Collection[str] = (),
        budget: Callable[[], Json] = dict,
    ) -> None:
        """Opens the desk.

        Args:
            answerers: Who answers what. Where there is none for child runs, the sub-model answers
                in their place.
            account: Pays for each query that leaves.
            rules: What queries may be.
            run_id: For events.
            tell: Told of each query.
            aliases: The models that cells may name.
            tool_names: The tools that cells may call.
            budget: Returns what is left, for a cell that asks.
        """
        self._answerers = answerers
        self._account = account
        self._rules = rules
        self._run_id = run_id
        self._tell = tell
        self._aliases = aliases
        self._tool_names = tool_names
        self._budget = budget
        self._shared: dict[tuple[str, ...], _SharedQuery] = {}

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        if request.kind is QueryKind.TOOL and request.tool_name == BUDGET_TOOL:
            return [json.dumps(self._budget())] * len(request.prompts)
        failure = self._rules.reason_to_refuse(
            request, aliases=self._aliases, tools=self._tool_names
        )
        if failure:
            return self._refuse(request, failure, prompt_count=len(request.prompts))
        notice = ""
        if request.kind not in self._answerers:
            request, notice = _as_plain(request), _TOO_DEEP
        too_large = self._rules.too_large(request)
        if too_large:
            self._refuse(request, next(iter(too_large.values())), prompt_count=len(too_large))
        fitting = {i: p for i, p in enumerate(request.prompts) if i not in too_large}
        try:
            queries, repeats = self._dispatch(request, fitting)
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
            too_large[index]
            if index in too_large
            else _noted(queries[index].task.result(), notice).answer
            for index in range(len(request.prompts))
        ]

    def _refuse(
        self, request: QueryRequest, failure: QueryFailure, *, prompt_count: int
    ) -> list[QueryAnswer]:
        self._tell(
            QueryRefused(
                run_id=self._run_id,
                query_id=request.query_id,
                cell_id=request.cell_id,
                prompt_count=prompt_count,
                failure=failure,
            )
        )
        return [failure] * prompt_count

    def _dispatch(
        self, request: QueryRequest, prompts: Mapping[int, str]
    ) -> tuple[dict[int, _SharedQuery], list[int]]:
        """Starts what has to be asked and joins what was asked before.

        Nothing is awaited in here: between the look at `_shared` and the last entry made in it no
        other request of the run can come, and what was planned for what is left is reserved of it.

        Returns:
            The query that answers each prompt, and the indexes of those that were asked before.

        Raises:
            BudgetExhaustedError: The new ones cannot be afforded whole; nothing was started.
        """
        answerer = self._answerers[request.kind]
        keys = {
            index: self._key(answerer, request, index, prompt) for index, prompt in prompts.items()
        }
        new_indexes: dict[tuple[str, ...], int] = {}
        for index, key in keys.items():
            if key not in self._shared:
                new_indexes.setdefault(key, index)
        new_prompts = [(index, prompts[index]) for index in new_indexes.values()]
        errands = answerer.errands(request, new_prompts) if new_prompts else []
        reservations = (
            self._account.ledger.reserve(
                [errand.amounts for errand in errands], model=answerer.model_name(request)
            )
            if errands
            else ()
        )
        for (key, index), errand, reservation in zip(
            new_indexes.items(), errands, reservations, strict=True
        ):
            self._start(request, index, key, errand, reservation)
        queries = {index: self._shared[key] for index, key in keys.items()}
        for query in queries.values():
            query.waiting_count += 1
        repeats = [index for index, key in keys.items() if new_indexes.get(key) != index]
        for index in repeats:
            self._tell_started(request, index, is_repeat=True)
        return queries, repeats

    def _key(
        self, answerer: Answerer, request: QueryRequest, index: int, prompt: str
    ) -> tuple[str, ...]:
        if not answerer.remembers:
            return (request.kind, f"{request.query_id}/{index}")
        return (request.kind, *answerer.key(request, prompt))

    def _start(
        self,
        request: QueryRequest,
        index: int,
        key: tuple[str, ...],
        errand: Errand,
        reservation: Reservation,
    ) -> None:
        task = asyncio.create_task(self._run(request, index, errand, reservation))
        query = self._shared[key] = _SharedQuery(key, task)

        def settle(ended: asyncio.Task[Outcome]) -> None:
            # Not a `finally` in the task: one that is cancelled before its first step never
            # enters its own body.
            reservation.close()
            if ended.cancelled() or ended.exception() or ended.result().reply is None:
                self._forget(query)  # a failure is not an answer to share

        task.add_done_callback(settle)

    def _forget(self, query: _SharedQuery) -> None:
        if self._shared.get(query.key) is query:
            del self._shared[query.key]

    async def _run(
        self, request: QueryRequest, index: int, errand: Errand, reservation: Reservation
    ) -> Outcome:
        async with errand.slot():
            self._account.charge(reservation, errand.counts)
            self._tell_started(request, index, is_repeat=False)
            started_s = time.monotonic()
            outcome = Outcome(failure=CANCELLED)
            try:
                outcome = await errand.run(reservation)
            finally:
                self._tell_ended(request.query_id, index, outcome, started_s, is_repeat=False)
        return outcome

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
        context = request.child_context
        self._tell(
            QueryStarted(
                run_id=self._run_id,
                query_id=request.query_id,
                prompt_index=index,
                cell_id=request.cell_id,
                prompt=request.prompts[index],
                kind=request.kind,
                model=self._answerers[request.kind].model_name(request),
                tool_name=request.tool_name,
                context_chars=0 if context is None else context.total_chars,
                json_schema=request.json_schema,
                is_repeat=is_repeat,
            )
        )

    def _tell_repeat_ended(
        self, query_id: QueryId, index: int, query: _SharedQuery, started_s: float
    ) -> None:
        outcome = Outcome(failure=CANCELLED)
        if query.task.done() and not query.task.cancelled():
            outcome = query.task.result()
        if outcome.reply is not None:
            reply = ModelReply(text=outcome.reply.text, was_cut=outcome.reply.was_cut)
            outcome = replace(outcome, reply=reply)
        self._tell_ended(query_id, index, outcome, started_s, is_repeat=True)

    def _tell_ended(
        self,
        query_id: QueryId,
        index: int,
        outcome: Outcome,
        started_s: float,
        *,
        is_repeat: bool,
    ) -> None:
        self._tell(
            QueryEnded(
                run_id=self._run_id,
                query_id=query_id,
                prompt_index=index,
                reply=outcome.reply,
                failure=outcome.failure,
                wall_s=time.monotonic() - started_s,
                is_repeat=is_repeat,
                notice=outcome.notice,
            )
        )


def _noted(outcome: Outcome, notice: str) -> Outcome:
    """Returns an outcome with one more thing that the cell is told."""
    if not notice:
        return outcome
    return replace(outcome, notice=f"{notice}; {outcome.notice}" if outcome.notice else notice)


def _as_plain(request: QueryRequest) -> QueryRequest:
    """Returns what the sub-model is asked in place of a child run: question and context in one."""
    context = request.child_context
    prompts = (
        request.prompts
        if context is None
        else tuple(_joined(prompt, context) for prompt in request.prompts)
    )
    return replace(request, kind=QueryKind.PLAIN, prompts=prompts, child_context=None)


def _joined(question: str, context: EncodedContext) -> str:
    text = context.data.decode("utf-8", "replace")
    return f"{question}\n\n{text}" if question.strip() else text
