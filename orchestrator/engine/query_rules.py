"""What a query may be, decided before anything is paid for.

Without it a loop gone wrong in a cell would find its limit at the provider, as a bill.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.domain import QueryFailure, QueryFailureReason, QueryRequest

_SHOWN_ALIAS_CHARS = 64  # the wire's own bound for an alias


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRules:
    """What queries of one run may be.

    Attributes:
        default_alias: The model asked where a cell names none.
        prompt_chars: Characters one prompt may have.
        batch_prompt_count: Prompts one request may have.
        max_completion_tokens: Bound of each answer; None leaves it to the provider.
        answers_repeats_once: Whether a prompt that was asked before in the run gets the same
            answer, at no cost, instead of a new one.
    """

    default_alias: str
    prompt_chars: int
    batch_prompt_count: int
    max_completion_tokens: int | None
    answers_repeats_once: bool

    def reason_to_refuse(
        self, request: QueryRequest, *, aliases: Collection[str]
    ) -> QueryFailure | None:
        """Returns why a whole request is refused, or None."""
        if request.model_alias and request.model_alias not in aliases:
            return QueryFailure(
                reason=QueryFailureReason.MODEL_REFUSED,
                message=f"no model is called {request.model_alias[:_SHOWN_ALIAS_CHARS]!r} here; "
                f"leave `model` out, or use one of: {', '.join(sorted(aliases))}",
            )
        if len(request.prompts) > self.batch_prompt_count:
            return QueryFailure(
                reason=QueryFailureReason.TOO_MANY,
                message=f"{len(request.prompts)} prompts in one call, at most "
                f"{self.batch_prompt_count} are taken; send fewer, longer prompts",
            )
        return None

    def too_large(self, request: QueryRequest) -> dict[int, QueryFailure]:
        """Returns why single prompts are refused, by their index."""
        return {
            index: QueryFailure(
                reason=QueryFailureReason.TOO_LARGE,
                message=f"a prompt of {len(prompt):,} characters, at most "
                f"{self.prompt_chars:,} are taken; cut it into pieces",
            )
            for index, prompt in enumerate(request.prompts)
            if len(prompt) > self.prompt_chars
        }
