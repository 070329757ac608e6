"""What a reply says, whichever way an endpoint was asked.

Without it each way of asking would have its own idea of a reply, and an endpoint's sloppiness (no
usage, a count that is text) would be the root loop's business.
"""

from __future__ import annotations

from dataclasses import dataclass


class NotAReplyError(Exception):
    """What came is no reply; says what is missing."""


class EndpointFailedError(Exception):
    """The endpoint says, where a reply should be, that it failed.

    Attributes:
        error: What it says, as an error's body has it.
    """

    def __init__(self, error: dict[str, object]) -> None:
        """Keeps the provider's words, which are not fit to be shown."""
        super().__init__("the endpoint reports a failure")
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointReply:
    """A reply as read.

    Attributes:
        text: The answer without reasoning.
        was_cut: Whether it ended at a length limit.
        was_filtered: Whether a content filter left nothing of it.
        begins_in_reasoning: Whether it began with reasoning that no tag opens.
        prompt_tokens: All prompt tokens; 0 where not reported, like the following.
        cached_prompt_tokens: Those of them that were read from the provider's cache.
        cache_write_tokens: Those of them that were written to it.
        completion_tokens: All completion tokens, reasoning included.
    """

    text: str
    was_cut: bool = False
    was_filtered: bool = False
    begins_in_reasoning: bool = False
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    cache_write_tokens: int = 0
    completion_tokens: int = 0


def table_at(parent: object, key: str) -> dict[str, object]:
    """Returns the object at `key`; an empty one for whatever is none."""
    table = parent.get(key) if isinstance(parent, dict) else None
    return table if isinstance(table, dict) else {}


def count_at(table: dict[str, object], key: str) -> int:
    """Returns the number at `key`; 0 for whatever counts nothing."""
    count = table.get(key)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def text_at(table: dict[str, object], key: str) -> str:
    """Returns the text at `key`; an empty one for whatever is none."""
    text = table.get(key)
    return text if isinstance(text, str) else ""
