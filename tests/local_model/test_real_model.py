from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from openai import AsyncOpenAI

from orchestrator.app.host import find_weights
from orchestrator.engine.prompts import small
from orchestrator.models.local.endpoint import local_endpoint
from orchestrator.models.local.serve import MODEL_NAME
from orchestrator.settings import load

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

# Loading takes seconds, and a busy machine reads ten tokens a second.
pytestmark = [pytest.mark.local_model, pytest.mark.timeout(600)]


@pytest.fixture
async def client() -> AsyncIterator[AsyncOpenAI]:
    """A client of a freshly started endpoint.

    A machine without the weights or the engine fails here, and the error says what to do: the
    command that runs these tests installs both, so their absence is no reason to pass.
    """
    settings = load()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    async with (
        local_endpoint(lambda: find_weights(settings), port=port, report=print) as url,
        AsyncOpenAI(base_url=url, api_key="none", timeout=500, max_retries=0) as opened,
    ):
        yield opened


async def _reply(client: AsyncOpenAI, *messages: ChatCompletionMessageParam) -> str:
    completion = await client.chat.completions.create(
        model=MODEL_NAME, messages=list(messages), max_tokens=120
    )
    return completion.choices[0].message.content or ""


async def test_endpoint_lists_the_model(client: AsyncOpenAI) -> None:
    """The endpoint names the model it serves, which is how a running one is recognised."""
    assert [model.id async for model in client.models.list()] == [MODEL_NAME]


async def test_sub_model_reads_a_passage(client: AsyncOpenAI) -> None:
    """A query over a short passage gets the answer that is in it, and the same one twice."""
    question = (
        "Ticket 88: the printer in room 12 jams on every page, no invoice can be printed.\n\n"
        "Which device is broken? Answer with one word."
    )

    replies = [await _reply(client, {"role": "user", "content": question}) for _ in range(2)]

    assert "printer" in replies[0].lower()
    assert replies[0] == replies[1]


async def test_root_model_writes_a_cell(client: AsyncOpenAI) -> None:
    """Under the small profile's texts the model's first reply is code that works on the context."""
    shots: list[ChatCompletionMessageParam] = [
        {"role": "assistant", "content": shot.content}
        if shot.role == "assistant"
        else {"role": "user", "content": shot.content}
        for shot in small.FEW_SHOT
    ]

    reply = await _reply(
        client,
        {"role": "system", "content": small.SYSTEM},
        *shots,
        {"role": "user", "content": small.OPENING},
        {"role": "assistant", "content": f"```repl\n{small.PROBE_SOURCE}\n```"},
        {
            "role": "user",
            "content": "REPL output:\nstr 12628835\n===== abc.py =====\n\n"
            'Question: How many lines start with "class "?',
        },
    )

    assert reply.startswith("```repl\n")
    assert "context" in reply
