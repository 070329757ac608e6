"""The stub endpoint stands in for a provider in other tests, so that its own promises are held."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support import model_server
from support.model_server import ROOT_MODEL, SUB_MODEL, Answer, ModelServer

SCRIPT = """
sub_otherwise = "echo"

[[root]]
text = "from the root"

[[sub]]
contains = "capital"
text = "Paris"
"""


@pytest.fixture
def served_base_url(tmp_path: Path) -> Iterator[str]:
    """The address of a server that runs as a program, with nothing but the standard library."""
    script = tmp_path / "a.toml"
    script.write_text(SCRIPT)
    program = str(model_server.__file__)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", program, "--script", str(script), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
        process.terminate()


def user_message(text: str) -> openai.types.chat.ChatCompletionUserMessageParam:
    return {"role": "user", "content": text}


def test_program_serves_a_script(served_base_url: str) -> None:
    """A container that holds one file and a script plays both models."""
    with openai.OpenAI(base_url=served_base_url, api_key="any", max_retries=0) as client:
        texts = [
            client.chat.completions.create(model=model, messages=[user_message(prompt)])
            .choices[0]
            .message.content
            for model, prompt in [
                (ROOT_MODEL, "q"),
                (SUB_MODEL, "the capital"),
                (SUB_MODEL, "other"),
            ]
        ]
        names = [model.id for model in client.models.list()]

    assert texts == ["from the root", "Paris", "other"]
    assert names == [ROOT_MODEL, SUB_MODEL]


def test_streamed_reply_is_the_same_reply() -> None:
    """A client that asks for a stream gets the text in pieces, then the usage."""
    with (
        ModelServer(root=["one two three"]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="any") as client,
        client.chat.completions.create(
            model=ROOT_MODEL,
            messages=[user_message("q")],
            stream=True,
            stream_options={"include_usage": True},
        ) as stream,
    ):
        chunks = list(stream)

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "one two three"
    assert len(pieces) == 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 10


def test_response_is_of_the_sdks_own_type() -> None:
    """The other way of asking gives what the SDK takes for a response, words and counts in it."""
    with (
        ModelServer(root=["one two"]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="any") as client,
    ):
        response = client.responses.create(model=ROOT_MODEL, input="q", store=False)

    assert (response.status, response.output_text) == ("completed", "one two")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 5)


def test_streamed_response_has_the_sdks_own_events() -> None:
    """Its pieces, and the event it ends with, are what the SDK takes for them."""
    answer = Answer(text="one two", pieces=["one ", "two"], finish_reason="length")
    with (
        ModelServer(root=[answer]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="any") as client,
        client.responses.create(model=ROOT_MODEL, input="q", stream=True) as stream,
    ):
        events = list(stream)

    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1]
    assert pieces == ["one ", "two"]
    assert last.type == "response.incomplete"
    assert last.response.output_text == "one two"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_parameter_that_the_server_does_not_know_is_refused() -> None:
    """An endpoint that is set up to know a parameter no longer says so, as endpoints do."""
    with (
        ModelServer(root=["a"], unknown_parameters=["temperature"]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'temperature'"):
            client.chat.completions.create(
                model=ROOT_MODEL, messages=[user_message("q")], temperature=0.5
            )
        client.chat.completions.create(model=ROOT_MODEL, messages=[user_message("q")])

    assert len(server.requests) == 2
