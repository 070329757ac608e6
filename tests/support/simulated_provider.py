"""A provider that bills: what the ledger is held against.

It counts tokens in its own way, always fewer than are estimated beforehand; it keeps to the bound
of a reply that it is sent; and it bills what it has done, whether an answer came of it or not.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.price import Price

#: Of a reply's token: it prints four bytes, as most do.
WORD = "word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the provider does with a request.

    Attributes:
        token_count: The reply's length, as far as the request's bound lets it.
        token_s: Seconds for each token.
        failure_count: How many requests with this prompt fail first.
        fails_after: How many tokens have been made by then; None fails at once, unbilled.
        retry_after_s: What it asks to wait for then.
        refuses: Whether it refuses for good.
    """

    token_count: int = 5
    token_s: float = 0.1
    failure_count: int = 0
    fails_after: int | None = None
    retry_after_s: float | None = None
    refuses: bool = False


@dataclass(slots=True, kw_only=True)
class SimulatedProvider:
    """A `ModelClient` that behaves by prompt.

    Attributes:
        behaviours: By the number a prompt begins with, modulo how many there are.
        billed_usd: What it will ask for.
        billed_prompt_tokens: Likewise.
        billed_completion_tokens: Likewise.
        open_count: Requests under way.
    """

    behaviours: list[Behaviour]
    name: str = "simulated"
    is_scripted: bool = False
    price: Price = field(default_factory=lambda: Price(prompt_usd=1.0, completion_usd=4.0))
    billed_usd: float = 0.0
    billed_prompt_tokens: int = 0
    billed_completion_tokens: int = 0
    open_count: int = 0
    _tries: dict[str, int] = field(default_factory=dict)

    @property
    def facts(self) -> ModelFacts:
        """See `ModelClient.facts`."""
        return ModelFacts(price=self.price, window_tokens=100_000, max_completion_tokens=1_000)

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Answers token by token, and bills each."""
        prompt = request.messages[-1].content
        behaviour = self.behaviours[int(prompt.split()[0]) % len(self.behaviours)]
        tries = self._tries[prompt] = self._tries.get(prompt, 0) + 1
        if behaviour.refuses:
            raise ModelRefusedError("no", model=self.name)
        fails = tries <= behaviour.failure_count
        if fails and behaviour.fails_after is None:
            raise self._failure(behaviour, received=None)
        prompt_tokens = self._count(request.messages)
        self._bill(prompt_tokens=prompt_tokens)
        bound = behaviour.token_count
        if request.max_completion_tokens is not None:
            bound = min(bound, request.max_completion_tokens)
        if fails and behaviour.fails_after is not None:
            bound = min(bound, behaviour.fails_after)
        made = await self._make(bound, behaviour.token_s, on_text)
        if fails:
            raise self._failure(behaviour, received=WORD * made if on_text else "")
        return ModelReply(
            text=WORD * made,
            prompt_tokens=prompt_tokens,
            completion_tokens=made,
            cost_usd=self.price.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=made),
            was_cut=made < behaviour.token_count,
        )

    async def aclose(self) -> None:
        """Holds nothing."""

    async def _make(self, bound: int, token_s: float, on_text: TextSink | None) -> int:
        self.open_count += 1
        try:
            for made in range(bound):
                await asyncio.sleep(token_s)
                self._bill(completion_tokens=1)
                if on_text is not None and not on_text(WORD):
                    return made + 1
        finally:
            self.open_count -= 1
        return bound

    def _bill(self, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        self.billed_prompt_tokens += prompt_tokens
        self.billed_completion_tokens += completion_tokens
        self.billed_usd += self.price.cost_usd(
            prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )

    def _count(self, messages: tuple[Message, ...]) -> int:
        return sum(math.ceil(len(message.content) / 4) + 4 for message in messages)

    def _failure(self, behaviour: Behaviour, *, received: str | None) -> ModelUnavailableError:
        return ModelUnavailableError(
            "busy",
            model=self.name,
            retry_after_s=behaviour.retry_after_s,
            may_be_billed=received is not None,
            received_text=received or "",
        )
