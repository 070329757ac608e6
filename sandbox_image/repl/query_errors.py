"""What a cell catches when a query fails. Without it a failed prompt would look like an answer."""

from __future__ import annotations

from collections.abc import Sequence

#: How many different reasons the text of a failed batch has.
_SHOWN_REASONS = 3


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


class ToolError(QueryError):
    """A function of the session gave no result."""

    reason = "tool_failed"


class AnswerFormatError(QueryError):
    """An answer does not fit its JSON Schema, asked for a second time too.

    Attributes:
        text: The answer as it came.
    """

    reason = "bad_format"
    text = ""


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
        ToolError,
        QueryCancelledError,
    )
}


#: By their names: a model that has read one in a traceback writes it into its next `except`.
ERRORS_BY_NAME: dict[str, type[QueryError]] = {
    "QueryError": QueryError,
    "AnswerFormatError": AnswerFormatError,
    **{error.__name__: error for error in _BY_REASON.values()},
}


def query_error(reason: str, message: str) -> QueryError:
    """Makes the exception for a reason of the contract; an unknown one is a failed model."""
    return _BY_REASON.get(reason, ModelFailedError)(message)


class QueryBatchError(ExceptionGroup[QueryError], QueryError):
    """Some prompts of a batch got no answer. What catches `QueryError` catches it too.

    Attributes:
        answers: As many entries as prompts, in order: the answer, or None where there is none.
    """

    reason = "batch"
    answers: list[str | None]

    @classmethod
    def of(cls, outcomes: Sequence[str | QueryError]) -> QueryBatchError:
        """Makes the group for a batch in which at least one prompt failed."""
        failures = [outcome for outcome in outcomes if isinstance(outcome, QueryError)]
        # `print(error)` is what models do with it: the reasons have to be in there.
        reasons = list(dict.fromkeys(str(failure) for failure in failures))
        more = (
            f"; and {len(reasons) - _SHOWN_REASONS} more" if len(reasons) > _SHOWN_REASONS else ""
        )
        error = cls(
            f"{len(failures)} of {len(outcomes)} prompts got no answer: "
            f"{'; '.join(reasons[:_SHOWN_REASONS])}{more} (the others are in .answers; "
            "return_errors=True puts errors in place)",
            failures,
        )
        error.answers = [
            None if isinstance(outcome, QueryError) else outcome for outcome in outcomes
        ]
        return error
