"""Answers prompts with one reply of a sub-model each.

Without it what a provider says of its failures would reach a cell, keys and addresses included.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence

from orchestrator.chat import Message, ModelRequest
from orchestrator.domain import QueryFailure, QueryFailureReason, QueryRequest, RunId
from orchestrator.engine.account import Account
from orchestrator.engine.errands import Errand, Outcome
from orchestrator.engine.ledger import Amounts, Reservation
from orchestrator.engine.paid_model import PaidModel, PlannedRequest
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.slots import Slots
from orchestrator.errors import ModelError, ModelRefusedError
from orchestrator.events import RunEvent

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
_CUT = "an answer was cut off at its length limit; ask for less in one answer"
_COUNTS = Amounts(queries=1)


class PlainQueries:
    """An `Answerer` that asks a model once for each prompt."""

    def __init__(  # noqa: PLR0913 - what an answer is made of, each named at the call
        self,
        *,
        models: Mapping[str, PaidModel],
        account: Account,
        slots: Slots,
        rules: QueryRules,
        run_id: RunId,
        tell: Callable[[RunEvent], None],
        on_behalf_of: str,
    ) -> None:
        """Joins the parts.

        Args:
            models: The models cells may ask, by alias.
            account: Pays.
            slots: Of the tree.
            rules: What queries may be.
            run_id: For events.
            tell: Told of requests that failed.
            on_behalf_of: See `ModelRequest`.
        """
        self._models = models
        self._account = account
        self._slots = slots
        self._rules = rules
        self._run_id = run_id
        self._tell = tell
        self._on_behalf_of = on_behalf_of

    @property
    def remembers(self) -> bool:
        """See `Answerer.remembers`."""
        return self._rules.answers_repeats_once

    def model_name(self, request: QueryRequest) -> str:
        """See `Answerer.model_name`."""
        return self._model(request).name

    def key(self, request: QueryRequest, prompt: str) -> tuple[str, ...]:
        """See `Answerer.key`."""
        # A digest, because the prompts of a run may be hundreds of megabytes together.
        # "surrogatepass": a prompt is any str a cell can make.
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
        return (self.model_name(request), request.json_schema, digest)

    def errands(self, request: QueryRequest, prompts: Sequence[tuple[int, str]]) -> list[Errand]:
        """See `Answerer.errands`."""
        model = self._model(request)
        planned = model.plan(
            [
                ModelRequest(
                    messages=(Message("user", _with_schema(prompt, request.json_schema)),),
                    max_completion_tokens=self._rules.max_completion_tokens,
                    json_schema=request.json_schema,
                    on_behalf_of=self._on_behalf_of,
                )
                for _, prompt in prompts
            ],
            ledger=self._account.ledger,
            extra=_COUNTS,
        )
        return [self._errand(model, each) for each in planned]

    def _errand(self, model: PaidModel, planned: PlannedRequest) -> Errand:
        async def run(reservation: Reservation) -> Outcome:
            return await self._ask(model, planned, reservation)

        return Errand(amounts=planned.amounts, counts=_COUNTS, slot=self._slots.query, run=run)

    async def _ask(
        self, model: PaidModel, planned: PlannedRequest, reservation: Reservation
    ) -> Outcome:
        try:
            reply = await model.ask(
                planned,
                reservation,
                account=self._account,
                run_id=self._run_id,
                tell=self._tell,
            )
        except ModelError as error:
            _logger.warning("a query failed: %s", error)
            return Outcome(failure=failure_of(error))
        return Outcome(reply=reply, notice=_CUT if reply.was_cut else "")

    def _model(self, request: QueryRequest) -> PaidModel:
        return self._models[request.model_alias or self._rules.default_alias]


def failure_of(error: ModelError) -> QueryFailure:
    """Returns what is said of a prompt that a model did not answer."""
    if isinstance(error, ModelRefusedError):
        return QueryFailure(reason=QueryFailureReason.MODEL_REFUSED, message=_REFUSED)
    return QueryFailure(reason=QueryFailureReason.MODEL_FAILED, message=_UNAVAILABLE)


def _with_schema(prompt: str, json_schema: str) -> str:
    if not json_schema:
        return prompt
    return (
        f"{prompt}\n\nReply with JSON that fits this JSON Schema, and with nothing else:\n"
        f"{json_schema}"
    )
