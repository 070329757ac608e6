"""How many tokens a text takes, before the provider has counted them.

Without it nothing could be set aside for a request before it is sent. The estimate is meant to be
too high rather than too low: what is set aside for nothing comes back with the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.chat import Message, ModelReply

#: English prose has 4 bytes and more a token, source code about 3, by the tokenizers in use.
BYTES_PER_TOKEN = 3.0
#: What a chat format puts around a message, and around a chat.
_MESSAGE_TOKENS = 8
_CHAT_TOKENS = 16
#: A ratio seen once may be exceeded by the next text.
_MARGIN = 1.1
#: Of shorter prompts the chat format is a large part, and says little about text.
_TELLING_BYTES = 2_000


class TokenEstimator:
    """Estimates tokens for each model, and learns from what providers report."""

    def __init__(self) -> None:
        """Begins with what holds for most tokenizers."""
        self._tokens_per_byte: dict[str, float] = {}

    def prompt_tokens(self, model: str, messages: Sequence[Message]) -> int:
        """Returns about the most tokens that a chat takes."""
        return self._tokens(model, _size_bytes(messages)) + (
            _CHAT_TOKENS + _MESSAGE_TOKENS * len(messages)
        )

    def text_tokens(self, model: str, text: str) -> int:
        """Returns about the most tokens that a text takes by itself."""
        return self._tokens(model, len(text.encode(errors="replace")))

    def learn(self, model: str, messages: Sequence[Message], reply: ModelReply) -> None:
        """Takes in what a provider counted: a text like it shall not be underestimated again."""
        size_bytes = _size_bytes(messages)
        if reply.is_estimated or size_bytes < _TELLING_BYTES:
            return
        seen = _MARGIN * reply.prompt_tokens / size_bytes
        # More tokens than bytes is no count of tokens.
        self._tokens_per_byte[model] = min(max(self._ratio(model), seen), 1.0)

    def _tokens(self, model: str, size_bytes: int) -> int:
        return math.ceil(size_bytes * self._ratio(model))

    def _ratio(self, model: str) -> float:
        return self._tokens_per_byte.get(model, 1 / BYTES_PER_TOKEN)


def _size_bytes(messages: Sequence[Message]) -> int:
    return sum(len(message.content.encode(errors="replace")) for message in messages)
