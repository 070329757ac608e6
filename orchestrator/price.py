"""What a model's tokens cost.

Without it the ledger could not set money aside before a request is sent: it would learn what a
request cost when it is spent.
"""

from __future__ import annotations

from dataclasses import dataclass

_TOKENS_PER_PRICE = 1_000_000
# Above this many prompt tokens the "long context" columns of OpenAI's list apply to the whole
# request.
_LONG_PROMPT_TOKENS = 272_000
_LONG_PROMPT_FACTOR = 2.0
_LONG_COMPLETION_FACTOR = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs, in US dollars for a million tokens.

    Attributes:
        prompt_usd: Prompt tokens that were not cached.
        cached_prompt_usd: Prompt tokens the provider had cached; None where it gives no discount.
        cache_write_usd: Prompt tokens the provider wrote to its cache; None where that is free of
            extra charge.
        completion_usd: Completion tokens, reasoning tokens included.
        has_long_prompt_rate: Whether a request with a prompt above 272,000 tokens costs more.
    """

    prompt_usd: float
    cached_prompt_usd: float | None = None
    cache_write_usd: float | None = None
    completion_usd: float
    has_long_prompt_rate: bool = False

    def cost_usd(
        self,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_prompt_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> float:
        """Returns what one request costs.

        Args:
            prompt_tokens: All prompt tokens, cached ones included.
            completion_tokens: All completion tokens, reasoning tokens included.
            cached_prompt_tokens: How many of the prompt tokens were read from the cache.
            cache_write_tokens: How many of the prompt tokens were written to the cache.
        """
        # Reported by somebody else's server: never more than the prompt, so no term is negative.
        cached = min(cached_prompt_tokens, prompt_tokens)
        written = min(cache_write_tokens, prompt_tokens - cached)
        cached_usd = self.prompt_usd if self.cached_prompt_usd is None else self.cached_prompt_usd
        write_usd = self.prompt_usd if self.cache_write_usd is None else self.cache_write_usd
        prompt_cost = (
            (prompt_tokens - cached - written) * self.prompt_usd
            + cached * cached_usd
            + written * write_usd
        )
        completion_cost = completion_tokens * self.completion_usd
        if self.has_long_prompt_rate and prompt_tokens > _LONG_PROMPT_TOKENS:
            prompt_cost *= _LONG_PROMPT_FACTOR
            completion_cost *= _LONG_COMPLETION_FACTOR
        return (prompt_cost + completion_cost) / _TOKENS_PER_PRICE

    def most_usd(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns what one request costs at most, whatever of its prompt is cached."""
        return max(
            self.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
            self.cost_usd(
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                cache_write_tokens=prompt_tokens,
            ),
        )
