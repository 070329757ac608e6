"""What a cell catches when a query fails. Without it a failed prompt would look like an answer."""

from __future__ import annotations

from collections.abc import Sequence


class QueryError(Exception):
    """A prompt got no answer. Its text says what to do; `reason` is for programs."""

    reason = "model_failed"


class BudgetExhaustedError(QueryError):
    """The run has spent what it may."""

    reason = "budget_exhausted"


class RecursionTooDeepError(QueryError):
    """No child run may be started from here."""

    reason = "too_deep"


class PromptTooLargeError(QueryError):
    """A prompt is longer than the sub-model takes."""

    reason = "too_large"


class TooManyPromptsError(QueryError):
    """More prompts in one call than are allowed."""

    reason = "too_many"


class ModelFailedError(QueryError):
    """The model did not answer; the orchestrator has tried again already."""

    reason = "model_failed"


class ModelRefusedError(QueryError):
    """The model refused; trying again will not help."""

    reason = "model_refused"


class QueryCancelledError(QueryError):
    """The cell or the run ended first."""

    reason = "cancelled"


_BY_REASON: dict[str, type[QueryError]] = {
    error.reason: error
    for error in (
        BudgetExhaustedError,
        RecursionTooDeepError,
        PromptTooLargeError,
        TooManyPromptsError,
        ModelFailedError,
        ModelRefusedError,
        QueryCancelledError,
    )
}


def query_error(reason: str, message: str) -> QueryError:
    """Makes the exception for a reason of the contract; an unknown one is a failed model."""
    return _BY_REASON.get(reason, ModelFailedError)(message)


class QueryBatchError(ExceptionGroup[QueryError]):
    """Some prompts of a batch got no answer.

    Attributes:
        answers: As many entries as prompts, in order: the answer, or None where there is none.
    """

    answers: list[str | None]

    @classmethod
    def of(cls, outcomes: Sequence[str | QueryError]) -> QueryBatchError:
        """Makes the group for a batch in which at least one prompt failed."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, QueryError)]
        error = cls(
            f"{len(failures)} of {len(outcomes)} prompts got no answer (the others are in "
            ".answers; return_errors=True puts errors in place)",
            failures,
        )
        error.answers = [
            None if isinstance(outcome, QueryError) else outcome for outcome in outcomes
        ]
        return error
