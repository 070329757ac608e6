from typing import Any

import pytest

from orchestrator.models.chat_reply import ChatStream, read_chat_reply
from orchestrator.models.endpoint_reply import EndpointFailedError, NotAReplyError

USAGE = {"prompt_tokens": 9, "completion_tokens": 3}


def piece(content: object, **rest: Any) -> dict[str, object]:  # noqa: ANN401 -- JSON
    """One event of a stream."""
    choice = {"delta": {"content": content}} | {
        key: value for key, value in rest.items() if key != "usage"
    }
    event: dict[str, object] = {"choices": [choice]}
    return event | ({"usage": rest["usage"]} if "usage" in rest else {})


def streamed(*events: object) -> ChatStream:
    stream = ChatStream(begins_in_reasoning=False)
    for event in events:
        stream.take(event)
    return stream


def test_content_in_parts_is_joined() -> None:
    """Text parts are the answer; parts of any other type are not."""
    parts = [
        {"type": "thinking", "thinking": "a plan"},
        {"type": "text", "text": "forty-"},
        {"type": "text", "text": "two"},
    ]

    reply = read_chat_reply({"choices": [{"message": {"content": parts}}]})

    assert reply.text == "forty-two"
    assert streamed(piece(parts, finish_reason="stop")).reply().text == "forty-two"


@pytest.mark.parametrize(
    "body",
    [
        None,
        "text",
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": ["text"]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": 4}}]},
        {"choices": [{"message": {"content": []}}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": None}, "finish_reason": ["length"]}]},
    ],
)
def test_what_is_no_completion_is_refused(body: object) -> None:
    """A body without an answer in it never becomes an empty answer."""
    with pytest.raises(NotAReplyError):
        read_chat_reply(body)


def test_words_of_a_model_that_refuses_are_its_answer() -> None:
    """A refusal was paid for like any other reply, and is for whoever asked to read."""
    message = {"content": None, "refusal": "I cannot help with that."}
    reply = read_chat_reply({"choices": [{"message": message, "finish_reason": "stop"}]})

    assert (reply.text, reply.was_filtered) == ("I cannot help with that.", False)


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, 4),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, 4),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": "4"}}, 0),
    ],
)
def test_cached_tokens_are_read_where_endpoints_report_them(
    usage: dict[str, object], cached: int
) -> None:
    """Each way in which endpoints say how much of a prompt they had read before is understood."""
    body = {"choices": [{"message": {"content": "a"}}], "usage": usage}

    assert read_chat_reply(body).cached_prompt_tokens == cached


def test_pieces_come_to_the_same_reply_as_the_whole() -> None:
    """Text, end and usage are the same however they come."""
    whole = {
        "choices": [{"message": {"content": "one two"}, "finish_reason": "length"}],
        "usage": USAGE,
    }
    stream = streamed(
        piece(""),
        piece("one "),
        piece("two"),
        piece(None, finish_reason="length"),
        {"choices": [], "usage": USAGE},
    )

    assert stream.is_complete
    assert stream.reply() == read_chat_reply(whole)


@pytest.mark.parametrize(
    ("events", "is_complete"),
    [
        pytest.param([], False, id="nothing"),
        pytest.param([piece("a")], False, id="no-end"),
        pytest.param([piece("a", usage=USAGE)], False, id="counted-with-each-piece"),
        pytest.param([piece("a"), piece(None, finish_reason="stop")], True, id="end"),
        pytest.param([piece("a"), {"choices": [], "usage": USAGE}], True, id="usage-alone"),
        pytest.param([piece("a"), {"choices": [], "usage": None}], False, id="empty-usage"),
        pytest.param([{"choices": [], "prompt_filter_results": []}], False, id="azures-preface"),
    ],
)
def test_stream_is_complete_where_its_end_has_been_said(
    events: list[dict[str, object]], *, is_complete: bool
) -> None:
    """A connection that closes says nothing about the answer; an end or a count does."""
    assert streamed(*events).is_complete is is_complete


def test_reasoning_that_comes_apart_is_no_answer_and_is_billed() -> None:
    """Both names that endpoints have for it are left out of the answer and kept for the bill."""
    stream = streamed(
        {"choices": [{"delta": {"reasoning_content": "hm "}}]},
        {"choices": [{"delta": {"reasoning": "well "}}]},
        piece("yes"),
    )

    assert stream.reply().text == "yes"
    assert stream.text.everything == "hm well yes"


def test_choice_that_is_an_error_is_no_empty_answer() -> None:
    """A router whose provider fails says so within a choice, whole or in mid-stream."""
    error = {"code": 502, "message": "upstream died"}
    choice = {"message": {"content": ""}, "error": error, "finish_reason": "error"}

    with pytest.raises(EndpointFailedError) as whole:
        read_chat_reply({"choices": [choice]})
    with pytest.raises(EndpointFailedError) as streaming:
        streamed(piece("a"), {"choices": [{"delta": {"content": ""}, "error": error}]})

    assert whole.value.error == streaming.value.error == error


@pytest.mark.parametrize("event", [None, 4, "text", [piece("a")]])
def test_what_is_no_piece_is_refused(event: object) -> None:
    """A stream of something else never becomes an empty answer."""
    with pytest.raises(NotAReplyError):
        ChatStream(begins_in_reasoning=False).take(event)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"choices": [None]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 4}}]},
        {"choices": [{"delta": {"content": None}, "finish_reason": None}]},
    ],
)
def test_event_that_adds_nothing_is_no_error(event: dict[str, object]) -> None:
    """Endpoints send events to keep a connection open, and pieces without words."""
    assert ChatStream(begins_in_reasoning=False).take(event) == ""
