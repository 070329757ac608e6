"""What a cell's query may be, what it costs, and what the cell reads when it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.desks import Desk
from support.fake_models import FakeModel

from orchestrator.chat import ModelReply
from orchestrator.domain import QueryFailure, QueryFailureReason
from orchestrator.errors import ModelError, ModelRefusedError, ModelUnavailableError
from orchestrator.events import QueryRefused
from orchestrator.limits import QueryLimits, RunLimits

LIMITS = RunLimits(queries=10)
QUERY_LIMITS = QueryLimits(concurrent_queries=3, prompt_chars=100, batch_prompts=5)


def desk_of(model: FakeModel, *, limits: RunLimits = LIMITS, **options: Any) -> Desk:  # noqa: ANN401 - a desk's own
    """Opens a desk with tight limits."""
    return Desk(model, limits=limits, query_limits=QUERY_LIMITS, **options)


def echo(*, is_held: bool = False) -> FakeModel:
    """Returns a model that answers with the prompt in upper case."""
    return FakeModel([lambda messages: messages[-1].content.upper()], name="m", is_held=is_held)


async def test_answers_come_in_the_order_of_the_prompts() -> None:
    """Each prompt gets its own answer, is counted, bounded and told of."""
    desk = desk_of(model := echo())

    assert await desk.ask("a", "b", "c") == ["A", "B", "C"]
    assert desk.ledger.spent.queries == 3
    assert desk.account.usage["m"].request_count == 3
    assert model.max_completion_tokens == [7, 7, 7]
    assert [event.prompt for event in desk.started()] == ["a", "b", "c"]
    assert {event.prompt_index for event in desk.ended()} == {0, 1, 2}


async def test_prompts_are_asked_at_the_same_time_within_the_limit() -> None:
    """As many queries are under way as the limit allows, and no more."""
    desk = desk_of(model := echo(is_held=True))
    task = asyncio.ensure_future(desk.ask("a", "b", "c", "d", "e"))
    await model.until_open(3)
    model.gate.set()
    await task

    assert model.max_open_count == QUERY_LIMITS.concurrent_queries


async def test_an_unknown_alias_is_refused_and_told_the_known_ones() -> None:
    """A sandbox cannot name a provider's model; what it may name, it is told."""
    desk = desk_of(model := echo())
    [failure] = await desk.ask("a", alias="gpt-4o")

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.MODEL_REFUSED
    assert "use one of: sub" in failure.message
    assert model.requests == []
    assert isinstance(desk.events[0], QueryRefused)


async def test_a_known_alias_reaches_its_model() -> None:
    """The control: an alias the session allows is served by its model."""
    desk = desk_of(echo(), more_models={"other": FakeModel(["from the other"])})

    assert await desk.ask("a", alias="other") == ["from the other"]
    assert await desk.ask("a", alias="sub") == ["A"]


async def test_a_prompt_that_is_too_large_fails_alone() -> None:
    """One prompt over the limit does not cost the others their answers."""
    desk = desk_of(echo())
    answers = await desk.ask("a", "x" * 101, "y" * 100)

    assert [answers[0], answers[2]] == ["A", "Y" * 100]
    assert answers[1] == QueryFailure(
        reason=QueryFailureReason.TOO_LARGE,
        message="a prompt of 101 characters, at most 100 are taken; cut it into pieces",
    )
    assert desk.ledger.spent.queries == 2


async def test_a_batch_of_too_many_prompts_is_refused_whole() -> None:
    """One prompt more than the limit, and nothing is sent; at the limit, all are."""
    desk = desk_of(model := echo())
    answers = await desk.ask(*"abcdef")

    assert {a.reason for a in answers if isinstance(a, QueryFailure)} == {
        QueryFailureReason.TOO_MANY
    }
    assert (len(answers), model.requests) == (6, [])
    assert await desk.ask(*"abcde") == list("ABCDE")


async def test_a_batch_that_cannot_be_afforded_is_refused_whole() -> None:
    """Not one prompt of it is sent, and the model reads what is left."""
    desk = desk_of(model := echo(), limits=RunLimits(queries=2))
    answers = await desk.ask("a", "b", "c")

    assert {a.message for a in answers if isinstance(a, QueryFailure)} == {
        "3 prompts asked, 2 queries left; send fewer, longer prompts"
    }
    assert (len(answers), model.requests) == (3, [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ModelUnavailableError("503 from https://api.example/v1, key sk-1", model="gpt-x"),
            QueryFailureReason.MODEL_FAILED,
        ),
        (
            ModelRefusedError("bad key sk-1 at https://api.example/v1", model="gpt-x"),
            QueryFailureReason.MODEL_REFUSED,
        ),
    ],
)
async def test_a_model_that_fails_tells_the_sandbox_no_secret(
    error: ModelError, reason: QueryFailureReason
) -> None:
    """The cell learns what to do; keys, addresses and models' names stay on the host."""
    desk = desk_of(FakeModel([error]))
    [failure] = await desk.ask("a")

    assert isinstance(failure, QueryFailure)
    assert failure.reason is reason
    assert not any(secret in failure.message for secret in ("sk-1", "example", "gpt-x", "503"))
    assert desk.ended()[0].failure == failure
    assert (desk.ledger.spent.queries, desk.ledger.reserved.queries) == (1, 0)


