"""Endpoints that do not know a parameter are asked without it, and it is remembered."""

import json
from collections.abc import Iterator

import pytest
from support.model_server import Answer, ModelServer, failure
from support.openai_models import ASK, Heard, client

from orchestrator.chat import ModelRequest
from orchestrator.errors import ModelRefusedError

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
WITH_SCHEMA = ModelRequest(messages=ASK.messages, json_schema=json.dumps(SCHEMA))
BOUNDED = ModelRequest(messages=ASK.messages, max_completion_tokens=7)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


def parameters(server: ModelServer, *names: str) -> list[list[str]]:
    """Which of `names` each request had."""
    return [[name for name in names if name in request.body] for request in server.requests]


@pytest.mark.parametrize(
    ("unknown", "api", "had"),
    [
        (("stream_options",), "chat", [["stream", "stream_options"], ["stream"], ["stream"]]),
        (("stream",), "chat", [["stream", "stream_options"], [], []]),
        (
            ("stream_options", "stream"),
            "chat",
            [["stream", "stream_options"], ["stream"], [], []],
        ),
        (("stream",), "responses", [["stream"], [], []]),
        (("store",), "responses", [["stream", "store"], ["stream"], ["stream"]]),
        (("store", "stream"), "responses", [["stream", "store"], ["stream"], [], []]),
    ],
)
async def test_stream_that_is_refused_is_done_without(
    unknown: tuple[str, ...], api: str, had: list[list[str]]
) -> None:
    """Whoever listens hears the reply all the same, and the second request is not refused."""
    heard = [Heard(), Heard()]
    names = ["stream", "stream_options"] if api == "chat" else ["stream"]
    names += ["store"] if "store" in unknown else []
    with ModelServer(unknown_parameters=unknown) as server:
        async with client(server.base_url, api=api) as model:
            replies = [await model.complete(ASK, on_text=each) for each in heard]

        assert [reply.text for reply in replies] == ["What is it?"] * 2
        assert [each.text for each in heard] == ["What is it?"] * 2
        assert parameters(server, *names) == had


@pytest.mark.parametrize(
    "message",
    [
        "Your organization must be verified to stream this model.",
        "Streaming is not supported",
    ],
)
async def test_refusal_in_words_alone_is_understood(server: ModelServer, message: str) -> None:
    """An endpoint that names no parameter is understood by what it says."""
    server.next_answers.append(failure(400, message, parameter="stream", code="unsupported_value"))
    heard = Heard()
    async with client(server.base_url) as model:
        await model.complete(ASK, on_text=heard)

    assert heard.text == "What is it?"
    assert parameters(server, "stream") == [["stream"], []]


async def test_other_name_of_the_limit_is_tried_once_and_remembered() -> None:
    """An endpoint that knows the limit by its other name is asked by that name from then on."""
    with ModelServer(unknown_parameters=["max_tokens"]) as server:
        async with client(server.base_url) as model:
            await model.complete(BOUNDED)
            await model.complete(BOUNDED)

        names = ("max_tokens", "max_completion_tokens")
        assert parameters(server, *names) == [
            ["max_tokens"],
            ["max_completion_tokens"],
            ["max_completion_tokens"],
        ]


async def test_endpoint_that_knows_neither_name_is_not_asked_without_a_limit() -> None:
    """A bound that cannot be stated is an error, and not for ever asked about."""
    with ModelServer(unknown_parameters=["max_tokens", "max_completion_tokens"]) as server:
        async with client(server.base_url) as model:
            with pytest.raises(ModelRefusedError, match="Unknown parameter"):
                await model.complete(BOUNDED)

        assert len(server.requests) < 10
        assert all("max_" in str(request.body) for request in server.requests)


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        (None, None),  # not OpenAI's own endpoint
        ("none", None),
        ("json_object", {"type": "json_object", "schema": SCHEMA}),
        (
            "json_schema",
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": False},
            },
        ),
    ],
)
async def test_schema_is_sent_as_it_is_set(
    server: ModelServer, structured: str | None, sent: object
) -> None:
    """A model is given a schema in the form that is set for it, and none in any other request."""
    async with client(server.base_url, structured=structured) as model:
        await model.complete(WITH_SCHEMA)
        await model.complete(ASK)

    assert [request.body.get("response_format") for request in server.requests] == [sent, None]


@pytest.mark.parametrize(("api", "name"), [("chat", "response_format"), ("responses", "text")])
async def test_schema_that_is_refused_is_done_without(api: str, name: str) -> None:
    """An endpoint without structured answers is asked again, and not given a schema any more."""
    parameter = "response_format" if api == "chat" else "text.format"
    refusal = failure(400, f"Unknown parameter: '{parameter}'", parameter=parameter)
    with ModelServer() as server:
        server.next_answers.append(refusal)
        async with client(server.base_url, api=api, structured="json_schema") as model:
            for _ in range(2):
                assert (await model.complete(WITH_SCHEMA)).text == "What is it?"

        assert parameters(server, name) == [[name], [], []]


async def test_schema_that_cannot_be_read_is_done_without_once(server: ModelServer) -> None:
    """What one schema is refused for is no reason to keep the next one back."""
    server.next_answers.append(failure(400, "Invalid schema for response_format 'answer'"))
    async with client(server.base_url, structured="json_schema") as model:
        await model.complete(WITH_SCHEMA)
        await model.complete(WITH_SCHEMA)

    assert parameters(server, "response_format") == [["response_format"], [], ["response_format"]]


async def test_schema_that_is_no_json_is_refused_before_anything_is_sent(
    server: ModelServer,
) -> None:
    """A broken schema is whoever's who made it, and no reason for a traceback."""
    broken = ModelRequest(messages=ASK.messages, json_schema="{not json")
    async with client(server.base_url, structured="json_schema") as model:
        with pytest.raises(ModelRefusedError, match="a schema that is no JSON"):
            await model.complete(broken)

    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        failure(400, "Unsupported value: 'temperature' does not support 0.5", code="unsupported"),
        failure(400, "Unknown parameter: 'top_k'", code="unknown_parameter", parameter="top_k"),
        failure(400, "reasoning_effort is not supported with this model"),
    ],
)
async def test_what_the_operator_set_is_not_left_out(server: ModelServer, answer: Answer) -> None:
    """A setting that an endpoint refuses is the operator's to take back, and he reads which."""
    server.next_answers.append(answer)
    async with client(
        server.base_url, temperature=0.5, reasoning_effort="low", extra_body={"top_k": 1}
    ) as model:
        with pytest.raises(ModelRefusedError):
            await model.complete(ASK, on_text=Heard())

    assert len(server.requests) == 1
