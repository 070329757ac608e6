"""What is said to a model and what comes back.

Without it each client of a provider and each caller of a model would have its own idea of what a
request is, and of what counts as spent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from orchestrator.price import Price

Role: TypeAlias = Literal["system", "user", "assistant"]

#: Takes each piece of a reply as it comes; False ends the request then and there. Must not block.
TextSink: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat with a model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One chat to be answered.

    Attributes:
        messages: In order; the last one is the user's.
        max_completion_tokens: Bound of the reply, reasoning included; None leaves it to the
            provider.
        json_schema: A JSON Schema, as text, that the reply shall fit; empty for free text. A
            provider that takes schemas is given it; that the reply fits is never promised.
        on_behalf_of: Whose turn it is where requests wait for one: a provider's limits are shared
            evenly among these.
    """

    messages: tuple[Message, ...]
    max_completion_tokens: int | None = None
    json_schema: str = ""
    on_behalf_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model before it is asked. None: not known.

    Attributes:
        price: What its tokens cost.
        window_tokens: Prompt and completion together.
        max_completion_tokens: The longest reply it gives.
    """

    price: Price | None = None
    window_tokens: int | None = None
    max_completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What a model answered, and what it took.

    Attributes:
        text: The answer with reasoning parts removed; may be empty, never None.
        prompt_tokens: As reported by the provider; 0 where it reports none.
        completion_tokens: Likewise; reasoning tokens included.
        cached_prompt_tokens: Of the prompt tokens those that the provider had read before.
        cost_usd: Money, or None where no price is known for the model.
        was_cut: Whether it ended at a length limit, the provider's or the budget's.
        is_estimated: Whether the tokens were estimated here, because the provider did not report
            them: the money then is an estimate as well.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    cost_usd: float | None = None
    was_cut: bool = False
    is_estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What one model was used for in a run.

    Attributes:
        request_count: Requests that were answered.
        prompt_tokens: Of answered requests.
        completion_tokens: Likewise, reasoning included.
        cached_prompt_tokens: Of the prompt tokens those that cost less because they were cached.
        cost_usd: Money; None where no price is known.
        estimated_count: Of the requests those whose tokens the provider did not report.
        unanswered_count: Requests that may be billed although no answer came: cancelled, timed out.
        unanswered_usd: What those are taken to cost at most; on top of `cost_usd`.
    """

    request_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    cost_usd: float | None = None
    estimated_count: int = 0
    unanswered_count: int = 0
    unanswered_usd: float = 0.0

    def plus(self, reply: ModelReply) -> ModelUsage:
        """Returns the usage with one more reply in it; an unknown price leaves the cost alone."""
        cost = self.cost_usd
        if reply.cost_usd is not None:
            cost = (cost or 0.0) + reply.cost_usd
        return ModelUsage(
            request_count=self.request_count + 1,
            prompt_tokens=self.prompt_tokens + reply.prompt_tokens,
            completion_tokens=self.completion_tokens + reply.completion_tokens,
            cached_prompt_tokens=self.cached_prompt_tokens + reply.cached_prompt_tokens,
            cost_usd=cost,
            estimated_count=self.estimated_count + reply.is_estimated,
            unanswered_count=self.unanswered_count,
            unanswered_usd=self.unanswered_usd,
        )

    def plus_unanswered(self, *, usd: float) -> ModelUsage:
        """Returns the usage with one more request in it that may be billed for nothing."""
        return replace(
            self,
            unanswered_count=self.unanswered_count + 1,
            unanswered_usd=self.unanswered_usd + usd,
        )
