"""A run that a cell starts: its own sandbox, the same ledger, in its parent's trajectory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import Message
from orchestrator.context import encode_context
from orchestrator.domain import (
    AnswerSource,
    FinishReason,
    NotedAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryKind,
)
from orchestrator.errors import ModelUnavailableError, SandboxStartError
from orchestrator.events import QueryEnded, QueryRefused, QueryStarted, RunEnded, RunStarted
from orchestrator.limits import QueryLimits, RunLimits

PART = encode_context("a part of the text")


async def cell(run: CellRun) -> None:
    """Does what its source says: the cells of parent and child come from one provider."""
    match run.source.split("(")[0]:
        case "FINAL":
            run.final(run.source.split("'")[1])
        case "child":
            answer = await run.ask_child("who?", PART)
            run.print(str(answer))
        case "children":
            answers = await asyncio.gather(
                *(run.ask_child(f"who {number}?", PART) for number in range(4))
            )
            run.print(str(answers))
        case "query":
            run.print(str(await run.ask(run.source)))
        case "draft":
            run.draft("perhaps")
        case _:
            run.print("9 characters")


def block(source: str) -> str:
    """Returns a reply with one cell."""
    return f"```repl\n{source}\n```"


CHILD = block("child()")


def provider() -> FakeProvider:
    """Returns a provider whose sandboxes run any number of such cells."""
    return FakeProvider(*[cell] * 20)


async def test_child_run_answers_in_a_sandbox_of_its_own() -> None:
    """The parent's cell gets the child's answer; the child has its question and its context."""
    stage = Stage([CHILD, FINISH], provider=provider())
    result = await stage.run()

    parent, child = stage.provider.opened
    assert "42" in stage.told(1)
    assert child.contexts["context"].data == PART.data
    assert child.is_destroyed
    assert "who?" in stage.child.requests[0][-1].content
    assert (result.answer, result.child_run_count) == ("42", 1)
    assert set(parent.contexts) == {"context", "context_0"}


async def test_child_run_is_in_its_parents_trajectory_as_a_tree() -> None:
    """Its events come among the parent's, each with its run, and say which prompt they answer."""
    stage = Stage([CHILD, FINISH], provider=provider())
    result = await stage.run()

    parent, child = stage.of(RunStarted)
    [query] = [event for event in stage.of(QueryStarted) if event.kind is QueryKind.CHILD_RUN]
    assert (parent.depth, parent.parent_run_id) == (0, None)
    assert (child.depth, child.parent_run_id) == (1, parent.run_id)
    assert (child.parent_query_id, child.parent_prompt_index) == (query.query_id, 0)
    assert (query.run_id, query.model, query.context_chars) == (parent.run_id, "child", 18)
    assert result.run_id == parent.run_id
    order = [(event.run_id == child.run_id, type(event).__name__) for event in result.trajectory]
    begun, ended = order.index((True, "RunStarted")), order.index((True, "RunEnded"))
    assert order.index((False, "QueryStarted")) < begun < ended < order.index((False, "QueryEnded"))


async def test_totals_include_children() -> None:
    """What a child spends is in its parent's usage, and only what it spent itself in its own."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        child=FakeModel([block("query()"), FINISH], name="child"),
    )
    result = await stage.run()

    child_end, parent_end = stage.ends()
    assert child_end.query_count == 1
    assert set(child_end.usage) == {"child", "sub"}
    assert parent_end.query_count == result.query_count == 1
    assert {name: usage.request_count for name, usage in result.usage.items()} == {
        "root": 2,
        "child": 2,
        "sub": 1,
    }


async def test_at_the_depth_limit_the_sub_model_answers_and_it_is_said() -> None:
    """Where no child run can be started the question and its context go to the sub-model."""
    stage = Stage([CHILD, FINISH], provider=provider(), limits=RunLimits(depth=0))
    result = await stage.run()

    [asked] = stage.sub.requests
    assert asked[-1].content == "who?\n\na part of the text"
    assert "no child run can be started from here" in stage.told(1)
    assert len(stage.provider.opened) == 1
    assert (result.child_run_count, result.query_count) == (0, 1)


async def test_children_of_children_go_as_deep_as_the_limit() -> None:
    """Depth 2 allows a child's child; that one's child is the sub-model."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        child=FakeModel([CHILD, CHILD, FINISH], name="child"),
        limits=RunLimits(depth=2),
    )
    result = await stage.run()

    assert [event.depth for event in stage.of(RunStarted)] == [0, 1, 2]
    assert result.child_run_count == 2
    assert len(stage.sub.requests) == 1


async def test_children_run_at_the_same_time_within_the_limit() -> None:
    """As many as the limit allows are under way, and no more; all are answered."""
    held = FakeModel([FINISH], name="child", is_held=True)
    stage = Stage(
        [block("children()"), FINISH],
        provider=provider(),
        child=held,
        query_limits=QueryLimits(concurrent_child_runs=3),
    )
    task = asyncio.ensure_future(stage.run())
    await held.until_open(3)
    held.gate.set()
    result = await task

    assert held.max_open_count == 3
    assert stage.told(1).count("42") == 4
    assert result.child_run_count == 4


