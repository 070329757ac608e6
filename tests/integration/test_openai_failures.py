import json
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from support.model_server import SUB_MODEL, Answer, ModelServer, failure, raw_json
from support.openai_models import ASK, KEY, Heard, ask, client, listen

from orchestrator.chat import Message, ModelRequest
from orchestrator.errors import (
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
    SettingsError,
)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


def page(title: str) -> bytes:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head></html>".encode()


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
    """A refusal says what came and what to change."""
    with pytest.raises(ModelRefusedError) as caught:
        await ask(server, answer)

    message = str(caught.value)
    host = f"127.0.0.1:{server.port}"
    assert message.startswith(f"expected a reply from model 'sub-model' at {host}, came {trouble}")
    assert advice.format(port=server.port) in message
    assert caught.value.model == SUB_MODEL
    assert len(server.requests) == 1


IN_BODIES = [
    pytest.param(failure(500, "it broke"), "status 500: 'it broke'", False, id="500"),
    pytest.param(
        failure(429, "Rate limit reached"),
        "status 429: 'Rate limit reached'",
        False,
        id="429",
    ),
    pytest.param(
        Answer(status=502, body=page("Bad Gateway"), content_type="text/html"),
        "status 502: \"an HTML page titled 'Bad Gateway'\"",
        False,
        id="502-html",
    ),
    pytest.param(
        Answer(body=page("Welcome"), content_type="text/html"),
        "a body that is not JSON",
        True,
        id="200-html",
    ),
    pytest.param(
        Answer(body=b'{"choices": [{"message": {"content": "hal'),
        "a body that is not JSON",
        True,
        id="broken-json",
    ),
    pytest.param(Answer(body=b"[" * 100_000), "a body that is not JSON", True, id="deep-json"),
    pytest.param(Answer(body=b"\xff\xfe\xfd"), "a body that is not JSON", True, id="not-utf8"),
    pytest.param(raw_json([1, 2]), "JSON that is no object but list", True, id="json-list"),
    pytest.param(raw_json({"choices": []}), "a completion without choices", True, id="no-choices"),
    pytest.param(
        raw_json({"choices": [{}]}), "a completion without content", True, id="no-message"
    ),
    pytest.param(
        Answer(status=503, body=b"[" * 100_000),
        "status 503: '" + "[" * 499 + "…'",
        False,
        id="503-deep-json",
    ),
    pytest.param(
        raw_json({"error": {"message": "upstream is down", "code": 503}}),
        "status 503: 'upstream is down'",
        False,
        id="200-error",
    ),
]
ELSEWHERE = [
    pytest.param(
        raw_json({"choices": [{"message": {"content": ""}, "error": {"code": 502}}]}),
        "status 502: '{\"code\": 502}'",
        False,
        id="choice-error",
    ),
    pytest.param(Answer(text=None), "a completion without content", True, id="no-content"),
    pytest.param(Answer(resets=True), "no connection", True, id="reset"),
    pytest.param(Answer(text="a", promised_extra_bytes=9), "no connection", True, id="cut-off"),
]
PASSING = ("answer", "trouble", "may_be_billed")


@pytest.mark.parametrize(PASSING, [*IN_BODIES, *ELSEWHERE])
async def test_trouble_that_may_pass_is_unavailable(
    server: ModelServer, answer: Answer, trouble: str, *, may_be_billed: bool
) -> None:
    """A broken or busy endpoint is told apart from one that refuses, and says what it may cost."""
    with pytest.raises(ModelUnavailableError) as caught:
        await ask(server, answer)

    assert f", came {trouble}" in str(caught.value)
    assert caught.value.may_be_billed is may_be_billed


# The others break a whole reply: streams break in ways of their own, in test_openai_streams.py.
@pytest.mark.parametrize(PASSING, IN_BODIES)
async def test_trouble_is_the_same_for_whoever_listens(
    server: ModelServer, answer: Answer, trouble: str, *, may_be_billed: bool
) -> None:
    """What comes instead of a stream means what it means instead of a reply."""
    with pytest.raises(ModelUnavailableError) as caught:
        await listen(server, answer)

    assert f", came {trouble}" in str(caught.value)
    assert caught.value.may_be_billed is may_be_billed


async def test_nobody_listening_is_unavailable() -> None:
    """An endpoint that is not there is named by its host, and its address is put in question."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with client(f"http://127.0.0.1:{port}/v1") as model:
        with pytest.raises(ModelUnavailableError, match="no connection") as caught:
            await model.complete(ASK)

    assert not caught.value.may_be_billed
    assert f"Check OPENAI_BASE_URL, and that 127.0.0.1:{port} is up" in str(caught.value)


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
@pytest.mark.parametrize("on_text", [None, Heard()], ids=["alone", "heard"])
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_key_is_never_shown(
    server: ModelServer, echo: Callable[[], Answer], on_text: Heard | None, api: str
) -> None:
    """An endpoint that echoes the key cannot bring it into a message, a traceback or a repr."""
    server.next_answers.append(echo())
    async with client(server.base_url, api=api) as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(ASK, on_text=on_text)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(model)

    assert KEY[:12] not in shown


@pytest.mark.parametrize(
    "said",
    [
        f'{{"error": {{"message": "{KEY}"}}}}',
        f'{{"error": "{KEY}"}}',
        f'{{"type": "error", "message": "{KEY}"}}',
        f'{{"type": "response.failed", "response": {{"error": {{"message": "{KEY}"}}}}}}',
        KEY,
    ],
)
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_key_in_a_stream_is_never_shown(server: ModelServer, said: str, api: str) -> None:
    """Nor can an error in mid-stream, in whatever form it comes."""
    server.next_answers.append(Answer(stream_body=f"data: {said}\n\n".encode()))
    async with client(server.base_url, api=api) as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(ASK, on_text=Heard())
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)

    assert KEY[:12] not in shown


async def test_key_of_any_form_is_never_shown(server: ModelServer) -> None:
    """A key that looks like no known key is kept out as well."""
    with pytest.raises(ModelRefusedError, match=r"'no \[key\] here'"):
        await ask(server, failure(401, "no hunter2-key here"), api_key="hunter2-key")


async def test_every_secret_is_kept_out(server: ModelServer) -> None:
    """A header or a part of the address may be a key as well, one within another."""
    answer = failure(401, "no hunter2, no hunter22, no hunter3")
    secrets = {"headers": {"a": SecretStr("hunter2")}, "query": {}, "api_key": "hunter22"}
    with pytest.raises(ModelRefusedError, match=r"'no \[key\], no \[key\], no hunter3'"):
        await ask(server, answer, **secrets)


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
            await model.complete(ModelRequest(messages=(Message("user", "\udcff"),)))

    assert server.requests == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_key": None, "base_url": None}, "no key for api.openai.com: set OPENAI_API_KEY"),
        ({"api_key": "", "base_url": None}, "no key for api.openai.com: set OPENAI_API_KEY"),
        ({"api_key": f"{KEY}\n"}, "OPENAI_API_KEY holds a space, a line break"),
        ({"api_key": f"{KEY} "}, "OPENAI_API_KEY holds a space, a line break"),
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
