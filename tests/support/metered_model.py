"""Models whose every token is counted on their side, and which can be tripped at any request.

What a run says it spent can be held against what they have delivered, wherever it was interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelError
from orchestrator.price import Price

PRICE = Price(prompt_usd=1_000.0, completion_usd=4_000.0)


@dataclass(slots=True)
class Meter:
    """What several models have delivered together.

    Attributes:
        request_count: Requests that came, over all models.
        trips_at: The request at which something happens, counted from 0; None for none.
        trip: What happens there: an error, or None for a request that is never answered.
        tripped: Set once it has.
        delivered_prompt_tokens: Of answered requests.
        delivered_completion_tokens: Likewise.
        delivered_usd: Likewise.
    """

    trips_at: int | None = None
    trip: ModelError | None = None
    request_count: int = 0
    tripped: asyncio.Event = field(default_factory=asyncio.Event)
    delivered_prompt_tokens: int = 0
    delivered_completion_tokens: int = 0
    delivered_usd: float = 0.0


class MeteredModel:
    """A `ModelClient` that answers with a function of the chat, and keeps to its bound."""

    is_scripted = False

    def __init__(
        self, reply: Callable[[Sequence[Message]], str], *, name: str, meter: Meter
    ) -> None:
        """Counts on `meter`."""
        self.name = name
        self.facts = ModelFacts(price=PRICE, max_completion_tokens=400)
        self._reply = reply
        self._meter = meter

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Answers, or does what the meter says."""
        meter, number = self._meter, self._meter.request_count
        meter.request_count += 1
        await asyncio.sleep(0)  # lets others in, as a provider would
        if number == meter.trips_at:
            meter.tripped.set()
            if meter.trip is not None:
                raise meter.trip
            await asyncio.Event().wait()
        text = self._reply(request.messages)
        wanted = len(text) // 4 + 1
        bound = request.max_completion_tokens
        completion_tokens = wanted if bound is None else min(wanted, bound)
        # Fewer than is estimated for any text, as with most tokenizers.
        prompt_tokens = 1 + sum(len(message.content) for message in request.messages) // 5
        cost_usd = PRICE.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        meter.delivered_prompt_tokens += prompt_tokens
        meter.delivered_completion_tokens += completion_tokens
        meter.delivered_usd += cost_usd
        if completion_tokens < wanted:
            text = text[: 4 * completion_tokens]
        if on_text is not None:
            on_text(text)
        return ModelReply(
            text=text,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=cost_usd,
            was_cut=completion_tokens < wanted,
        )

    async def aclose(self) -> None:
        """Holds nothing."""
