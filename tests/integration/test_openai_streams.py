"""A reply that comes piece by piece, and every point at which it can break."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from support.model_server import Answer, Break, ModelServer, failure, raw_json
from support.openai_models import ASK, Heard, ask, client, listen

from orchestrator.chat import ModelReply
from orchestrator.errors import ModelRefusedError, ModelUnavailableError

APIS = pytest.mark.parametrize("api", ["chat", "responses"])
PIECES = ["one ", "two ", "three"]
TEXT = "".join(PIECES)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


@APIS
async def test_pieces_are_handed_on_as_they_come(server: ModelServer, api: str) -> None:
    """Each piece is heard as it was sent, and the reply is all of them, with its usage."""
    reply, heard = await listen(server, Answer(text=TEXT, pieces=PIECES), api=api)

    assert heard.pieces == PIECES
    assert reply == ModelReply(text=TEXT, prompt_tokens=10, completion_tokens=5)


@APIS
async def test_what_was_held_back_is_heard_at_the_end(server: ModelServer, api: str) -> None:
    """What might have become a tag, and did not, belongs to the reply."""
    reply, heard = await listen(server, Answer(text="a\n<th", pieces=["a\n", "<th"]), api=api)

    assert heard.text == reply.text == "a\n<th"


@APIS
async def test_first_piece_is_heard_before_the_last_is_sent(server: ModelServer, api: str) -> None:
    """A reply is not kept until it is whole."""
    first = asyncio.Event()

    def hear(_piece: str) -> bool:
        first.set()
        return True

    server.next_answers.append(Answer(text=TEXT, pieces=PIECES, piece_delay_s=0.3))
    async with client(server.base_url, api=api) as model:
        asking = asyncio.create_task(model.complete(ASK, on_text=hear))
        await asyncio.wait_for(first.wait(), timeout=3.0)

        assert server.open_request_count == 1
        assert (await asking).text == TEXT


@APIS
async def test_reasoning_is_not_heard(server: ModelServer, api: str) -> None:
    """Neither tagged nor separate reasoning is handed on, nor is it part of the reply."""
    pieces = ["<th", "ink>a plan</think>\n\nfor", "ty-two"]
    answer = Answer(text="".join(pieces), pieces=pieces, reasoning="more of the plan")
    reply, heard = await listen(server, answer, api=api)

    assert heard.pieces == ["for", "ty-two"]
    assert reply.text == "forty-two"


@APIS
async def test_reasoning_that_no_tag_opens_is_expected_the_next_time(
    server: ModelServer, api: str
) -> None:
    """A chat template that opens the reasoning does so in each reply: seeing it once is enough."""
    answer = Answer(text="a plan\n</think>\nyes", pieces=["a plan\n", "</think>\n", "yes"])
    server.next_answers.extend([answer, answer])
    first, second = Heard(), Heard()
    async with client(server.base_url, api=api) as model:
        replies = [await model.complete(ASK, on_text=heard) for heard in (first, second)]

    assert [reply.text for reply in replies] == ["yes", "yes"]
    assert first.text.startswith("a plan")
    assert second.text == "yes"


@APIS
async def test_whoever_has_heard_enough_ends_the_request(server: ModelServer, api: str) -> None:
    """The connection is closed then and there: what nobody hears is not paid for for long."""
    answer = Answer(text=TEXT * 50, pieces=PIECES * 50, piece_delay_s=0.05)
    started_s = time.monotonic()
    reply, heard = await listen(server, answer, enough=2, api=api)

    assert heard.pieces == PIECES[:2]
    assert reply == ModelReply(text="one two ", was_cut=True)
    assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)
    assert time.monotonic() - started_s < 5.0


@APIS
async def test_reply_that_ends_at_its_limit_says_so(server: ModelServer, api: str) -> None:
    """A length limit is a length limit, however the reply came."""
    answer = Answer(text="half", finish_reason="length")
    reply, _ = await listen(server, answer, api=api)

    assert reply.was_cut
    assert (reply.text, reply.prompt_tokens) == ("half", 10)


@APIS
async def test_filter_that_left_nothing_is_a_refusal(server: ModelServer, api: str) -> None:
    """A stream that a filter stopped before its first word is no empty reply."""
    answer = Answer(text=None, finish_reason="content_filter")
    with pytest.raises(ModelRefusedError, match="came a filtered completion"):
        await listen(server, answer, api=api)


@APIS
async def test_stream_without_words_is_an_empty_reply(server: ModelServer, api: str) -> None:
    """A model that says nothing has answered."""
    reply, heard = await listen(server, Answer(text=""), api=api)

    assert (reply.text, heard.pieces) == ("", [])
    assert reply.prompt_tokens == 10


# What a stream of "one two three" has sent after so many events: its pieces, or all but the end.
AFTER = {"chat": {0: "", 1: "one ", 3: TEXT}, "responses": {0: "", 1: "", 2: "one ", 4: TEXT}}
POINTS = [
    pytest.param(api, count, received, id=f"{api}-{count}")
    for api, points in AFTER.items()
    for count, received in points.items()
]


@pytest.mark.parametrize(("api", "count", "received"), POINTS)
@pytest.mark.parametrize("way", ["end", "close", "reset"])
async def test_stream_that_breaks_off_is_no_reply(
    server: ModelServer, api: str, count: int, received: str, way: Break
) -> None:
    """Half an answer is never taken for one; what came of it is told, because it is billed."""
    answer = Answer(text=TEXT, pieces=PIECES, breaks_after=count, breaks_by=way)
    heard = Heard()
    server.next_answers.append(answer)
    async with client(server.base_url, api=api) as model:
        with pytest.raises(ModelUnavailableError) as caught:
            await model.complete(ASK, on_text=heard)

        assert (await model.complete(ASK, on_text=Heard())).text == "What is it?"

    assert caught.value.may_be_billed
    assert caught.value.received_text == received == heard.text
    came = "a stream without a reply" if way == "end" and not count else "a reply that broke off"
    assert f", came {came}" in str(caught.value)


@pytest.mark.parametrize("way", ["end", "close", "reset"])
async def test_answer_that_lacks_its_usage_only_is_a_reply(server: ModelServer, way: Break) -> None:
    """After its last piece a chat's answer is whole: it is not asked and paid for once more."""
    answer = Answer(text=TEXT, pieces=PIECES, breaks_after=4, breaks_by=way)
    reply, heard = await listen(server, answer)

    assert heard.pieces == PIECES
    assert reply == ModelReply(text=TEXT)  # no tokens: not reported


