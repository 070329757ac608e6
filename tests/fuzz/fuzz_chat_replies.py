"""What an endpoint sends instead of what it should: any JSON, any body, any header.

Holds: nothing is raised but what is documented; counts are never negative; what is shown of an
error is one short line without the key and without what a terminal acts on; a wait is a time.
"""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime

from support.fuzz_data import FuzzData

from orchestrator.domain import Json
from orchestrator.models.chat_reply import NotAReplyError, read_chat_reply, without_reasoning
from orchestrator.models.complaint import (
    MESSAGE_CHARS,
    Complaint,
    complaint_in_body,
    complaint_of_status,
)
from orchestrator.models.retry import retry_after_s

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
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def TestOneInput(data: bytes) -> None:
    """Reads a body, an error and a header."""
    fuzz = FuzzData(data)
    match fuzz.choice(("body", "near", "status", "retry", "reasoning")):
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
            check(
                complaint_of_status(status, fuzz.rest().replace(b"KEY", KEY.encode()), api_key=KEY)
            )
        case "retry":
            name = fuzz.choice(("retry-after", "retry-after-ms"))
            wait_s = retry_after_s({name: fuzz.text()}, now=NOW)
            assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)
        case "reasoning":
            text = fuzz.text(2000)
            once = without_reasoning(text)
            assert len(once) <= len(text)


def read_body(body: object) -> None:
    """Reads a body as a reply and as a complaint."""
    complaint = complaint_in_body(body, api_key=KEY)
    if complaint is not None:
        check(complaint)
    try:
        reply = read_chat_reply(body)
    except NotAReplyError as error:
        assert str(error)
        return
    counts = (
        reply.prompt_tokens,
        reply.cached_prompt_tokens,
        reply.cache_write_tokens,
        reply.completion_tokens,
    )
    assert min(counts) >= 0
    assert isinstance(reply.text, str)
    assert not (reply.was_filtered and reply.text)


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
    sentence = complaint.sentence(model="m", host="h", try_count=2)
    assert sentence.startswith("expected a reply")
