"""Reads what the Responses API answers as it really comes, whole or in pieces.

Without it the items of a response, its events and its own words for a limit, a filter and a failure
would be the client's business.
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

_CUT, _FILTERED = "max_output_tokens", "content_filter"
_ENDED = ("completed", "incomplete")
_TEXT_EVENTS = ("response.output_text.delta", "response.refusal.delta")
_REASONING_EVENTS = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_ENDING_EVENTS = ("response.completed", "response.incomplete")
#: Where the words of a part are, by its type. A refusal is an answer, and is paid for.
_WORDS = {"output_text": "text", "refusal": "refusal"}


def read_response(body: object) -> EndpointReply:
    """Reads the parsed JSON of a response.

    Raises:
        NotAReplyError: It has no output, or has not ended.
        EndpointFailedError: It says that it failed.
    """
    if not isinstance(body, dict):
        message = f"JSON that is no object but {type(body).__name__}"
        raise NotAReplyError(message)
    if body.get("status") == "failed" or table_at(body, "error"):
        raise EndpointFailedError(table_at(body, "error"))
    if body.get("status") not in _ENDED:
        message = "a response that has not ended"
        raise NotAReplyError(message)
    text = _text_in(body.get("output"))
    if text is None and body.get("status") != "incomplete":
        message = "a response without output"
        raise NotAReplyError(message)
    return _reply(text or "", body)


class ResponseStream:
    """Reads a response that comes in pieces."""

    def __init__(self, *, begins_in_reasoning: bool) -> None:
        """Begins before the first piece; see `ReasoningFilter`."""
        self.text = StreamedText(begins_in_reasoning=begins_in_reasoning)
        self.has_begun = False
        self._response: dict[str, object] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the response has ended, with its usage."""
        return bool(self._response)

    def take(self, event: object) -> str:
        """Takes one event and returns what it adds to the answer.

        Raises:
            NotAReplyError: It is no event.
            EndpointFailedError: It says that the response failed.
        """
        if not isinstance(event, dict):
            message = f"a stream of {type(event).__name__} instead of objects"
            raise NotAReplyError(message)
        kind = text_at(event, "type")
        self.has_begun = self.has_begun or kind.startswith("response.")
        if kind == "error":
            raise EndpointFailedError(event)
        if kind == "response.failed":
            raise EndpointFailedError(table_at(table_at(event, "response"), "error"))
        if kind in _TEXT_EVENTS:
            return self.text.add(text_at(event, "delta"))
        if kind in _REASONING_EVENTS:
            self.text.add_reasoning(text_at(event, "delta"))
        if kind in _ENDING_EVENTS:
            self._response = table_at(event, "response") or {"status": "completed"}
            if not self.text.raw:  # some endpoints send the text with its end only
                return self.text.add(_text_in(self._response.get("output")) or "")
        return ""

    def reply(self) -> EndpointReply:
        """Returns what has come so far."""
        return _reply(self.text.raw, self._response)


def _text_in(output: object) -> str | None:
    """Returns the words of all messages of an output; None where it has none."""
    if not isinstance(output, list):
        return None
    words: list[str] = []
    for item in output:
        if not isinstance(item, dict) or item.get("type") != "message":
            continue
        parts = item.get("content")
        for part in parts if isinstance(parts, list) else ():
            key = _WORDS.get(text_at(part, "type")) if isinstance(part, dict) else None
            if key is not None:
                words.append(text_at(part, key))
    return "".join(words) if words else None


def _reply(text: str, response: dict[str, object]) -> EndpointReply:
    usage = table_at(response, "usage")
    details = table_at(usage, "input_tokens_details")
    reason = table_at(response, "incomplete_details").get("reason")
    return EndpointReply(
        text=without_reasoning(text),
        was_cut=reason == _CUT,
        was_filtered=reason == _FILTERED and not text,
        begins_in_reasoning=begins_in_reasoning(text),
        prompt_tokens=count_at(usage, "input_tokens"),
        cached_prompt_tokens=count_at(details, "cached_tokens"),
        cache_write_tokens=count_at(details, "cache_write_tokens"),
        completion_tokens=count_at(usage, "output_tokens"),
    )