async def test_usage_that_never_comes_is_not_waited_for_long(server: ModelServer) -> None:
    """An endpoint that keeps the connection open after its last piece holds nobody up."""
    answer = Answer(text=TEXT, pieces=PIECES, breaks_after=4, breaks_by="silence")
    started_s = time.monotonic()
    reply, _ = await listen(server, answer, request_timeout_s=60.0)

    assert reply == ModelReply(text=TEXT)
    assert time.monotonic() - started_s < 10.0


@APIS
@pytest.mark.parametrize("count", [0, 2])
async def test_silence_ends_with_the_requests_time(
    server: ModelServer, api: str, count: int
) -> None:
    """A stream that stops without an end is given up when the whole request's time is over."""
    answer = Answer(text=TEXT, pieces=PIECES, breaks_after=count, breaks_by="silence")
    with pytest.raises(ModelUnavailableError, match=r"nothing whole within 0\.3 s") as caught:
        await listen(server, answer, api=api, request_timeout_s=0.3)

    assert caught.value.may_be_billed
    assert TEXT.startswith(caught.value.received_text)
    assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)


@APIS
async def test_slow_drip_ends_with_the_requests_time(server: ModelServer, api: str) -> None:
    """A piece now and then does not hold a call beyond its time."""
    answer = Answer(text=TEXT * 100, pieces=PIECES * 100, piece_delay_s=0.1)
    with pytest.raises(ModelUnavailableError, match=r"nothing whole within 0\.5 s") as caught:
        await listen(server, answer, api=api, request_timeout_s=0.5)

    assert caught.value.received_text.startswith("one ")
    assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)


@APIS
async def test_cancelling_in_mid_stream_closes_the_request(server: ModelServer, api: str) -> None:
    """Whoever cancels a call is not billed for the pieces that nobody reads."""
    first = asyncio.Event()

    def hear(_piece: str) -> bool:
        first.set()
        return True

    server.next_answers.append(Answer(text=TEXT, pieces=PIECES * 50, piece_delay_s=0.05))
    async with client(server.base_url, api=api) as model:
        asking = asyncio.create_task(model.complete(ASK, on_text=hear))
        await asyncio.wait_for(first.wait(), timeout=3.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)


@APIS
async def test_what_a_listener_raises_is_not_taken_for_the_endpoints(
    server: ModelServer, api: str
) -> None:
    """A bug of whoever listens surfaces as what it is, and the request is closed."""

    def hear(_piece: str) -> bool:
        raise ValueError("no JSON of mine")

    server.next_answers.append(Answer(text=TEXT, pieces=PIECES * 50, piece_delay_s=0.05))
    async with client(server.base_url, api=api) as model:
        with pytest.raises(ValueError, match="no JSON of mine"):
            await model.complete(ASK, on_text=hear)

        assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


CHAT_PIECE = event('{"choices": [{"index": 0, "delta": {"content": "one "}}]}')
RESPONSE_PIECE = event('{"type": "response.output_text.delta", "delta": "one "}')
PIECE_OF = {"chat": CHAT_PIECE, "responses": RESPONSE_PIECE}


