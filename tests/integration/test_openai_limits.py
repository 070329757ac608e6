"""What an account is allowed, kept by all clients of one provider together."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from support.model_server import ROOT_MODEL, Answer, ModelServer, failure
from support.openai_models import ASK, client

from orchestrator.chat import Message, ModelRequest
from orchestrator.errors import ModelUnavailableError
from orchestrator.models.turnstile import Turnstiles


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as serving:
        yield serving


def for_run(name: str, prompt: str = "hello") -> ModelRequest:
    return ModelRequest(messages=(Message("user", prompt),), on_behalf_of=name)


async def test_requests_wait_for_their_turn(server: ModelServer) -> None:
    """No more requests are open at once than are allowed, and as many as are."""
    server.next_answers.extend([Answer(text="a", delay_s=0.05)] * 12)
    async with client(server.base_url, concurrent_requests=3) as model:
        await asyncio.gather(*(model.complete(ASK) for _ in range(12)))

    assert server.peak_open_request_count == 3


async def test_requests_are_concurrent(server: ModelServer) -> None:
    """Control: the same requests are all open at once where that is allowed."""
    server.next_answers.extend([Answer(text="a", delay_s=0.3)] * 12)
    async with client(server.base_url, concurrent_requests=12) as model:
        await asyncio.gather(*(model.complete(ASK) for _ in range(12)))

    assert server.peak_open_request_count == 12


@pytest.mark.parametrize("is_shared", [True, False], ids=["one-composition", "two"])
async def test_clients_of_one_provider_wait_together(
    server: ModelServer, *, is_shared: bool
) -> None:
    """Two models at one provider have its limit between them; compositions know nothing of it."""
    server.next_answers.extend([Answer(text="a", delay_s=0.1)] * 8)
    first = Turnstiles()
    second = first if is_shared else Turnstiles()
    async with (
        client(server.base_url, concurrent_requests=2, turnstiles=first) as one,
        client(server.base_url, name=ROOT_MODEL, concurrent_requests=2, turnstiles=second) as other,
    ):
        await asyncio.gather(*(model.complete(ASK) for model in (one, other) for _ in range(4)))

    assert server.peak_open_request_count == (2 if is_shared else 4)


async def test_single_prompt_is_not_behind_hundreds_of_another_run(server: ModelServer) -> None:
    """Whoever asks once while another run asks 256 times is answered among the first."""
    server.next_answers.extend([Answer(text="a", delay_s=0.01)] * 257)
    async with client(server.base_url, concurrent_requests=2) as model:
        many = [asyncio.create_task(model.complete(for_run("many"))) for _ in range(256)]
        await asyncio.to_thread(server.wait_until, lambda: len(server.requests) > 1)
        await model.complete(for_run("single", prompt="me too"))
        answered_count = sum(task.done() for task in many)
        await asyncio.gather(*many)

    prompts = [request.prompt for request in server.requests]
    assert prompts.index("me too") < 20
    assert answered_count < 40


async def test_endpoint_that_asks_to_wait_is_asked_by_nobody_meanwhile(server: ModelServer) -> None:
    """After a 429 every client of the provider waits as long as it asks for, not one alone."""
    server.next_answers.append(failure(429, "slow down", headers={"Retry-After": "0.4"}))
    turnstiles = Turnstiles()
    async with (
        client(server.base_url, turnstiles=turnstiles) as refused,
        client(server.base_url, name=ROOT_MODEL, turnstiles=turnstiles) as other,
    ):
        server.next_answers.append(Answer(text="a"))
        with pytest.raises(ModelUnavailableError, match="slow down"):
            await refused.complete(ASK)
        started_s = time.monotonic()
        await other.complete(ASK)

    assert time.monotonic() - started_s >= 0.3


async def test_failure_without_a_wait_holds_nobody_up(server: ModelServer) -> None:
    """Control: an endpoint that does not ask to wait is asked at once."""
    server.next_answers.append(failure(429, "slow down"))
    async with client(server.base_url) as model:
        with pytest.raises(ModelUnavailableError, match="slow down"):
            await model.complete(ASK)
        started_s = time.monotonic()
        await model.complete(ASK)

    assert time.monotonic() - started_s < 0.3


async def test_cancelled_while_waiting_is_never_sent(server: ModelServer) -> None:
    """A call that is cancelled before its turn costs nothing, and leaves its turn to the next."""
    server.next_answers.append(Answer(text="a", delay_s=0.3))
    async with client(server.base_url, concurrent_requests=1) as model:
        first = asyncio.create_task(model.complete(ASK))
        await asyncio.to_thread(server.wait_until, lambda: server.open_request_count == 1)
        gone = asyncio.create_task(model.complete(for_run("gone", "never sent")))
        last = asyncio.create_task(model.complete(for_run("last", "sent")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({first, gone, last})

    assert [request.prompt for request in server.requests] == ["What is it?", "sent"]
