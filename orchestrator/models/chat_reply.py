"""Reads a chat completion as it really comes, whole or in pieces.

Without it content as a list, reasoning inside the text or a stream without its end would be an
`AttributeError` or half an answer in mid-run.
"""

from __future__ import annotations

from orchestrator.models.endpoint_reply import (
    EndpointFailedError,
    EndpointReply,
    NotAReplyError,
    count_at,
    table_at,
    text_at,
)
from orchestrator.models.reasoning import StreamedText, begins_in_reasoning, without_reasoning

# "length" is OpenAI's; the others are what compatible endpoints say for the same.
# Tuples, not sets: what stands there may be a list, which cannot be looked up in a set.
_LENGTH_REASONS = ("length", "max_tokens", "model_length")
_FILTERED = "content_filter"
#: Where endpoints put reasoning that comes apart from the text.
_REASONING_KEYS = ("reasoning_content", "reasoning")


def read_chat_reply(body: object) -> EndpointReply:
    """Reads the parsed JSON of a chat completion.

    Raises:
        NotAReplyError: It has no choice, no message or no content.
        EndpointFailedError: Its choice is an error, as routers have it.
    """
    if not isinstance(body, dict):
        message = f"JSON that is no object but {type(body).__name__}"
        raise NotAReplyError(message)
    choice = _first_choice(body)
    if choice is None:
        message = "a completion without choices"
        raise NotAReplyError(message)
    content = _content_of(choice.get("message"))
    finish_reason = choice.get("finish_reason")
    was_cut = finish_reason in _LENGTH_REASONS
    # A reasoning model that spent its whole allowance on reasoning has a null content; the root
    # loop should learn that it was cut. Any other null is an endpoint out of order.
    if content is None and not was_cut and finish_reason != _FILTERED:
        message = "a completion without content"
        raise NotAReplyError(message)
    return _reply(content or "", finish_reason, body)


class ChatStream:
    """Reads a chat completion that comes in pieces."""

    def __init__(self, *, begins_in_reasoning: bool) -> None:
        """Begins before the first piece; see `ReasoningFilter`."""
        self.text = StreamedText(begins_in_reasoning=begins_in_reasoning)
        self.has_begun = False
        self._finish_reason: object = None
        self._usage_holder: dict[str, object] = {}
        self._was_counted = False

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole; its usage may yet come."""
        return isinstance(self._finish_reason, str) or self._was_counted

    def take(self, event: object) -> str:
        """Takes one event and returns what it adds to the answer.

        Raises:
            NotAReplyError: It is no piece of a completion.
        EndpointFailedError: It is an error, as routers have it.
        """
        if not isinstance(event, dict):
            message = f"a stream of {type(event).__name__} instead of objects"
            raise NotAReplyError(message)
        choice = _first_choice(event)
        if table_at(event, "usage"):
            self._usage_holder = event
            # The last event of all: some endpoints count in every one, beside its choice.
            self._was_counted = choice is None
        if choice is None:
            return ""
        self.has_begun = True
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = table_at(choice, "delta")
        for key in _REASONING_KEYS:
            self.text.add_reasoning(text_at(delta, key))
        return self.text.add(_content_of(delta) or "")

    def reply(self) -> EndpointReply:
        """Returns what has come so far."""
        return _reply(self.text.raw, self._finish_reason, self._usage_holder)


def _first_choice(body: dict[str, object]) -> dict[str, object] | None:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return None
    # A router whose provider fails has a choice to show, with nothing in it but why.
    error = table_at(first, "error")
    if error:
        raise EndpointFailedError(error)
    return first


def _content_of(message: object) -> str | None:
    """Returns what a message says: its content, else why the model refuses."""
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        content = "".join(texts) if texts else None
    if isinstance(content, str) and content:
        return content
    # A model that refuses has answered, and is paid for it: its words are for whoever asked.
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal
    return content if isinstance(content, str) else None


def _reply(content: str, finish_reason: object, body: dict[str, object]) -> EndpointReply:
    usage = table_at(body, "usage")
    details = table_at(usage, "prompt_tokens_details")
    # DeepSeek's own name for it; it sends no details.
    cached = count_at(details, "cached_tokens") or count_at(usage, "prompt_cache_hit_tokens")
    return EndpointReply(
        text=without_reasoning(content),
        was_cut=finish_reason in _LENGTH_REASONS,
        was_filtered=finish_reason == _FILTERED and not content,
        begins_in_reasoning=begins_in_reasoning(content),
        prompt_tokens=count_at(usage, "prompt_tokens"),
        cached_prompt_tokens=cached,
        cache_write_tokens=count_at(details, "cache_write_tokens"),
        completion_tokens=count_at(usage, "completion_tokens"),
    )
