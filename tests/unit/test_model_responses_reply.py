import pytest

from orchestrator.models.endpoint_reply import EndpointFailedError, EndpointReply, NotAReplyError
from orchestrator.models.responses_reply import ResponseStream, read_response

USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
}
REASONING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a plan"}]}


def message(*parts: dict[str, object]) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def said(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text}


def response(*output: object, status: str = "completed", **rest: object) -> dict[str, object]:
    return {"status": status, "output": list(output)} | rest


def delta(text: str, kind: str = "output_text") -> dict[str, object]:
    return {"type": f"response.{kind}.delta", "delta": text}


def streamed(*events: object) -> ResponseStream:
    stream = ResponseStream(begins_in_reasoning=False)
    for event in events:
        stream.take(event)
    return stream


def test_words_and_counts_are_read() -> None:
    """All messages are the answer, reasoning is none, and its tokens are among the reply's."""
    body = response(REASONING, message(said("for"), said("ty-")), message(said("two")), usage=USAGE)

    assert read_response(body) == EndpointReply(
        text="forty-two",
        prompt_tokens=12,
        cached_prompt_tokens=4,
        cache_write_tokens=2,
        completion_tokens=7,
    )


@pytest.mark.parametrize("output", [[], [REASONING], [message()]])
def test_limit_that_left_nothing_is_a_reply_that_was_cut(output: list[object]) -> None:
    """A model that spent its whole allowance on reasoning has answered, with nothing."""
    details = {"reason": "max_output_tokens"}
    body = response(*output, status="incomplete", incomplete_details=details)

    assert read_response(body) == EndpointReply(text="", was_cut=True)


def test_filter_that_left_nothing_is_told_from_one_that_left_something() -> None:
    """What a filter let through is an answer."""
    details = {"reason": "content_filter"}
    nothing = response(status="incomplete", incomplete_details=details)
    something = response(message(said("a")), status="incomplete", incomplete_details=details)

    assert read_response(nothing).was_filtered
    assert not read_response(something).was_filtered


def test_words_of_a_model_that_refuses_are_its_answer() -> None:
    """A refusal was paid for like any other reply, and is for whoever asked to read."""
    refusal: dict[str, object] = {"type": "refusal", "refusal": "I cannot."}

    assert read_response(response(message(refusal))).text == "I cannot."
    assert streamed(delta("I cannot.", "refusal")).reply().text == "I cannot."


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"status": "completed"},
        response(),
        response(REASONING),
        response("text", None, message({"type": "audio"})),
        response(message(said("a")), status="in_progress"),
        response(message(said("a")), status="queued"),
        {"choices": [{"message": {"content": "a"}}]},
    ],
)
def test_what_is_no_response_is_refused(body: object) -> None:
    """A body without an answer in it, or with half of one, never becomes an answer."""
    with pytest.raises(NotAReplyError):
        read_response(body)


@pytest.mark.parametrize(
    "body",
    [
        response(status="failed", error={"code": "server_error", "message": "sorry"}),
        response(message(said("a")), error={"code": "server_error", "message": "sorry"}),
    ],
)
def test_failure_is_no_answer(body: dict[str, object]) -> None:
    """What the endpoint says of its failure is kept, whatever else it sends."""
    with pytest.raises(EndpointFailedError) as caught:
        read_response(body)

    assert caught.value.error == {"code": "server_error", "message": "sorry"}


def test_pieces_come_to_the_same_reply_as_the_whole() -> None:
    """Text, end and usage are the same however they come."""
    whole = response(message(said("one two")), usage=USAGE)
    stream = streamed(
        {"type": "response.created", "response": response(status="in_progress")},
        delta("a plan", "reasoning_text"),
        delta("one "),
        delta("two"),
        {"type": "response.output_text.done", "text": "one two"},
        {"type": "response.completed", "response": whole},
    )

    assert stream.is_complete
    assert stream.reply() == read_response(whole)
    assert stream.text.everything == "a planone two"


def test_text_that_comes_with_the_end_only_is_heard_then() -> None:
    """An endpoint that streams nothing but the end has answered all the same."""
    stream = ResponseStream(begins_in_reasoning=False)
    ending = {"type": "response.completed", "response": response(message(said("late")))}

    assert stream.take(ending) == "late"
    assert stream.reply().text == "late"


def test_stream_without_its_end_is_not_complete() -> None:
    """Only the event that ends a response says that the answer is whole."""
    assert not streamed(delta("a")).is_complete
    assert streamed(delta("a"), {"type": "response.incomplete"}).is_complete


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow down"},
        {
            "type": "response.failed",
            "response": {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
        },
    ],
)
def test_failure_in_a_stream_is_told_with_its_words(event: dict[str, object]) -> None:
    """Both ways of failing in mid-stream carry what the endpoint says."""
    with pytest.raises(EndpointFailedError) as caught:
        streamed(delta("a"), event)

    assert caught.value.error["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("event", [None, 4, "text", []])
def test_what_is_no_event_is_refused(event: object) -> None:
    """A stream of something else never becomes an empty answer."""
    with pytest.raises(NotAReplyError):
        streamed(event)


@pytest.mark.parametrize(
    "event", [{}, {"type": 4}, {"type": "response.output_text.delta", "delta": None}]
)
def test_event_that_adds_nothing_is_no_error(event: dict[str, object]) -> None:
    """Events that this client does not know say nothing to it."""
    assert ResponseStream(begins_in_reasoning=False).take(event) == ""
