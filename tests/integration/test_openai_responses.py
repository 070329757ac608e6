"""The Responses API: what is sent, what comes, and what it is called there."""

from collections.abc import Iterator

import pytest
from support.model_server import RESPONSES, Answer, ModelServer, failure, raw_json
from support.openai_models import ASK, ask, client

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.price import Price

USAGE = {
    "prompt_tokens": 1_000_000,
    "completion_tokens": 100_000,
    "prompt_tokens_details": {"cached_tokens": 500_000},
    "completion_tokens_details": {"reasoning_tokens": 90_000},
}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


async def test_request_is_what_was_asked_for(server: ModelServer) -> None:
    """It goes to its own path, in its own words, and is not to be stored."""
    chat = (Message("system", "Be short."), Message("user", "Hi {x} \0 é"))
    asked = ModelRequest(messages=chat, max_completion_tokens=7, json_schema='{"type": "object"}')
    async with client(
        server.base_url, api="responses", reasoning_effort="low", structured="json_schema"
    ) as model:
        await model.complete(asked)

    request = server.requests[0]
    schema = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}
    assert request.path == RESPONSES
    assert request.body == {
        "model": "sub-model",
        "instructions": "Be short.",
        "input": [{"role": "user", "content": "Hi {x} \0 é"}],
        "store": False,
        "reasoning": {"effort": "low"},
        "max_output_tokens": 7,
        "text": {"format": schema | {"strict": False}},
    }


async def test_usage_and_cost_are_counted(server: ModelServer) -> None:
    """Cached tokens cost what they do, reasoning is among the reply's, under their other names."""
    price = Price(prompt_usd=2.0, cached_prompt_usd=0.5, completion_usd=10.0)
    reply = await ask(server, Answer(text="a", usage=USAGE), api="responses", price=price)

    assert (reply.prompt_tokens, reply.cached_prompt_tokens) == (1_000_000, 500_000)
    assert reply.completion_tokens == 100_000
    assert reply.cost_usd == pytest.approx(1.0 + 0.25 + 1.0)


async def test_cut_reply_says_so(server: ModelServer) -> None:
    """A response that is incomplete for its limit is a reply that was cut, even an empty one."""
    half = Answer(text="half", finish_reason="length")
    nothing = Answer(text=None, finish_reason="length", usage=None)

    assert (await ask(server, half, api="responses")).was_cut
    assert await ask(server, nothing, api="responses") == ModelReply(text="", was_cut=True)


async def test_reasoning_stays_out_of_the_text(server: ModelServer) -> None:
    """Neither an item of reasoning nor a tagged part reaches the transcript."""
    answer = Answer(text="<think>secret</think>\n\nforty-two", reasoning="more of the plan")

    assert (await ask(server, answer, api="responses")).text == "forty-two"


@pytest.mark.parametrize(
    ("answer", "trouble", "advice"),
    [
        pytest.param(
            failure(401, "Incorrect API key provided", code="invalid_api_key"),
            "status 401",
            "Set OPENAI_API_KEY",
            id="401",
        ),
        pytest.param(
            Answer(status=404, body=b'{"detail": "Not Found"}'),
            "status 404",
            "Check OPENAI_BASE_URL; it usually ends in /v1, or leave models.sub-model.api at its",
            id="no-such-api",
        ),
        pytest.param(
            failure(400, "too long", code="context_length_exceeded"),
            "status 400",
            "Send shorter prompts",
            id="context",
        ),
        pytest.param(
            Answer(text=None, finish_reason="content_filter"),
            "a filtered completion",
            "Reword the prompt",
            id="filtered",
        ),
        pytest.param(
            raw_json({"status": "failed", "error": {"code": "invalid_prompt", "message": "no"}}),
            "an error instead of a reply: 'no'",
            "Correct the request",
            id="failed-prompt",
        ),
    ],
)
async def test_refusal_is_final(
    server: ModelServer, answer: Answer, trouble: str, advice: str
) -> None:
    """A refusal says what came and what to change, by the same rules as of any endpoint."""
    with pytest.raises(ModelRefusedError) as caught:
        await ask(server, answer, api="responses")

    assert f", came {trouble}" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (failure(500, "it broke"), "status 500: 'it broke'"),
        (raw_json({"status": "completed"}), "a response without output"),
        (raw_json({"status": "queued", "output": []}), "a response that has not ended"),
        (raw_json({"choices": [{"message": {"content": "a"}}]}), "a response that has not ended"),
        (
            raw_json({"status": "failed", "error": {"code": "server_error", "message": "sorry"}}),
            "an error instead of a reply: 'sorry'",
        ),
        (raw_json({"status": "failed"}), "an error instead of a reply: 'no reason'"),
    ],
)
async def test_trouble_that_may_pass_is_unavailable(
    server: ModelServer, answer: Answer, trouble: str
) -> None:
    """A broken or busy endpoint is told apart from one that refuses."""
    with pytest.raises(ModelUnavailableError) as caught:
        await ask(server, answer, api="responses")

    assert f", came {trouble}" in str(caught.value)


async def test_conversation_keeps_its_order(server: ModelServer) -> None:
    """Earlier replies go back as the assistant's, later instructions as the developer's."""
    chat = (
        Message("user", "a"),
        Message("assistant", "b"),
        Message("system", "c"),
        Message("user", "d"),
    )
    async with client(server.base_url, api="responses") as model:
        reply = await model.complete(ModelRequest(messages=chat))

    roles = [message["role"] for message in server.requests[0].messages]
    assert roles == ["user", "assistant", "developer", "user"]
    assert reply.text == "d"
    assert "instructions" not in server.requests[0].body


async def test_empty_prompt_is_a_prompt(server: ModelServer) -> None:
    """A chat of one empty message is asked like any other."""
    assert (await ask(server, Answer(text="a"), api="responses")).text == "a"
    assert ASK.messages[0].role == "user"
