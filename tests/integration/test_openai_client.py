import asyncio
import json
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.model_server import ROOT_MODEL, SUB_MODEL, Answer, ModelServer, failure, raw_json

from orchestrator.domain import Message, ModelReply
from orchestrator.errors import (
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
    SettingsError,
)
from orchestrator.models.openai_client import OpenAiModel
from orchestrator.models.pricing import Price

KEY = "sk-proj-Zm9vYmFyMTIzNDU2Nzg5MA"
ASK = [Message("user", "What is it?")]
AT_ONCE = {"Retry-After": "0"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


@asynccontextmanager
async def client(base_url: str | None, **changes: Any) -> AsyncIterator[OpenAiModel]:  # noqa: ANN401 -- constructor arguments
    settings: dict[str, Any] = {
        "name": SUB_MODEL,
        "api_key": KEY,
        "request_timeout_s": 5.0,
        "max_retries": 0,
        "temperature": None,
        "max_concurrent_requests": 16,
    }
    model = OpenAiModel(base_url=base_url, **settings | changes)
    try:
        yield model
    finally:
        await model.aclose()


async def ask(server: ModelServer, *answers: Answer, **changes: Any) -> ModelReply:  # noqa: ANN401 -- constructor arguments
    """Asks once, with `answers` coming first."""
    server.next_answers.extend(answers)
    async with client(server.base_url, **changes) as model:
        return await model.complete(ASK)


def page(title: str) -> bytes:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head></html>".encode()


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


@pytest.mark.parametrize(
    ("answer", "trouble", "advice"),
    [
        pytest.param(
            failure(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key"),
            "status 401: 'Incorrect API key provided: [key]'",
            "Set OPENAI_API_KEY",
            id="401",
        ),
        pytest.param(
            failure(403, "Country not supported"),
            "status 403: 'Country not supported'",
            "Set OPENAI_API_KEY",
            id="403",
        ),
        pytest.param(
            failure(404, "The model `sub-model` does not exist", code="model_not_found"),
            "status 404: 'The model `sub-model` does not exist'",
            "Check --model; the endpoint at 127.0.0.1:{port} does not know 'sub-model'",
            id="404-model",
        ),
        pytest.param(
            Answer(status=404, body=b'{"detail": "Not Found"}'),
            "status 404: 'Not Found'",
            "Check OPENAI_BASE_URL; it usually ends in /v1",
            id="404-path",
        ),
        pytest.param(
            failure(400, "maximum context length is 8192 tokens", code="context_length_exceeded"),
            "status 400: 'maximum context length is 8192 tokens'",
            "Send shorter prompts",
            id="400-context",
        ),
        pytest.param(
            failure(400, "temperature must be 1", parameter="temperature"),
            "status 400: 'temperature must be 1'",
            "Correct the request",
            id="400",
        ),
        pytest.param(
            failure(429, "You exceeded your current quota", code="insufficient_quota"),
            "status 429: 'You exceeded your current quota'",
            "Add credit",
            id="429-quota",
        ),
        pytest.param(
            Answer(text=None, finish_reason="content_filter"),
            "a filtered completion",
            "Reword the prompt",
            id="filtered",
        ),
    ],
)
async def test_refusal_is_final(
    server: ModelServer, answer: Answer, trouble: str, advice: str
) -> None:
    """A refusal says what came and what to change, and is not tried again."""
    with pytest.raises(ModelRefusedError) as caught:
        await ask(server, answer, max_retries=3)

    message = str(caught.value)
    host = f"127.0.0.1:{server.port}"
    assert message.startswith(f"expected a reply from model 'sub-model' at {host}, came {trouble}")
    assert advice.format(port=server.port) in message
    assert caught.value.model == SUB_MODEL
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        pytest.param(failure(500, "it broke"), "status 500: 'it broke'", id="500"),
        pytest.param(
            failure(429, "Rate limit reached"), "status 429: 'Rate limit reached'", id="429"
        ),
        pytest.param(
            Answer(status=502, body=page("Bad Gateway"), content_type="text/html"),
            "status 502: \"an HTML page titled 'Bad Gateway'\"",
            id="502-html",
        ),
        pytest.param(
            Answer(body=page("Welcome"), content_type="text/html"),
            "a body that is not JSON",
            id="200-html",
        ),
        pytest.param(
            Answer(body=b'{"choices": [{"message": {"content": "hal'),
            "a body that is not JSON",
            id="broken-json",
        ),
        pytest.param(Answer(body=b"\xff\xfe\xfd"), "a body that is not JSON", id="not-utf8"),
        pytest.param(raw_json([1, 2]), "JSON that is no object but list", id="json-list"),
        pytest.param(raw_json({"choices": []}), "a completion without choices", id="no-choices"),
        pytest.param(raw_json({"choices": [{}]}), "a completion without content", id="no-message"),
        pytest.param(Answer(text=None), "a completion without content", id="no-content"),
        pytest.param(
            raw_json({"error": {"message": "upstream is down", "code": 503}}),
            "status 503: 'upstream is down'",
            id="200-error",
        ),
        pytest.param(Answer(resets=True), "no connection", id="reset"),
        pytest.param(Answer(text="a", promised_extra_bytes=9), "no connection", id="cut-off"),
    ],
)
async def test_trouble_that_may_pass_is_unavailable(
    server: ModelServer, answer: Answer, trouble: str
) -> None:
    """A broken or busy endpoint is told apart from one that refuses."""
    with pytest.raises(ModelUnavailableError) as caught:
        await ask(server, answer)

    assert f", came {trouble}" in str(caught.value)


