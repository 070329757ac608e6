"""What an endpoint sends instead of what it should: any JSON, any body, any header, any stream.

Holds: nothing is raised but what is documented; counts are never negative; what is shown of an
error is one short line without the key and without what a terminal acts on; a wait is a time; the
cut of a stream makes no difference; an endpoint that refuses parameters runs out of them.
"""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime

from support.fuzz_data import FuzzData

from orchestrator.domain import Json
from orchestrator.models.chat_reply import ChatStream, read_chat_reply
from orchestrator.models.complaint import Complaint, complaint_in_body, complaint_of_status
from orchestrator.models.dialect import OLD_LIMIT, Dialect
from orchestrator.models.endpoint_reply import EndpointFailedError, EndpointReply, NotAReplyError
from orchestrator.models.reasoning import (
    ReasoningFilter,
    begins_in_reasoning,
    without_reasoning,
)
from orchestrator.models.responses_reply import ResponseStream, read_response
from orchestrator.models.retry_after import retry_after_s
from orchestrator.models.setting_names import SettingNames
from orchestrator.models.shown_words import MESSAGE_CHARS

TOKENS = (
    *(b'"choices"', b'"message"', b'"content"', b'"finish_reason"', b'"usage"', b'"prompt_tokens"'),
    *(
        b'"error"',
        b'"code"',
        b'"type"',
        b"KEY",
        b"sk-",
        b"***",
        b"Bearer ",
        b"<think>",
        b"</think>",
    ),
    *(b"<html><title>", b"</title>", b"context_length", b"null", b"[{", b"1e999", b"inf", b"GMT"),
)

KEY = "key-8f14e45fceea167a"
SECRETS = frozenset({KEY})
SENT = frozenset({"stream", "stream_options", "store", "response_format", "text", OLD_LIMIT})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def TestOneInput(data: bytes) -> None:
    """Reads a body, an error and a header."""
    fuzz = FuzzData(data)
    match fuzz.choice(("body", "near", "status", "retry", "reasoning", "stream")):
        case "body":
            try:
                body = json.loads(fuzz.rest())
            except (ValueError, RecursionError):
                return
            read_body(body)
        case "near":
            read_body(completion_of(fuzz))
        case "status":
            status = fuzz.integer(100, 599)
            body = fuzz.rest().replace(b"KEY", KEY.encode())
            complaint = complaint_of_status(status, body, secrets=SECRETS)
            check(complaint)
            check_adapting(complaint)
        case "retry":
            name = fuzz.choice(("retry-after", "retry-after-ms"))
            wait_s = retry_after_s({name: fuzz.text()}, now=NOW)
            assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)
        case "reasoning":
            text = fuzz.text(2000)
            once = without_reasoning(text)
            assert len(once) <= len(text)
            check_filter(text, once)
        case "stream":
            read_streams(fuzz)


def read_body(body: object) -> None:
    """Reads a body as a reply of either kind and as a complaint."""
    complaint = complaint_in_body(body, secrets=SECRETS)
    if complaint is not None:
        check(complaint)
    for read in (read_chat_reply, read_response):
        try:
            check_reply(read(body))
        except (NotAReplyError, EndpointFailedError) as error:
            assert str(error)


def read_streams(fuzz: FuzzData) -> None:
    """Reads events as a stream of either kind, to its end or to what is no event."""
    kinds = ("response.output_text.delta", "response.completed", "response.failed", "error", "")
    events: list[Json] = []
    for _ in range(fuzz.integer(0, 8)):
        if fuzz.flag():
            events.append({"choices": [{"delta": {"content": fuzz.json()}}], "usage": fuzz.json()})
        else:
            kind = fuzz.choice(kinds)
            events.append({"type": kind, "delta": fuzz.json(), "response": fuzz.json()})
    events.append(fuzz.json())
    for stream in (ChatStream(begins_in_reasoning=False), ResponseStream(begins_in_reasoning=True)):
        heard = ""
        try:
            for event in events:
                heard += stream.take(event)
        except (NotAReplyError, EndpointFailedError) as error:
            assert str(error)
        heard += stream.text.finish()
        assert len(heard) <= len(stream.text.everything)
        check_reply(stream.reply())


def check_reply(reply: EndpointReply) -> None:
    """Checks what a reply is believed to say."""
    counts = (
        reply.prompt_tokens,
        reply.cached_prompt_tokens,
        reply.cache_write_tokens,
        reply.completion_tokens,
    )
    assert min(counts) >= 0
    assert isinstance(reply.text, str)
    assert not (reply.was_filtered and reply.text)


def check_filter(text: str, once: str) -> None:
    """Checks that a text in pieces comes to what it comes to at once, but for spaces."""
    for size in (1, 5):
        leaving_out = ReasoningFilter(begins_in_reasoning=begins_in_reasoning(text))
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        heard = "".join(map(leaving_out.take, pieces)) + leaving_out.finish()
        assert heard.strip() == once.strip()


def check_adapting(complaint: Complaint) -> None:
    """Checks that an endpoint that says the same of every request is not asked for ever."""
    dialect = Dialect(limit_name=OLD_LIMIT, structured="json_schema")
    for _ in range(len(SENT)):
        adapted = dialect.without_refused(complaint, sent=sent_in(dialect))
        if adapted is None:
            return
        dialect, _ = adapted
    assert dialect.without_refused(complaint, sent=sent_in(dialect)) is None


def sent_in(dialect: Dialect) -> frozenset[str]:
    """Returns the parameters of a request in a dialect."""
    left_out = {
        "response_format": dialect.structured == "none",
        "text": dialect.structured == "none",
        "stream": not dialect.streams,
        "stream_options": not (dialect.streams and dialect.counts_streams),
        "store": not dialect.forbids_storage,
        OLD_LIMIT: dialect.limit_name != OLD_LIMIT,
    }
    return frozenset(name for name in SENT if not left_out[name])


def completion_of(fuzz: FuzzData) -> dict[str, Json]:
    """Returns what is nearly a completion."""
    message = fuzz.json() if fuzz.flag() else {"content": fuzz.json()}
    finish = fuzz.choice(["stop", "length", "content_filter", None])
    return {
        "choices": [{"message": message, "finish_reason": finish}],
        "usage": fuzz.json() if fuzz.flag() else {"prompt_tokens": fuzz.json()},
        "error": fuzz.json() if fuzz.flag() else None,
    }


def check(complaint: Complaint) -> None:
    """Checks what would be shown."""
    assert len(complaint.message) <= MESSAGE_CHARS
    assert KEY not in complaint.message
    assert all(unicodedata.category(char)[0] != "C" for char in complaint.message)
    assert "\n" not in complaint.message
    sentence = complaint.sentence(model_id="m", host="h", names=SettingNames())
    assert sentence.startswith("expected a reply")
