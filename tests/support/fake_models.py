"""Models that answer from a list, with delays and errors, for tests of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelError

#: A text, a whole reply, an error to raise, or a function of the messages that gives one of these.
Answer = (
    str | ModelReply | ModelError | Callable[[Sequence[Message]], "str | ModelReply | ModelError"]
)


class FakeModel:
    """A `ModelClient` that replays answers; the last one is repeated for ever.

    Attributes:
        requests: The messages of each call, in order.
        open_count: Calls under way.
        max_open_count: The most that ever were.
        cancelled_count: Calls that were cancelled.
        gate: Each call waits until it is set; set from the start unless `is_held`.
    """

    is_scripted = True

    def __init__(
        self,
        answers: Sequence[Answer],
        *,
        name: str = "fake",
        is_held: bool = False,
        facts: ModelFacts | None = None,
    ) -> None:
        """Makes a model that starts at the first answer."""
        self.name = name
        self.facts = facts or ModelFacts()
        self.requests: list[tuple[Message, ...]] = []
        self.max_completion_tokens: list[int | None] = []
        self.open_count = 0
        self.max_open_count = 0
        self.cancelled_count = 0
        self.gate = asyncio.Event()
        if not is_held:
            self.gate.set()
        self._answers = list(answers)
        self._opened = asyncio.Event()

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Gives the next answer once the gate is open."""
        messages = request.messages
        self.requests.append(messages)
        self.max_completion_tokens.append(request.max_completion_tokens)
        answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
        self.open_count += 1
        self.max_open_count = max(self.max_open_count, self.open_count)
        self._opened.set()
        try:
            await self.gate.wait()
            await asyncio.sleep(0)  # lets others in, as a provider would
        except asyncio.CancelledError:
            self.cancelled_count += 1
            raise
        finally:
            self.open_count -= 1
        outcome = answer(messages) if callable(answer) else answer
        if isinstance(outcome, ModelError):
            raise outcome
        if isinstance(outcome, str):
            outcome = ModelReply(text=outcome, prompt_tokens=10, completion_tokens=2)
        if on_text is not None:
            on_text(outcome.text)
        return outcome

    async def until_open(self, count: int) -> None:
        """Waits until `count` calls are under way.

        Raises:
            TimeoutError: They are not after five seconds.
        """
        async with asyncio.timeout(5):
            while self.open_count < count:
                self._opened.clear()
                await self._opened.wait()

    async def aclose(self) -> None:
        """Holds nothing."""
