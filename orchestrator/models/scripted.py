"""Models that ask nobody: one replays replies, one answers with its prompt.

Without them neither a test nor a machine without a provider's key could drive a run from end to
end. A run that uses one says so (`ModelClient.is_scripted`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelUnavailableError
from orchestrator.price import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedReply:
    """One reply of a script.

    Attributes:
        text: What the model answers.
        contains: The reply answers every prompt that holds these characters; None means it is used
            once, in its turn.
        delay_s: Seconds the model takes for it.
    """

    text: str
    contains: str | None = None
    delay_s: float = 0.0


class ScriptedModel:
    """Replays replies. Concurrent calls are served in the order in which they were made."""

    is_scripted = True
    facts = ModelFacts(price=Price(prompt_usd=0.0, completion_usd=0.0))

    def __init__(
        self,
        *,
        name: str,
        part: Literal["root", "sub"],
        replies: Sequence[ScriptedReply],
        echoes_rest: bool = False,
    ) -> None:
        """Makes a model that starts at the first reply.

        Args:
            name: What it is reported as.
            part: Which tables of the script the replies come from, for the error that says which
                one is missing.
            replies: What it answers.
            echoes_rest: Whether it answers with the prompt where no reply is left, instead of
                failing.
        """
        self.name = name
        self._part = part
        self._matching = tuple(reply for reply in replies if reply.contains is not None)
        self._in_order = tuple(reply for reply in replies if reply.contains is None)
        self._echoes_rest = echoes_rest
        self._used_count = 0
        self._request_count = 0

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Returns the script's reply to the last user message; costs nothing.

        Raises:
            ModelUnavailableError: The script has no reply left for it. The message says which
                request it was and which table to add.
        """
        self._request_count += 1
        reply = self._reply_to(_last_user_text(request.messages))
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        return _told(reply.text, on_text)

    async def aclose(self) -> None:
        """Does nothing: there is nothing to free."""

    def _reply_to(self, prompt: str) -> ScriptedReply:
        for reply in self._matching:
            if reply.contains is not None and reply.contains in prompt:
                return reply
        if self._used_count < len(self._in_order):
            self._used_count += 1
            return self._in_order[self._used_count - 1]
        if self._echoes_rest:
            return ScriptedReply(text=prompt)
        message = (
            f"expected a reply for request {self._request_count} to the {self._part} model of "
            f"{self.name}, but the script holds {len(self._in_order)} [[{self._part}]] replies to "
            f"be used in order and all are used; add a [[{self._part}]] table"
        )
        raise ModelUnavailableError(message, model=self.name)


class EchoModel:
    """Answers with the prompt: what `rlm exec` asks where no model is named."""

    name = "echo"
    is_scripted = True
    facts = ModelFacts(price=Price(prompt_usd=0.0, completion_usd=0.0))

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Returns the text of the last user message; costs nothing."""
        return _told(_last_user_text(request.messages), on_text)

    async def aclose(self) -> None:
        """Does nothing: there is nothing to free."""


def _told(text: str, on_text: TextSink | None) -> ModelReply:
    """Returns a reply, told of as a model does that cannot tell it piece by piece."""
    if on_text is not None:
        on_text(text)
    return ModelReply(text=text, cost_usd=0.0)


def _last_user_text(messages: Sequence[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "user"), "")
