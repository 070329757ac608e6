"""Answers `rlm_query`: a run of its own for each, in its own sandbox, on the same ledger.

Without it a question that needs code and queries of its own would have to be answered by one reply.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from orchestrator.chat import ModelReply
from orchestrator.domain import (
    AnswerSource,
    EncodedContext,
    FinishReason,
    QueryFailureReason,
    QueryId,
    QueryRequest,
)
from orchestrator.engine.errands import Errand, Outcome
from orchestrator.engine.ledger import Amounts, Reservation
from orchestrator.engine.result import RunResult
from orchestrator.engine.slots import Slots
from orchestrator.errors import InputError, ModelError, SandboxError

_logger = logging.getLogger(__name__)

_COUNTS = Amounts(child_runs=1)
_LIMITS = {
    FinishReason.TURN_LIMIT,
    FinishReason.QUERY_LIMIT,
    FinishReason.COST_LIMIT,
    FinishReason.TOKEN_LIMIT,
    FinishReason.TIME_LIMIT,
}
_SOURCES = {
    AnswerSource.DRAFT: "its draft",
    AnswerSource.LAST_REQUEST: "its best guess",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOrder:
    """What a child run is asked, and which prompt of which query it answers."""

    question: str
    context: EncodedContext
    query_id: QueryId
    prompt_index: int


#: Runs a child run to its end; cancelling the call destroys its sandbox.
StartChild = Callable[[ChildOrder], Awaitable[RunResult]]


class ChildRuns:
    """An `Answerer` that starts a run for each prompt."""

    def __init__(
        self,
        *,
        start: StartChild,
        root_model_name: str,
        depth: int,
        slots: Slots,
        remembers: bool,
    ) -> None:
        """Joins the parts.

        Args:
            start: Runs one.
            root_model_name: Who writes the cells of child runs.
            depth: Of the child runs.
            slots: Of the tree.
            remembers: Whether the same question over the same context is answered once.
        """
        self._start = start
        self._root_model_name = root_model_name
        self._depth = depth
        self._slots = slots
        self.remembers = remembers

    def model_name(self, request: QueryRequest) -> str:
        """See `Answerer.model_name`."""
        del request
        return self._root_model_name

    def key(self, request: QueryRequest, prompt: str) -> tuple[str, ...]:
        """See `Answerer.key`."""
        digest = "" if request.child_context is None else request.child_context.sha256_hex
        return ("child run", digest, prompt)

    def errands(self, request: QueryRequest, prompts: Sequence[tuple[int, str]]) -> list[Errand]:
        """See `Answerer.errands`."""
        return [
            self._errand(
                ChildOrder(
                    question=prompt,
                    context=request.child_context,
                    query_id=request.query_id,
                    prompt_index=index,
                )
            )
            for index, prompt in prompts
            if request.child_context is not None
        ]

    def _errand(self, order: ChildOrder) -> Errand:
        async def run(_reservation: Reservation) -> Outcome:
            return await self._run(order)

        return Errand(
            amounts=_COUNTS,
            counts=_COUNTS,
            slot=lambda: self._slots.child_run(self._depth),
            run=run,
        )

    async def _run(self, order: ChildOrder) -> Outcome:
        try:
            result = await self._start(order)
        except InputError as error:
            return Outcome.failed(QueryFailureReason.TOO_LARGE, str(error))
        except (ModelError, SandboxError) as error:
            _logger.warning("a child run failed: %s", error)
            return Outcome.failed(
                QueryFailureReason.MODEL_FAILED,
                "the child run could not be started; use llm_query on pieces of the text, or go on "
                "without",
            )
        if result.answer_source is AnswerSource.NONE:
            reason = (
                QueryFailureReason.BUDGET_EXHAUSTED
                if result.finish_reason in _LIMITS
                else QueryFailureReason.MODEL_FAILED
            )
            why = str(result.finish_reason).replace("_", " ")
            return Outcome.failed(
                reason, f"the child run ended without an answer ({why}); ask for less, or go on"
            )
        notice = ""
        if result.finish_reason is not FinishReason.ANSWERED:
            why = str(result.finish_reason).replace("_", " ")
            what = _SOURCES.get(result.answer_source, "not final")
            notice = f"a child run ended by its {why}; its answer is {what}, not a final one"
        # Tokens and money are in the child run's own events.
        return Outcome(reply=ModelReply(text=result.answer, cost_usd=0.0), notice=notice)