async def test_nobody_listening_is_unavailable() -> None:
    """An endpoint that is not there is named by its host, and its address is put in question."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with client(f"http://127.0.0.1:{port}/v1") as model:
        with pytest.raises(ModelUnavailableError, match="no connection") as caught:
            await model.complete(ASK)

    assert f"Check OPENAI_BASE_URL, and that 127.0.0.1:{port} is up" in str(caught.value)


async def test_slow_endpoint_is_unavailable(server: ModelServer) -> None:
    """An endpoint that takes longer than the request may is given up, and its connection closed."""
    with pytest.raises(ModelUnavailableError, match=r"came nothing within 0\.2 s"):
        await ask(server, Answer(delay_s=4.0), request_timeout_s=0.2)

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


ECHOES: list[Callable[[], Answer]] = [
    lambda: failure(401, f"Incorrect API key provided: {KEY}."),
    lambda: failure(401, f"Invalid proxy server token passed. Received API Key = {KEY[:12]}"),
    lambda: failure(500, f"header was: Bearer {KEY}"),
    lambda: failure(400, json.dumps({"authorization": KEY})),
    lambda: Answer(status=500, body=f"<html><title>{KEY}</title></html>".encode()),
    lambda: Answer(status=403, body=KEY.encode()),
    lambda: raw_json({"error": f"no such key: {KEY}"}),
    lambda: raw_json({"choices": KEY}),
    lambda: Answer(body=KEY.encode()),
]


@pytest.mark.parametrize("echo", ECHOES)
async def test_key_is_never_shown(server: ModelServer, echo: Callable[[], Answer]) -> None:
    """An endpoint that echoes the key cannot bring it into a message, a traceback or a repr."""
    server.next_answers.append(echo())
    async with client(server.base_url) as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(ASK)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(model)

    assert KEY[:12] not in shown


async def test_key_of_any_form_is_never_shown(server: ModelServer) -> None:
    """A key that looks like no known key is kept out as well."""
    with pytest.raises(ModelRefusedError, match=r"'no \[key\] here'"):
        await ask(server, failure(401, "no hunter2-key here"), api_key="hunter2-key")


async def test_provider_words_are_made_fit_to_show(server: ModelServer) -> None:
    """A provider can neither move a cursor, hide text nor fill a terminal."""
    message = "a\x1b[2Jb\r\nc\u202ed\u200be\0f " + "x" * 2000
    with pytest.raises(ModelRefusedError) as caught:
        await ask(server, failure(400, message))

    assert "'a [2Jb c d e f xxx" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


async def test_cause_is_kept(server: ModelServer) -> None:
    """The SDK's own error stays attached for whoever debugs."""
    with pytest.raises(ModelUnavailableError) as caught:
        await ask(server, failure(500))

    assert type(caught.value.__cause__).__module__.startswith("openai")


async def test_text_that_utf8_cannot_carry_is_refused(server: ModelServer) -> None:
    """A lone surrogate, as a command line can hold one, is refused before anything is sent."""
    async with client(server.base_url) as model:
        with pytest.raises(ModelRefusedError, match="UTF-8 cannot carry"):
            await model.complete([Message("user", "\udcff")])

    assert server.requests == []


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_key": None, "base_url": None}, "no key for api.openai.com: set OPENAI_API_KEY"),
        ({"api_key": "", "base_url": None}, "no key for api.openai.com: set OPENAI_API_KEY"),
        ({"api_key": f"{KEY}\n"}, "OPENAI_API_KEY holds a space, a line break"),
        ({"api_key": f"{KEY}é"}, "OPENAI_API_KEY holds a space, a line break"),
        ({"base_url": "127.0.0.1:8000"}, "expected OPENAI_BASE_URL to be an address"),
        ({"base_url": "file:///etc/passwd"}, "expected OPENAI_BASE_URL to be an address"),
        ({"base_url": "http://host:port/v1"}, "expected OPENAI_BASE_URL to be an address"),
        ({"base_url": "http://me:hunter2@host/v1"}, "OPENAI_BASE_URL holds a password for host"),
    ],
)
async def test_unusable_settings_are_said_before_anything_is_sent(
    changes: dict[str, Any], sentence: str
) -> None:
    """A key or an address that cannot work is the operator's to correct, and is not repeated."""
    arguments = {"base_url": "http://127.0.0.1:1/v1"} | changes
    with pytest.raises(SettingsError) as caught:
        async with client(**arguments):
            pass

    assert sentence in str(caught.value)
    assert KEY not in str(caught.value)
    assert "hunter2" not in str(caught.value)
