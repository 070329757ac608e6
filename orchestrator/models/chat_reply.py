"""Reads the body of a chat completion as it really comes.

Without it an endpoint's sloppiness (no usage, content as a list, reasoning inside the text) would
be the root loop's business, and a missing field an `AttributeError` in mid-run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# "length" is OpenAI's; the others are what compatible endpoints say for the same.
_LENGTH_REASONS = {"length", "max_tokens", "model_length"}
_FENCES = ("```", "~~~")
_OPENING, _CLOSING = "<think>", "</think>"
# Some chat templates put the opening tag into the prompt, so that a reply has the closing one only.
_ORPHAN_CLOSING = re.compile(r"^[ \t]*</think>", re.MULTILINE)


class NotAReplyError(Exception):
    """The body is not a chat completion; says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What a chat completion says.

    Attributes:
        text: The answer without reasoning.
        was_cut: Whether it ended at a length limit.
        was_filtered: Whether a content filter left nothing of it.
        prompt_tokens: All prompt tokens; 0 where not reported, like the following.
        cached_prompt_tokens: Those of them that were read from the provider's cache.
        cache_write_tokens: Those of them that were written to it.
        completion_tokens: All completion tokens, reasoning included.
    """

    text: str
    was_cut: bool
    was_filtered: bool
    prompt_tokens: int
    cached_prompt_tokens: int
    cache_write_tokens: int
    completion_tokens: int


def read_chat_reply(body: object) -> ChatReply:
    """Reads the parsed JSON of a chat completion.

    Raises:
        NotAReplyError: It has no choice, no message or no content.
    """
    if not isinstance(body, dict):
        message = f"JSON that is no object but {type(body).__name__}"
        raise NotAReplyError(message)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        message = "a completion without choices"
        raise NotAReplyError(message)
    choice = choices[0]
    chat_message = choice.get("message")
    content = _text_of(chat_message.get("content")) if isinstance(chat_message, dict) else None
    finish_reason = choice.get("finish_reason")
    was_cut = finish_reason in _LENGTH_REASONS
    was_filtered = finish_reason == "content_filter" and not content
    # A reasoning model that spent its whole allowance on reasoning has a null content; the root
    # loop should learn that it was cut. Any other null is an endpoint out of order.
    if content is None and not was_cut and not was_filtered:
        message = "a completion without content"
        raise NotAReplyError(message)
    usage = _table(body, "usage")
    details = _table(usage, "prompt_tokens_details")
    return ChatReply(
        text=without_reasoning(content or ""),
        was_cut=was_cut,
        was_filtered=was_filtered,
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_prompt_tokens=_count(details, "cached_tokens"),
        cache_write_tokens=_count(details, "cache_write_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )


def without_reasoning(text: str) -> str:
    """Returns `text` without its `<think>` parts.

    A part begins where a line outside a code fence begins with the opening tag, so that a cell
    whose code handles such tags is left as it is. A part that is never closed is all there is.
    """
    orphan = _ORPHAN_CLOSING.search(text)
    if orphan and _OPENING not in text[: orphan.start()]:
        text = text[orphan.end() :].lstrip()
    kept: list[str] = []
    rest = text
    is_in_fence = was_reasoning = False
    while rest:
        line, newline, after = rest.partition("\n")
        stripped = line.lstrip()
        if not is_in_fence and stripped.startswith(_OPENING):
            _, _, rest = rest.partition(_CLOSING)
            rest = rest.lstrip()
            was_reasoning = True
            continue
        if stripped.startswith(_FENCES):
            is_in_fence = not is_in_fence
        kept.append(line + newline)
        rest = after
    answer = "".join(kept)
    return answer.strip() if was_reasoning else answer


def _text_of(content: object) -> str | None:
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None
    return content if isinstance(content, str) else None


def _table(parent: dict[str, object], key: str) -> dict[str, object]:
    table = parent.get(key)
    return table if isinstance(table, dict) else {}


def _count(table: dict[str, object], key: str) -> int:
    count = table.get(key)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0
