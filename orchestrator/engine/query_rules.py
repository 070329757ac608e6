"""What a query may be, decided before anything is paid for.

Without it a loop gone wrong in a cell would find its limit at the provider, as a bill.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.domain import QueryFailure, QueryFailureReason, QueryKind, QueryRequest
from orchestrator.limits import QueryLimits

_SHOWN_ALIAS_CHARS = 64  # the wire's own bound for an alias
#: A longer schema would take more of the prompt than the text it is about.
MAX_SCHEMA_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRules:
    """What queries of one run may be.

    Attributes:
        limits: Sizes and numbers.
        default_alias: The model asked where a cell names none.
        max_completion_tokens: Bound of each answer; None leaves it to the provider.
        answers_repeats_once: Whether a prompt that was asked before in the run gets the same
            answer, at no cost, instead of a new one.
    """

    limits: QueryLimits
    default_alias: str
    max_completion_tokens: int | None
    answers_repeats_once: bool

    def reason_to_refuse(
        self, request: QueryRequest, *, aliases: Collection[str], tools: Collection[str]
    ) -> QueryFailure | None:
        """Returns why a whole request is refused, or None."""
        if request.kind is QueryKind.TOOL and request.tool_name not in tools:
            known = ", ".join(sorted(tools)) or "none"
            return QueryFailure(
                reason=QueryFailureReason.TOOL_FAILED,
                message=f"no tool is called {request.tool_name[:_SHOWN_ALIAS_CHARS]!r} here; "
                f"there are: {known}",
            )
        if request.model_alias and request.model_alias not in aliases:
            return QueryFailure(
                reason=QueryFailureReason.MODEL_REFUSED,
                message=f"no model is called {request.model_alias[:_SHOWN_ALIAS_CHARS]!r} here; "
                f"leave `model` out, or use one of: {', '.join(sorted(aliases))}",
            )
        if len(request.prompts) > self.limits.batch_prompts:
            return QueryFailure(
                reason=QueryFailureReason.TOO_MANY,
                message=f"{len(request.prompts)} prompts in one call, at most "
                f"{self.limits.batch_prompts} are taken; send fewer, longer prompts",
            )
        if len(request.json_schema) > MAX_SCHEMA_CHARS:
            return QueryFailure(
                reason=QueryFailureReason.TOO_LARGE,
                message=f"a schema of {len(request.json_schema):,} characters, at most "
                f"{MAX_SCHEMA_CHARS:,} are taken; ask for less in one answer",
            )
        return None

    def too_large(self, request: QueryRequest) -> dict[int, QueryFailure]:
        """Returns why single prompts are refused, by their index."""
        return {
            index: QueryFailure(
                reason=QueryFailureReason.TOO_LARGE,
                message=f"a prompt of {len(prompt):,} characters, at most "
                f"{self.limits.prompt_chars:,} are taken; cut it into pieces",
            )
            for index, prompt in enumerate(request.prompts)
            if len(prompt) > self.limits.prompt_chars
        }
