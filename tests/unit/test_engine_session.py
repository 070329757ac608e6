"""Runs one after the other in one sandbox."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.broker_host import until
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.context import encode_context
from orchestrator.domain import ContextKind, FinishReason
from orchestrator.engine.tools import Toolbox
from orchestrator.errors import InputError, ModelRefusedError, SandboxLostError
from orchestrator.events import CellStarted, RunStarted
from orchestrator.limits import RunLimits

FIRST = encode_context("the first text")
SECOND = encode_context(["the", "second"])


async def look(run: CellRun) -> None:
    """Prints something."""
    run.print("looked")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


async def die(_run: CellRun) -> None:
    """Takes the sandbox with it."""
    raise SandboxLostError("the container exited with 137")


async def hang(_run: CellRun) -> None:
    """Never ends."""
    await asyncio.Event().wait()


async def test_runs_share_one_sandbox() -> None:
    """The second question meets the sandbox of the first, whose context is not sent again."""
    stage = Stage([FINISH], finish, finish)
    async with stage.session() as session:
        first = await session.run(question="one?", context=FIRST)
        sandbox = stage.provider.opened[0]
        bound = list(sandbox.contexts)
        second = await session.run(question="two?", context=None)
        was_alive = not sandbox.is_destroyed

    assert (first.answer, second.answer) == ("42", "42")
    assert len(stage.provider.opened) == 1
    assert (was_alive, sandbox.is_destroyed) == (True, True)
    assert bound == ["context_0", "context"]
    assert [event.session_run for event in stage.of(RunStarted)] == [1, 2]
    assert len(sandbox.offers) == 2


async def test_later_runs_find_the_history() -> None:
    """Questions and answers of all earlier runs, and the whole chat of each."""
    stage = Stage([LOOK, FINISH, FINISH, FINISH], look, finish, finish, finish)
    async with stage.session() as session:
        for question in ("one?", "two?", "three?"):
            await session.run(question=question, context=FIRST if question == "one?" else None)
        contexts = stage.provider.opened[0].contexts

    history = json.loads(contexts["history"].data)
    assert contexts["history"].kind is ContextKind.MESSAGES
    assert [message["content"] for message in history] == ["one?", "42", "two?", "42"]
    first = json.loads(contexts["history_0"].data)
    roles = ["user", "assistant", "user", "assistant"]
    assert [message["role"] for message in first] == roles
    assert "one?" in first[0]["content"]
    assert "looked" in first[2]["content"]
    assert first[3]["content"] == FINISH
    assert "history_1" in contexts
    assert "history_2" not in contexts


async def test_later_runs_are_told_what_is_there() -> None:
    """The root model reads that there were questions before, and where they are."""
    stage = Stage([FINISH], finish, finish, finish)
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        await session.run(question="two?", context=None)
        await session.run(question="three?", context=SECOND)

    assert "earlier question" not in stage.told(0)
    assert "1 earlier question has been answered in this session" in stage.told(1)
    assert "variables of their blocks are still there" in stage.told(1)
    assert "2 earlier questions have been answered" in stage.told(2)
    assert "Contexts of earlier questions: `context_0`" in stage.told(2)
    assert "`context` (also `context_1`) is a list of str" in stage.told(2)


async def test_new_context_takes_the_name_and_the_old_one_keeps_its_number() -> None:
    """`context` is what the present question is about."""
    stage = Stage([FINISH], finish, finish)
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        await session.run(question="two?", context=SECOND)
        contexts = stage.provider.opened[0].contexts

    assert contexts["context"] == contexts["context_1"] == SECOND
    assert contexts["context_0"] == FIRST


async def test_each_run_has_a_ledger_of_its_own() -> None:
    """A limit that ended one run does not end the next."""
    stage = Stage([LOOK, "best guess", FINISH], look, finish, limits=RunLimits(turns=1))
    async with stage.session() as session:
        first = await session.run(question="one?", context=FIRST)
        second = await session.run(question="two?", context=None)

    assert (first.finish_reason, second.finish_reason) == (
        FinishReason.TURN_LIMIT,
        FinishReason.ANSWERED,
    )
    assert second.usage["root"].request_count == 1


async def test_cells_are_numbered_through_the_session() -> None:
    """The sandbox counts on, and so does what is told of its cells."""
    stage = Stage([LOOK, FINISH], look, finish, finish)
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        await session.run(question="two?", context=None)

    assert [event.cell_id for event in stage.of(CellStarted)] == [1, 2, 3]


async def test_answer_of_an_earlier_run_is_not_the_draft_of_the_next() -> None:
    """A run that comes to nothing has nothing, whatever was answered before."""
    stage = Stage(
        [FINISH, LOOK, ModelRefusedError("no", model="root")],
        finish,
        look,
    )
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        second = await session.run(question="two?", context=None)

    assert (second.finish_reason, second.answer) == (FinishReason.MODEL_FAILED, "")


async def test_session_goes_on_after_its_sandbox_was_lost() -> None:
    """The next run has a fresh one with every context in it, and is told what is gone."""
    provider = FakeProvider(finish, die)
    stage = Stage([FINISH, LOOK, FINISH], provider=provider)
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        lost = await session.run(question="two?", context=SECOND)
        third = await session.run(question="three?", context=None)
        old, new = provider.opened
        assert old.is_destroyed

    assert (lost.finish_reason, third.answer) == (FinishReason.SANDBOX_LOST, "42")
    assert new.contexts["context_0"] == FIRST
    assert new.contexts["context"] == SECOND
    assert "history_1" in new.contexts
    assert "the session had to begin anew" in stage.told(2)
    assert stage.of(CellStarted)[-1].cell_id == 1


async def test_cancelled_run_leaves_the_session_usable() -> None:
    """A question that is given up costs its own cell, and not the variables."""
    stage = Stage([FINISH, LOOK, FINISH], finish, hang, finish)
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        task = asyncio.ensure_future(session.run(question="two?", context=None))
        await until(lambda: len(stage.of(CellStarted)) == 2)
        task.cancel()
        await asyncio.wait({task})
        third = await session.run(question="three?", context=None)

    assert task.cancelled()
    assert third.answer == "42"
    assert len(stage.provider.opened) == 1
    assert session.run_count == 2


async def test_run_that_is_cancelled_while_something_is_bound_costs_the_sandbox() -> None:
    """Half a context is none: the next run has a fresh sandbox."""
    gate = asyncio.Event()
    stage = Stage([FINISH], provider=FakeProvider(finish, bind_gate=gate))
    async with stage.session() as session:
        task = asyncio.ensure_future(session.run(question="one?", context=FIRST))
        await until(lambda: bool(stage.provider.opened))
        task.cancel()
        await asyncio.wait({task})
        gate.set()
        again = await session.run(question="one?", context=None)

    assert task.cancelled()
    assert again.answer == "42"
    assert len(stage.provider.opened) == 2


async def test_model_that_never_answers_leaves_the_session_usable() -> None:
    """What a run raised is the caller's to mend; the session is as before."""
    stage = Stage([ModelRefusedError("no key", model="root"), FINISH], finish)
    async with stage.session() as session:
        with pytest.raises(ModelRefusedError):
            await session.run(question="one?", context=FIRST)
        assert (await session.run(question="one?", context=None)).answer == "42"

    assert len(stage.provider.opened) == 1