async def test_a_repeated_prompt_is_answered_once_and_shown_as_repeat() -> None:
    """The second time costs nothing: no query, no tokens, and the trajectory says so."""
    desk = desk_of(model := echo())
    await desk.ask("a")
    assert await desk.ask("a", "b") == ["A", "B"]

    assert len(model.requests) == desk.ledger.spent.queries == 2
    assert [event.is_repeat for event in desk.started()] == [False, True, False]
    [repeat] = [event for event in desk.ended() if event.is_repeat]
    assert repeat.reply == ModelReply(text="A")


async def test_a_repeat_within_a_batch_is_answered_once() -> None:
    """Five times the same prompt is one query; the limit is reckoned accordingly."""
    desk = desk_of(model := echo(), limits=RunLimits(queries=1))

    assert await desk.ask("a", "a", "a") == ["A", "A", "A"]
    assert len(model.requests) == 1


async def test_repeats_are_asked_again_where_that_is_wanted() -> None:
    """The control: switched off, each prompt is a query of its own."""
    desk = desk_of(model := echo(), answers_repeats_once=False)
    await desk.ask("a", "a")
    await desk.ask("a")

    assert len(model.requests) == desk.ledger.spent.queries == 3
    assert not any(event.is_repeat for event in desk.started())


async def test_the_same_prompt_to_another_model_is_no_repeat() -> None:
    """An answer is one model's answer."""
    desk = desk_of(echo(), more_models={"other": FakeModel(["o"], name="other-model")})

    assert await desk.ask("a") + await desk.ask("a", alias="other") == ["A", "o"]


async def test_a_prompt_under_way_is_joined() -> None:
    """The same prompt asked while it is open waits for that answer."""
    desk = desk_of(model := echo(is_held=True))
    first = asyncio.ensure_future(desk.ask("a"))
    await model.until_open(1)
    second = asyncio.ensure_future(desk.ask("a"))
    await asyncio.sleep(0)
    model.gate.set()

    assert (await first, await second) == (["A"], ["A"])
    assert len(model.requests) == 1


async def test_a_failure_is_not_shared_with_later_requests() -> None:
    """A prompt that failed is asked again when the cell asks again."""
    desk = desk_of(FakeModel([ModelUnavailableError("down", model="m"), "up"]))
    await desk.ask("a")

    assert await desk.ask("a") == ["up"]


async def test_cancelling_cancels_the_providers_requests_and_settles() -> None:
    """Nothing goes on being paid for once nobody waits; what was not sent comes back."""
    desk = desk_of(model := echo(is_held=True))
    task = asyncio.ensure_future(desk.ask("a", "b", "c", "d", "e"))
    await model.until_open(3)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert (model.open_count, model.cancelled_count) == (0, 3)
    assert (desk.ledger.spent.queries, desk.ledger.reserved.queries) == (3, 0)
    failures = [event.failure for event in desk.ended()]
    assert [f.reason for f in failures if f] == [QueryFailureReason.CANCELLED] * 3


async def test_cancelling_one_request_leaves_those_who_joined_it() -> None:
    """Whoever still waits gets the answer."""
    desk = desk_of(model := echo(is_held=True))
    first = asyncio.ensure_future(desk.ask("a"))
    await model.until_open(1)
    second = asyncio.ensure_future(desk.ask("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    model.gate.set()

    assert await second == ["A"]
    assert (len(model.requests), model.cancelled_count) == (1, 0)


async def test_a_request_does_not_join_what_is_being_cancelled() -> None:
    """A prompt asked in the moment its twin is cancelled is asked anew."""
    desk = desk_of(model := echo(is_held=True))
    first = asyncio.ensure_future(desk.ask("a"))
    await model.until_open(1)
    first.cancel()
    second = asyncio.ensure_future(desk.ask("a"))
    await asyncio.wait({first})
    model.gate.set()

    assert await second == ["A"]


async def test_any_str_is_a_prompt() -> None:
    """Half a surrogate pair does not break the memory of answers."""
    assert await desk_of(FakeModel(["ok"])).ask("\ud800", "\x00", "{}") == ["ok"] * 3
