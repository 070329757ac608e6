import asyncio
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from support.model_server import ROOT_MODEL, Answer, ModelServer, failure
from support.openai_models import ASK, KEY, ask, client

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.price import Price


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
    chat = (Message("system", "Be short."), Message("user", "Hi {x} \0 é"), Message("user", "b"))
    async with client(server.base_url, name=ROOT_MODEL, temperature=0.5) as model:
        server.next_answers.append(Answer())
        await model.complete(ModelRequest(messages=chat))

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


async def test_failure_is_not_tried_again(server: ModelServer) -> None:
    """Asking again is for whoever pays to decide, who is told how long the endpoint wants."""
    with pytest.raises(ModelUnavailableError) as caught:
        await ask(server, failure(503, headers={"Retry-After": "0.3"}))

    assert caught.value.retry_after_s == 0.3
    assert str(caught.value).endswith("The endpoint asks to wait 0.3 s.")
    assert len(server.requests) == 1


async def test_limit_that_is_too_high_is_refused(server: ModelServer) -> None:
    """A complaint about the limit's value is no reason to send it by a name that may be ignored."""
    server.next_answers.append(failure(400, "max_tokens is too large: 9", parameter="max_tokens"))
    async with client(server.base_url) as model:
        with pytest.raises(ModelRefusedError, match="max_tokens is too large"):
            await model.complete(ModelRequest(messages=ASK.messages, max_completion_tokens=9))

    assert len(server.requests) == 1


async def test_model_is_asked_by_the_name_its_endpoint_knows(server: ModelServer) -> None:
    """A name of the operator's own is for reports; the endpoint and its complaints have another."""
    server.next_answers.append(Answer(text="a"))
    async with client(server.base_url, name="fast", id="no-such-model") as model:
        await model.complete(ASK)
        with pytest.raises(ModelRefusedError, match=r"Check models\.fast\.id") as caught:
            await model.complete(ASK)

    assert server.requests[0].body["model"] == "no-such-model"
    assert caught.value.model == "fast"


async def test_headers_query_and_further_parameters_are_sent(server: ModelServer) -> None:
    """What a gateway wants beside a key is sent with each request, and no key it does not want."""
    await ask(
        server,
        Answer(),
        api_key=None,
        headers={"api-key": SecretStr("hunter2")},
        extra_body={"top_k": 20},
        reasoning_effort="low",
    )

    request = server.requests[0]
    assert request.headers["api-key"] == "hunter2"
    assert "authorization" not in request.headers
    assert (request.body["top_k"], request.body["reasoning_effort"]) == (20, "low")


async def test_query_of_a_provider_is_part_of_each_address(server: ModelServer) -> None:
    """A gateway that wants its version in the address gets it there."""
    with pytest.raises(ModelRefusedError, match="status 404"):  # this server knows no versions
        await ask(server, query={"api-version": SecretStr("v1-of-2026")})

    assert server.requests == []


async def test_account_of_openai_is_nobody_elses_business(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK reads from the environment for OpenAI is not sent to other endpoints."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-hunter2")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-hunter2")
    await ask(server, Answer())

    assert not [value for value in server.requests[0].headers.values() if "hunter2" in value]


async def test_cached_tokens_are_told(server: ModelServer) -> None:
    """How much of a prompt the provider had read before is reported, and never more than it."""
    usage = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8}}
    odd = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}

    assert (await ask(server, Answer(usage=usage))).cached_prompt_tokens == 8
    assert (await ask(server, Answer(usage=odd))).cached_prompt_tokens == 10


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