@APIS
@pytest.mark.parametrize(
    ("tail", "trouble"),
    [
        pytest.param(event("{not json"), "a body that is not JSON", id="no-json"),
        pytest.param(event("[" * 100_000), "a body that is not JSON", id="deep-json"),
        pytest.param(event("4"), "a stream of int instead of objects", id="number"),
        pytest.param(event("[]"), "a stream of list instead of objects", id="list"),
        pytest.param(b"data: \xff\xfe\n\n", "a body that is not JSON", id="not-utf8"),
        pytest.param(
            event('{"error": {"message": "upstream died", "code": 502}}'),
            "status 502: 'upstream died'",
            id="error",
        ),
        pytest.param(
            event('{"error": "upstream died"}'),
            "an error instead of a reply: 'upstream died'",
            id="error-as-text",
        ),
    ],
)
async def test_nonsense_in_mid_stream_is_unavailable(
    server: ModelServer, api: str, tail: bytes, trouble: str
) -> None:
    """What comes after a piece and is none ends the request; the piece is told, for the bill."""
    answer = Answer(stream_body=PIECE_OF[api] + tail)
    with pytest.raises(ModelUnavailableError) as caught:
        await listen(server, answer, api=api)

    assert f", came {trouble}" in str(caught.value)
    assert caught.value.may_be_billed
    assert caught.value.received_text == "one "


@pytest.mark.parametrize(
    ("tail", "kind", "sentence"),
    [
        pytest.param(
            '{"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}',
            ModelUnavailableError,
            "an error instead of a reply: 'slow down'. Wait and run again",
            id="rate",
        ),
        pytest.param(
            '{"type": "response.failed", "response": {"error": {"code": "server_error",'
            ' "message": "sorry"}}}',
            ModelUnavailableError,
            "an error instead of a reply: 'sorry'. Run again later",
            id="server",
        ),
        pytest.param(
            '{"type": "response.failed", "response": {"error": {"code": "invalid_prompt",'
            ' "message": "flagged"}}}',
            ModelRefusedError,
            "an error instead of a reply: 'flagged'. Correct the request",
            id="prompt",
        ),
        pytest.param(
            '{"type": "response.failed", "response": {"error": {"code": "bio_policy",'
            ' "message": "no"}}}',
            ModelRefusedError,
            "an error instead of a reply: 'no'. Reword the prompt",
            id="policy",
        ),
        pytest.param(
            '{"type": "response.failed", "response": {}}',
            ModelUnavailableError,
            "an error instead of a reply: 'no reason'. Run again later",
            id="no-reason",
        ),
    ],
)
async def test_response_that_fails_in_mid_stream_is_told_by_who_has_to_act(
    server: ModelServer, tail: str, kind: type[Exception], sentence: str
) -> None:
    """The codes of the Responses API mean what statuses mean elsewhere."""
    with pytest.raises(kind) as caught:
        await listen(server, Answer(stream_body=RESPONSE_PIECE + event(tail)), api="responses")

    assert sentence in str(caught.value)


@APIS
async def test_endpoint_that_streams_to_nobody_is_read_as_a_whole(
    server: ModelServer, api: str
) -> None:
    """One that answers a streamed request with a whole reply has answered it; it is heard once."""
    whole = {
        "chat": {"choices": [{"message": {"content": TEXT}}]},
        "responses": {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}],
        },
    }
    reply, heard = await listen(server, raw_json(whole[api]), api=api)

    assert (reply.text, heard.pieces) == (TEXT, [TEXT])
    assert len(server.requests) == 1


@APIS
async def test_model_that_may_not_be_streamed_is_heard_once(server: ModelServer, api: str) -> None:
    """Where the operator says so, no stream is asked for, and the whole reply is handed on."""
    reply, heard = await listen(server, Answer(text=TEXT, pieces=PIECES), api=api, streams=False)

    assert (reply.text, heard.pieces) == (TEXT, [TEXT])
    assert "stream" not in server.requests[0].body


@APIS
async def test_comments_and_other_events_are_passed_over(server: ModelServer, api: str) -> None:
    """What keeps a connection open, and what this client does not know, adds nothing."""
    ends = {
        "chat": event('{"choices": [{"delta": {}, "finish_reason": "stop"}]}'),
        "responses": event('{"type": "response.completed", "response": {"status": "completed"}}'),
    }
    noise = b": keep-alive\n\n" + event("{}") + event('{"choices": []}')
    body = noise + PIECE_OF[api] + noise + ends[api] + b"data: [DONE]\n\n"
    reply, heard = await listen(server, Answer(stream_body=body), api=api)

    assert (reply.text, heard.pieces) == ("one ", ["one "])


@APIS
async def test_status_before_the_stream_is_what_it_is_without_one(
    server: ModelServer, api: str
) -> None:
    """A busy endpoint is as busy for whoever listens, and asks for as long a wait."""
    busy = failure(429, "slow down", headers={"Retry-After": "7"})
    errors = []
    for asking in (ask(server, busy, api=api), listen(server, busy, api=api)):
        with pytest.raises(ModelUnavailableError, match="status 429: 'slow down'") as caught:
            await asking
        errors.append(caught.value)

    assert [error.retry_after_s for error in errors] == [7.0, 7.0]
    assert [error.may_be_billed for error in errors] == [False, False]


@APIS
async def test_connection_is_used_again_after_a_stream(server: ModelServer, api: str) -> None:
    """A stream that was read to its end costs the next request no new connection."""
    async with client(server.base_url, api=api) as model:
        for _ in range(3):
            await model.complete(ASK, on_text=Heard())

        assert len(server.clients) == 1
