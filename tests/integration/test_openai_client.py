import asyncio
import time
from collections.abc import Iterator

import pytest
from support.model_server import ROOT_MODEL, Answer, ModelServer, failure
from support.openai_models import ASK, KEY, ask, client

from orchestrator.domain import Message, ModelReply
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.models.pricing import Price

AT_ONCE = {"Retry-After": "0"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


async def test_reply_carries_text_and_usage(server: ModelServer) -> None:
    """A reply holds the model's words and what the provider counted."""
    reply = await ask(server, Answer(text="forty-two"))

    assert reply == ModelReply(text="forty-two", prompt_tokens=10, completion_tokens=5)


async def test_request_is_what_was_asked_for(server: ModelServer) -> None:
    """The request names the model, holds the chat in order and nothing that was not set."""
    chat = [Message("system", "Be short."), Message("user", "Hi {x} \0 é"), Message("user", "b")]
    async with client(server.base_url, name=ROOT_MODEL, temperature=0.5) as model:
        server.next_answers.append(Answer())
        await model.complete(chat)

    request = server.requests[0]
    assert request.body == {
        "model": ROOT_MODEL,
        "messages": [{"role": one.role, "content": one.content} for one in chat],
        "temperature": 0.5,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_cost_is_the_price_times_the_tokens(server: ModelServer) -> None:
    """A model whose price is known says what the request cost, cached tokens at their own price."""
    usage = {
        "prompt_tokens": 1_000_000,
        "completion_tokens": 100_000,
        "prompt_tokens_details": {"cached_tokens": 500_000},
    }
    price = Price(prompt_usd=2.0, cached_prompt_usd=0.5, completion_usd=10.0)
    reply = await ask(server, Answer(usage=usage), price=price)

    assert reply.cost_usd == pytest.approx(1.0 + 0.25 + 1.0)


async def test_cost_is_unknown_where_openai_does_not_bill(server: ModelServer) -> None:
    """A name from OpenAI's list has no price at somebody else's endpoint."""
    reply = await ask(server, Answer(), name="gpt-5")

    assert reply.cost_usd is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": -1}])
async def test_missing_usage_counts_as_zero(
    server: ModelServer, usage: dict[str, object] | None
) -> None:
    """An endpoint that reports no usage still gives a reply."""
    reply = await ask(server, Answer(text="a", usage=usage))

    assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)


async def test_empty_reply_is_a_reply(server: ModelServer) -> None:
    """A model that says nothing has answered."""
    assert (await ask(server, Answer(text=""))).text == ""


async def test_cut_reply_says_so(server: ModelServer) -> None:
    """A reply that ended at a length limit is marked, even where reasoning ate all of it."""
    assert (await ask(server, Answer(text="half", finish_reason="length"))).was_cut
    assert await ask(server, Answer(text=None, finish_reason="length", usage=None)) == ModelReply(
        text="", was_cut=True
    )


async def test_reasoning_stays_out_of_the_text(server: ModelServer) -> None:
    """Neither tagged nor separate reasoning reaches the transcript."""
    answer = Answer(text="<think>secret\nplan</think>\n\nforty-two", reasoning="more of the plan")

    assert (await ask(server, answer)).text == "forty-two"


async def test_slow_endpoint_is_unavailable(server: ModelServer) -> None:
    """An endpoint that takes longer than the request may is given up, and its connection closed."""
    with pytest.raises(ModelUnavailableError, match=r"came nothing whole within 0\.2 s"):
        await ask(server, Answer(delay_s=4.0), request_timeout_s=0.2)

    assert server.wait_until(lambda: server.disconnect_count == 1)


async def test_dripping_endpoint_is_unavailable(server: ModelServer) -> None:
    """An endpoint that sends a byte now and then cannot hold a call beyond its time."""
    with pytest.raises(ModelUnavailableError, match=r"came nothing whole within 0\.3 s"):
        await ask(server, Answer(text="a" * 100, drip_s=0.05), request_timeout_s=0.3)

    assert server.wait_until(lambda: server.disconnect_count == 1)


async def test_passing_trouble_is_tried_again(server: ModelServer) -> None:
    """A call survives as many failures as it may retry."""
    reply = await ask(
        server,
        failure(503, headers=AT_ONCE),
        failure(429, headers=AT_ONCE),
        Answer(text="at last"),
        max_retries=2,
    )

    assert reply.text == "at last"
    assert len(server.requests) == 3


async def test_retries_are_bounded(server: ModelServer) -> None:
    """A call gives up after its retries and says how often it tried."""
    answers = [failure(503, "busy", headers=AT_ONCE)] * 4
    with pytest.raises(ModelUnavailableError, match="came status 503 after 3 tries: 'busy'"):
        await ask(server, *answers, max_retries=2)

    assert len(server.requests) == 3


async def test_retry_waits_as_long_as_it_is_asked_to(server: ModelServer) -> None:
    """The endpoint's own Retry-After decides when it is asked again."""
    started_s = time.monotonic()
    await ask(server, failure(429, headers={"Retry-After": "0.3"}), Answer(), max_retries=1)

    assert time.monotonic() - started_s >= 0.3


async def test_retry_after_beyond_the_bound_is_not_waited_for(server: ModelServer) -> None:
    """An endpoint that asks to wait for an hour ends the call now, and the message says so."""
    answer = failure(429, "slow down", headers={"Retry-After": "3600"})
    with pytest.raises(ModelUnavailableError, match=r"asks to wait 3600 s\.$"):
        await ask(server, answer, max_retries=3)

    assert len(server.requests) == 1


async def test_cancelling_closes_the_request(server: ModelServer) -> None:
    """Whoever cancels a call is not billed for an answer nobody reads."""
    server.next_answers.append(Answer(delay_s=4.0))
    async with client(server.base_url) as model:
        asking = asyncio.create_task(model.complete(ASK))
        assert await asyncio.to_thread(server.wait_until, lambda: server.open_request_count == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 1)


async def test_requests_wait_for_their_turn(server: ModelServer) -> None:
    """No more requests are open at once than are allowed, and as many as are."""
    server.next_answers.extend([Answer(text="a", delay_s=0.05)] * 12)
    async with client(server.base_url, max_concurrent_requests=3) as model:
        await asyncio.gather(*(model.complete(ASK) for _ in range(12)))

    assert server.peak_open_request_count == 3


async def test_requests_are_concurrent(server: ModelServer) -> None:
    """Control: the same requests are all open at once where that is allowed."""
    server.next_answers.extend([Answer(text="a", delay_s=0.3)] * 12)
    async with client(server.base_url, max_concurrent_requests=12) as model:
        await asyncio.gather(*(model.complete(ASK) for _ in range(12)))

    assert server.peak_open_request_count == 12


UNKNOWN_LIMIT = "Unsupported parameter: '{}' is not supported with this model."


async def test_other_name_of_the_limit_is_tried_once_and_remembered(server: ModelServer) -> None:
    """An endpoint that knows the limit by its other name is asked by that name from then on."""
    server.next_answers.append(
        failure(400, UNKNOWN_LIMIT.format("max_tokens"), parameter="max_tokens")
    )
    async with client(server.base_url) as model:
        await model.complete(ASK, max_completion_tokens=7)
        await model.complete(ASK, max_completion_tokens=8)

    limits = [
        {key: value for key, value in request.body.items() if key.startswith("max_")}
        for request in server.requests
    ]
    assert limits == [
        {"max_tokens": 7},
        {"max_completion_tokens": 7},
        {"max_completion_tokens": 8},
    ]


async def test_limit_that_is_too_high_is_refused(server: ModelServer) -> None:
    """A complaint about the limit's value is no reason to send it by a name that may be ignored."""
    server.next_answers.append(failure(400, "max_tokens is too large: 9", parameter="max_tokens"))
    async with client(server.base_url) as model:
        with pytest.raises(ModelRefusedError, match="max_tokens is too large"):
            await model.complete(ASK, max_completion_tokens=9)

    assert len(server.requests) == 1


async def test_closing_twice_is_harmless(server: ModelServer) -> None:
    """`aclose` frees what is there to free, and may be called again."""
    async with client(server.base_url) as model:
        await model.complete(ASK)
        await model.aclose()
        await model.aclose()


async def test_endpoint_without_a_key_is_asked_without_one(server: ModelServer) -> None:
    """A custom endpoint needs no key, and does not get one from the environment."""
    await ask(server, Answer(), api_key=None)

    assert server.requests[0].headers["authorization"] == "Bearer no-key"


async def test_loopback_is_not_asked_through_a_proxy(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment does not come between this machine and itself."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    assert (await ask(server, Answer(text="direct"))).text == "direct"