async def test_no_sandbox_is_started_for_a_session_that_asks_nothing() -> None:
    """Opening a session costs nothing."""
    stage = Stage([])
    async with stage.session():
        pass

    assert stage.provider.opened == []


async def test_short_context_of_a_session_is_answered_directly_once() -> None:
    """The first question may go straight to the sub-model; a follow-up has the session's cells."""
    stage = Stage([FINISH], finish, is_direct=True)
    async with stage.session() as session:
        first = await session.run(question="one?", context=FIRST)
        second = await session.run(question="two?", context=None)
        contexts = stage.provider.opened[0].contexts

    assert (first.answer, second.answer) == ("sub says", "42")
    assert json.loads(contexts["history"].data)[1]["content"] == "sub says"


@pytest.mark.parametrize(
    ("question", "context", "advice"),
    [
        ("q", None, "the first question of a session needs a context"),
        ("x" * 100_001, FIRST, "pass the long text as the context"),
    ],
)
async def test_question_that_cannot_be_used_is_refused(
    question: str, context: None, advice: str
) -> None:
    """The session says what it needs, and starts nothing."""
    stage = Stage([FINISH], finish)
    async with stage.session() as session:
        with pytest.raises(InputError, match=advice):
            await session.run(question=question, context=context)

    assert stage.provider.opened == []


async def test_follow_up_without_a_question_is_refused() -> None:
    """A context says itself what to do once, when it is given."""
    stage = Stage([FINISH], finish)
    async with stage.session() as session:
        await session.run(question="", context=FIRST)
        with pytest.raises(InputError, match="a question without text needs a context"):
            await session.run(question=" ", context=None)


async def test_questions_do_not_overlap_and_a_closed_session_takes_none() -> None:
    """One cell runs at a time, so one run does."""
    held = FakeModel([FINISH], name="root", is_held=True)
    stage = Stage([], finish, root=held)
    session = stage.session()
    task = asyncio.ensure_future(session.run(question="one?", context=FIRST))
    await held.until_open(1)
    with pytest.raises(InputError, match="one question at a time"):
        await session.run(question="two?", context=None)
    held.gate.set()
    await task
    await session.aclose()
    await session.aclose()

    with pytest.raises(InputError, match="the session is closed"):
        await session.run(question="three?", context=None)


async def test_tools_are_offered_to_every_run() -> None:
    """A function of the caller's is there for the first question and for the last."""
    stage = Stage([FINISH], finish, finish, toolbox=Toolbox([order]))
    async with stage.session() as session:
        await session.run(question="one?", context=FIRST)
        await session.run(question="two?", context=None)
        offers = stage.provider.opened[0].offers

    assert [[tool.name for tool in offer.tools] for offer in offers] == [["order"], ["order"]]
    assert "`order(order_id: int) -> str`" in stage.told(1)


def order(order_id: int) -> str:
    """Looks an order up."""
    return str(order_id)