async def test_children_do_not_wait_for_places_that_their_parents_hold() -> None:
    """With one place a level a child can still have a child of its own."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        child=FakeModel([CHILD, FINISH], name="child"),
        limits=RunLimits(depth=2),
        query_limits=QueryLimits(concurrent_child_runs=1),
    )
    async with asyncio.timeout(5):
        assert (await stage.run()).child_run_count == 2


async def test_child_is_cancelled_with_its_parent() -> None:
    """Nobody goes on paying for a run whose parent is gone, and no sandbox is left."""
    held = FakeModel([FINISH], name="child", is_held=True)
    stage = Stage([CHILD], provider=provider(), child=held)
    task = asyncio.ensure_future(stage.run())
    await held.until_open(1)
    task.cancel()
    await asyncio.wait({task})

    assert held.open_count == 0
    assert all(sandbox.is_destroyed for sandbox in stage.provider.opened)
    assert [end.finish_reason for end in stage.ends()] == [FinishReason.CANCELLED] * 2


async def test_same_question_over_the_same_context_is_answered_once() -> None:
    """A child run is the dearest thing to repeat, and is not."""
    stage = Stage([CHILD, CHILD, FINISH], provider=provider())
    result = await stage.run()

    assert result.child_run_count == 1
    assert [event.is_repeat for event in stage.of(QueryStarted)] == [False, True]
    assert result.efficiency.repeated_query_count == 1


async def test_child_runs_are_limited() -> None:
    """One child run more than there may be is refused with what to do instead."""
    stage = Stage(
        [block("children()"), FINISH], provider=provider(), limits=RunLimits(child_runs=3)
    )
    result = await stage.run()

    assert result.child_run_count == 3
    [refused] = stage.of(QueryRefused)
    assert refused.failure.reason is QueryFailureReason.BUDGET_EXHAUSTED
    assert "1 child run asked, none left; use llm_query" in refused.failure.message


async def test_short_context_of_a_child_needs_no_sandbox() -> None:
    """What fits one prompt is answered by one, for a child as for any run."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        limits=RunLimits(direct_chars=100),
        is_direct=True,
    )
    result = await stage.run(context="x" * 200)

    assert len(stage.provider.opened) == 1
    assert len(stage.sub.requests) == 1
    assert stage.ends()[0].answer_source is AnswerSource.DIRECT
    assert (result.child_run_count, result.query_count) == (1, 1)


async def answer_of(stage: Stage) -> NotedAnswer | QueryFailure | str:
    """Runs and returns what the cell that asked for a child run got."""
    await stage.run()
    ended = stage.of(QueryEnded)[-1]
    if ended.failure:
        return ended.failure
    assert ended.reply is not None
    text = ended.reply.text
    return NotedAnswer(text=text, notice=ended.notice) if ended.notice else text


async def test_draft_of_a_child_that_met_a_limit_is_returned_and_called_one() -> None:
    """What was paid for is not lost, and not passed off as final."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        child=FakeModel([block("draft()"), LOOK], name="child"),
        limits=RunLimits(turns=2),
    )

    assert await answer_of(stage) == NotedAnswer(
        text="perhaps",
        notice="a child run ended by its turn limit; its answer is its draft, not a final one",
    )


async def test_child_without_an_answer_is_a_failure_with_its_reason() -> None:
    """An empty text would look like an answer."""
    stage = Stage(
        [CHILD, FINISH],
        provider=provider(),
        child=FakeModel([LOOK], name="child"),
        limits=RunLimits(turns=1),
    )
    failure = await answer_of(stage)

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.BUDGET_EXHAUSTED
    assert "ended without an answer (turn limit)" in failure.message


@pytest.mark.parametrize("kind", ["model", "sandbox"])
async def test_child_that_cannot_start_costs_its_parent_nothing_but_that(kind: str) -> None:
    """No model or no sandbox for a child is an error in the cell; the parent goes on."""
    fakes = provider()
    stage = Stage(
        [CHILD, FINISH],
        provider=fakes,
        child=FakeModel([ModelUnavailableError("key sk-1 at /etc", model="child")], name="child"),
    )
    if kind == "sandbox":

        def refuse_after_first(messages: Sequence[Message]) -> str:
            del messages
            fakes.refuse(SandboxStartError("no room on /dev/sda"))
            return CHILD

        stage = Stage([], provider=fakes, root=FakeModel([refuse_after_first, FINISH], name="root"))
    failure = await answer_of(stage)

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.MODEL_FAILED
    assert not any(secret in failure.message for secret in ("sk-1", "/etc", "/dev"))
    assert stage.of(RunEnded)[-1].answer == "42"
