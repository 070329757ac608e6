"""What a request costs, by model name.

Without it a run could not say what it spent. The figures are OpenAI's list prices for its standard
tier; a model that is not listed has no price here, because a guess on a bill is worse than none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The day of the youngest copy the prices below were compared with.
PRICES_AS_OF = "2026-10-04"
#: Whose prices they are. They were taken from dated public copies of that page, not from the page.
PRICES_SOURCE = "https://developers.openai.com/api/docs/pricing (standard tier)"

_TOKENS_PER_PRICE = 1_000_000
# A snapshot is named by its family and the day it was cut: `gpt-4o-2024-08-06`.
_SNAPSHOT_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
# Above this many prompt tokens the source's "long context" columns apply to the whole request.
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


def _tiered(
    prompt_usd: float, cached_usd: float, completion_usd: float, *, write_usd: float | None = None
) -> Price:
    """Returns the price of a model with a window above 272,000 tokens."""
    return Price(
        prompt_usd=prompt_usd,
        cached_prompt_usd=cached_usd,
        cache_write_usd=write_usd,
        completion_usd=completion_usd,
        has_long_prompt_rate=True,
    )


def _flat(prompt_usd: float, cached_usd: float | None, completion_usd: float) -> Price:
    """Returns the price of a model that costs the same at every length."""
    return Price(prompt_usd=prompt_usd, cached_prompt_usd=cached_usd, completion_usd=completion_usd)


_PRICES = {
    "gpt-6-astra": _tiered(10.00, 1.00, 50.00, write_usd=12.50),
    "gpt-6.1-sol": _tiered(2.00, 0.10, 10.00, write_usd=2.50),
    "gpt-6-sol": _tiered(2.00, 0.20, 10.00, write_usd=2.50),
    "gpt-6-luna": _tiered(0.10, 0.01, 0.50, write_usd=0.125),
    "gpt-5.6-sol": _tiered(4.00, 0.40, 20.00, write_usd=5.00),
    "gpt-5.6-terra": _tiered(2.00, 0.20, 12.00, write_usd=2.50),
    "gpt-5.6-luna": _tiered(0.20, 0.02, 1.20, write_usd=0.25),
    "gpt-5.5": _tiered(5.00, 0.50, 30.00),
    "gpt-5.4": _tiered(2.50, 0.25, 15.00),
    "gpt-5.4-mini": _flat(0.75, 0.075, 4.50),
    "gpt-5.4-nano": _flat(0.20, 0.02, 1.25),
    "gpt-5.2": _flat(1.75, 0.175, 14.00),
    "gpt-5.1": _flat(1.25, 0.125, 10.00),
    "gpt-5": _flat(1.25, 0.125, 10.00),
    "gpt-5-mini": _flat(0.25, 0.025, 2.00),
    "gpt-5-nano": _flat(0.05, 0.005, 0.40),
    "gpt-4.1": _flat(2.00, 0.50, 8.00),
    "gpt-4.1-mini": _flat(0.40, 0.10, 1.60),
    "gpt-4.1-nano": _flat(0.10, 0.025, 0.40),
    "gpt-4o": _flat(2.50, 1.25, 10.00),
    "gpt-4o-2024-05-13": _flat(5.00, None, 15.00),  # costs more than its family
    "gpt-4o-mini": _flat(0.15, 0.075, 0.60),
    "o4-mini": _flat(1.10, 0.275, 4.40),
    "o3": _flat(2.00, 0.50, 8.00),
    "o3-mini": _flat(1.10, 0.55, 4.40),
    "o1": _flat(15.00, 7.50, 60.00),
}


def price_of(model_name: str) -> Price | None:
    """Returns what `model_name` costs at OpenAI, or None where that is not known.

    A dated snapshot costs what its family does unless it is listed itself. Nothing else is
    inferred: `gpt-5-anything` is not `gpt-5`.
    """
    return _PRICES.get(model_name) or _PRICES.get(_SNAPSHOT_DATE.sub("", model_name))
