"""A run never spends more than it may, whatever happens at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_models import FakeModel

from orchestrator.domain import CellId, ModelReply, QueryFailure, QueryId, QueryRequest, RunLimits
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.errors import BudgetExhaustedError, ModelError, ModelUnavailableError


def test_what_is_reserved_is_not_left() -> None:
    """Reserving counts at once, before anything is spent."""
    ledger = Ledger(limits=RunLimits(queries=10))
    ledger.reserve(query_count=4)

    assert (ledger.left_query_count, ledger.spent_query_count) == (6, 0)


def test_a_query_is_settled_once() -> None:
    """Spending settles; closing after it changes nothing; spending again is a bug."""
    ledger = Ledger(limits=RunLimits(queries=2))
    [reservation] = ledger.reserve(query_count=1)
    reservation.spend()
    reservation.close()

    assert (ledger.left_query_count, ledger.spent_query_count) == (1, 1)
    with pytest.raises(ValueError, match="settled once"):
        reservation.spend()


def test_what_was_not_spent_comes_back() -> None:
    """Closing a reservation gives it back, once."""
    ledger = Ledger(limits=RunLimits(queries=2))
    for reservation in ledger.reserve(query_count=2):
        reservation.close()
        reservation.close()

    assert (ledger.left_query_count, ledger.reserved_query_count) == (2, 0)


def test_a_batch_is_refused_whole_with_a_sentence_that_teaches() -> None:
    """Nothing of a batch that is too dear is set aside, and the model learns what to do."""
    ledger = Ledger(limits=RunLimits(queries=41))

    with pytest.raises(BudgetExhaustedError) as caught:
        ledger.reserve(query_count=60)

    assert str(caught.value) == "60 prompts asked, 41 queries left; send fewer, longer prompts"
    assert (caught.value.limit, caught.value.used, caught.value.allowed) == ("queries", 0, 41)
    assert (ledger.left_query_count, ledger.is_exhausted) == (41, False)


def test_a_batch_that_is_just_affordable_is_taken() -> None:
    """The limit itself may be spent."""
    assert len(Ledger(limits=RunLimits(queries=60)).reserve(query_count=60)) == 60


def test_the_ledger_is_exhausted_only_when_one_more_was_asked_for() -> None:
    """A run that used its last query and needs no more has not failed at the limit."""
    ledger = Ledger(limits=RunLimits(queries=1))
    ledger.reserve(query_count=1)[0].spend()
    before = ledger.is_exhausted
    with pytest.raises(BudgetExhaustedError, match="1 prompt asked, no query left"):
        ledger.reserve(query_count=1)

    assert (before, ledger.is_exhausted) == (False, True)


def test_no_query_is_reserved_after_the_time() -> None:
    """Time is a limit like another."""
    clock: Iterator[float] = iter([0.0, 10.0, 10.0, 10.0])
    ledger = Ledger(limits=RunLimits(time_s=10.0), read_clock=lambda: next(clock))

    with pytest.raises(BudgetExhaustedError) as caught:
        ledger.reserve(query_count=1)

    assert caught.value.limit == "time_s"


def test_usage_adds_up_by_model() -> None:
    """Tokens and money are counted for each model, and an unknown price is not zero."""
    ledger = Ledger(limits=RunLimits())
    ledger.record("a", ModelReply(text="", prompt_tokens=3, completion_tokens=1, cost_usd=0.5))
    ledger.record("a", ModelReply(text="", prompt_tokens=4, completion_tokens=1, cost_usd=0.25))
    ledger.record("b", ModelReply(text="", prompt_tokens=5))

    assert ledger.usage["a"].prompt_tokens == 7
    assert (ledger.usage["a"].cost_usd, ledger.usage["b"].cost_usd) == (0.75, None)


_requests = st.lists(
    st.tuples(
        st.lists(
            st.sampled_from("abcdefgh"), min_size=1, max_size=6
        ),  # prompts, repeats among them
        st.integers(min_value=0, max_value=8),  # steps of the event loop before it is sent
        st.integers(min_value=0, max_value=12) | st.none(),  # steps until it is cancelled
    ),
    min_size=1,
    max_size=8,
)


async def _let_pass(step_count: int) -> None:
    for _ in range(step_count):
        await asyncio.sleep(0)


@settings(deadline=None, max_examples=150)
@given(
    requests=_requests,
    allowed=st.integers(min_value=0, max_value=12),
    slot_count=st.integers(min_value=1, max_value=4),
    failing=st.sets(st.sampled_from("abcdefgh")),
    answers_repeats_once=st.booleans(),
)
def test_no_schedule_spends_more_than_allowed(
    requests: list[tuple[list[str], int, int | None]],
    *,
    allowed: int,
    slot_count: int,
    failing: set[str],
    answers_repeats_once: bool,
) -> None:
    """Concurrent, failing, repeated and cancelled queries: spent <= limit, reserved back to 0."""

    async def schedule() -> None:
        ledger = Ledger(limits=RunLimits(queries=allowed, concurrent_queries=slot_count))

        def check(_event: object) -> None:
            assert ledger.spent_query_count + ledger.reserved_query_count <= allowed

        def reply(prompt: str) -> str | ModelError:
            check(None)
            return ModelUnavailableError("down", model="sub") if prompt in failing else prompt

        model = FakeModel([lambda messages: reply(messages[-1].content)], name="sub")
        desk = QueryDesk(
            models={"sub": model},
            ledger=ledger,
            sink=check,
            rules=QueryRules(
                default_alias="sub",
                prompt_chars=10,
                batch_prompt_count=10,
                max_completion_tokens=None,
                answers_repeats_once=answers_repeats_once,
            ),
        )

        async def send(number: int, prompts: list[str], delay: int, patience: int | None) -> None:
            await _let_pass(delay)
            request = QueryRequest(
                query_id=QueryId(f"q{number}"), cell_id=CellId(1), prompts=tuple(prompts)
            )
            task = asyncio.ensure_future(desk.answer(request))
            if patience is not None:
                await _let_pass(patience)
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                answers = task.result()
                assert len(answers) == len(prompts)
                for prompt, answer in zip(prompts, answers, strict=True):
                    assert isinstance(answer, QueryFailure) or answer == prompt

        async with asyncio.TaskGroup() as group:
            for number, (prompts, delay, patience) in enumerate(requests):
                group.create_task(send(number, prompts, delay, patience))
        await _let_pass(3)

        assert ledger.reserved_query_count == 0
        assert ledger.spent_query_count == len(model.requests) <= allowed
        assert model.max_open_count <= slot_count
        assert model.open_count == 0

    asyncio.run(schedule())
