"""How well a run used what it spent: the figures in its result."""

from __future__ import annotations

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import ModelFacts
from orchestrator.context import encode_context
from orchestrator.domain import Efficiency
from orchestrator.events import NoticeKind, RunEnded
from orchestrator.limits import QueryLimits, RunLimits
from orchestrator.price import Price

PART = encode_context("p" * 40)


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


async def test_run_that_asks_nobody_has_sent_nothing() -> None:
    """Its context was read by cells alone."""
    efficiency = (await Stage([FINISH], finish).run(context="c" * 100)).efficiency

    assert efficiency == Efficiency(context_chars=100)
    assert efficiency.sent_share == 0.0


async def test_what_was_sent_is_counted_in_prompts_and_characters() -> None:
    """Repeats cost nothing, so they are counted apart; what was refused was not sent."""

    async def ask(run: CellRun) -> None:
        await run.ask("a" * 10, "b" * 20, "a" * 10)
        await run.ask("b" * 20)
        await run.ask("x" * 51, "c" * 30)

    stage = Stage([LOOK, FINISH], ask, finish, query_limits=QueryLimits(prompt_chars=50))
    efficiency = (await stage.run(context="c" * 100)).efficiency

    assert (efficiency.sent_query_count, efficiency.sent_chars) == (3, 60)
    assert efficiency.repeated_query_count == 2
    assert efficiency.sent_share == pytest.approx(0.6)


@pytest.mark.parametrize(("prompt_chars", "share"), [(99, 0.99), (100, 1.0), (5_000, 1.0)])
async def test_share_of_the_context_is_never_more_than_all_of_it(
    prompt_chars: int, share: float
) -> None:
    """Prompts hold questions too, so the share is the most that can have been read."""

    async def ask(run: CellRun) -> None:
        await run.ask("a" * prompt_chars)

    result = await Stage([LOOK, FINISH], ask, finish).run(context="c" * 100)

    assert result.efficiency.sent_share == pytest.approx(share)


async def test_empty_context_has_no_share() -> None:
    """There is nothing of which anything could have been read."""

    async def ask(run: CellRun) -> None:
        await run.ask("a")

    result = await Stage([LOOK, FINISH], ask, finish).run(context="")

    assert (result.efficiency.context_chars, result.efficiency.sent_share) == (0, 0.0)


async def in_parent_or_child(run: CellRun) -> None:
    """Asks a child run twice the same, which asks the sub-model."""
    if run.source == "parent":
        await run.ask_child("who?", PART)
        await run.ask_child("who?", PART)
    elif run.source == "child":
        await run.ask("q" * 7)
        run.final("42")
    else:
        run.final("42")


async def test_child_run_counts_by_what_it_was_given() -> None:
    """Question and context count as sent; what the child sends is in the child's own figures."""
    stage = Stage(
        ["```repl\nparent\n```", FINISH],
        provider=FakeProvider(*[in_parent_or_child] * 2),
        child=FakeModel(["```repl\nchild\n```"], name="child"),
    )
    result = await stage.run(context="c" * 100)
    child, parent = (event.efficiency for event in stage.of(RunEnded))

    assert result.efficiency == parent
    assert (parent.sent_query_count, parent.sent_chars) == (1, len("who?") + 40)
    assert parent.repeated_query_count == 1
    assert (child.context_chars, child.sent_query_count, child.sent_chars) == (40, 1, 7)


async def test_child_that_could_not_be_started_counts_as_the_prompt_it_became() -> None:
    """Where the depth is used up, question and context are one prompt to the sub-model."""

    async def ask(run: CellRun) -> None:
        await run.ask_child("who?", PART)

    stage = Stage([LOOK, FINISH], ask, finish, limits=RunLimits(depth=0))
    efficiency = (await stage.run(context="c" * 100)).efficiency

    assert (efficiency.sent_query_count, efficiency.sent_chars) == (1, len("who?\n\n") + 40)


async def test_direct_answer_has_read_everything() -> None:
    """A short context goes whole into one prompt."""
    stage = Stage([], is_direct=True)
    efficiency = (await stage.run(question="who?", context="c" * 100)).efficiency

    assert (efficiency.sent_query_count, efficiency.sent_chars) == (1, 104)
    assert efficiency.sent_share == 1.0


async def test_circles_are_counted() -> None:
    """Each remark, and apart from them the turns that came to nothing new."""

    async def ask(run: CellRun) -> None:
        await run.ask("one?", "two?")
        run.draft("41")

    stage = Stage([LOOK] * 4 + [FINISH], *[ask] * 4, finish)
    efficiency = (await stage.run()).efficiency

    assert efficiency.repeated_turn_count == 3
    assert efficiency.notice_count == 3 + 3 + 1  # cells, queries, and the draft once
    assert len(NoticeKind) == 3


@pytest.mark.parametrize(
    ("facts", "usd", "fits"),
    [
        (ModelFacts(), None, None),
        (ModelFacts(price=Price(prompt_usd=2.0, completion_usd=9.0)), 0.002, None),
        (ModelFacts(window_tokens=1_000), None, True),
        (ModelFacts(window_tokens=999), None, False),
    ],
)
async def test_cost_is_held_against_one_prompt_with_everything(
    facts: ModelFacts, usd: float | None, *, fits: bool | None
) -> None:
    """What the root model would have read, at four characters a token, and whether it could."""
    root = FakeModel([FINISH], name="root", facts=facts)
    efficiency = (await Stage([], finish, root=root).run(context="c" * 4_000)).efficiency

    assert efficiency.one_prompt_usd == (None if usd is None else pytest.approx(usd))
    assert efficiency.fits_one_prompt is fits


async def test_figures_are_there_however_a_run_ends() -> None:
    """A run that met a limit is the one whose figures are looked at."""

    async def ask(run: CellRun) -> None:
        await run.ask("a question")

    stage = Stage([LOOK, "best guess"], ask, limits=RunLimits(turns=1))
    result = await stage.run(context="c" * 100)

    assert result.efficiency.sent_query_count == 1
    assert stage.ends()[0].efficiency == result.efficiency
