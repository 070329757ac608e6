"""What `budget()` tells a cell: how much is left of everything that is limited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.sample_tools import total
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import ModelFacts, ModelReply
from orchestrator.context import encode_context
from orchestrator.domain import QueryFailure
from orchestrator.engine.tools import Toolbox
from orchestrator.events import QueryStarted
from orchestrator.limits import RunLimits
from orchestrator.price import Price

FACTS = ModelFacts(price=Price(prompt_usd=1.0, completion_usd=4.0))
DEAR = ModelReply(text="sub says", prompt_tokens=100, completion_tokens=50, cost_usd=0.25)


class Asking:
    """A cell that asks what is left, and what it was told each time."""

    def __init__(self, *before: str) -> None:
        """Sends the prompts first, if there are any."""
        self.before = before
        self.told: list[dict[str, Any]] = []

    async def __call__(self, run: CellRun) -> None:
        """Does what prompts say, and asks."""
        if self.before:
            await run.ask(*self.before)
        answer = await run.call_tool("budget", '{"args": [], "kwargs": {}}')
        assert isinstance(answer, str)
        self.told.append(json.loads(answer))


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


async def test_everything_is_told_at_the_beginning() -> None:
    """What has no limit is None; nothing is left out, so a cell can plan by any of it."""
    asking = Asking()
    await Stage([LOOK, FINISH], asking, finish, limits=RunLimits(time_s=600.0)).run()
    [told] = asking.told

    assert 598.0 < told.pop("time_s") <= 600.0
    assert told == {
        "usd": None,
        "prompt_tokens": None,
        "completion_tokens": None,
        "queries": 500,
        "child_runs": 32,
        "tool_calls": 500,
        "turns": 29,
        "depth": 1,
    }


async def test_what_is_spent_is_not_left() -> None:
    """Queries, tool calls, tokens, money and turns go down by what they were spent on."""

    async def call(run: CellRun) -> None:
        await run.call_tool("total", '{"args": [1]}')

    asking = Asking("one?", "two?", "one?")
    reply = ModelReply(text=LOOK, prompt_tokens=1_000, completion_tokens=10, cost_usd=0.5)
    stage = Stage(
        [],
        call,
        asking,
        finish,
        root=FakeModel([reply, reply, FINISH], name="root", facts=FACTS),
        sub=FakeModel([DEAR], name="sub", facts=FACTS),
        limits=RunLimits(
            usd=10.0, prompt_tokens=100_000, completion_tokens=10_000, queries=10, turns=5
        ),
        toolbox=Toolbox([total]),
    )
    await stage.run()
    [told] = asking.told

    # A tenth of money and tokens is kept for a last request, so it is not for cells to spend.
    assert told["usd"] == pytest.approx(10.0 * 0.9 - 2 * 0.5 - 2 * 0.25)
    assert told["prompt_tokens"] == 100_000 * 0.9 - 2 * 1_000 - 2 * 100
    assert told["completion_tokens"] == 10_000 * 0.9 - 2 * 10 - 2 * 50
    assert (told["queries"], told["tool_calls"], told["turns"]) == (10 - 2, 499, 5 - 2)


async def test_what_is_left_is_what_can_be_asked() -> None:
    """A cell that spends exactly what it was told is refused nothing, and one more is."""
    asking = Asking("a", "b")

    async def spend(run: CellRun) -> None:
        await asking(run)
        left = asking.told[0]["queries"]
        answers = await run.ask(*(f"prompt {number}" for number in range(left)))
        assert "sub says" in answers
        [refused] = await run.ask("one more")
        run.final("refused" if isinstance(refused, QueryFailure) else "answered")

    result = await Stage([LOOK], spend, limits=RunLimits(queries=7)).run()

    assert result.answer == "refused"
    assert result.query_count == 7


async def test_asking_costs_nothing_and_leaves_no_trace() -> None:
    """It is no tool of the caller's: not counted, not told of, and never refused."""
    stage = Stage([LOOK, FINISH], Asking(), finish, limits=RunLimits(tool_calls=0))
    result = await stage.run()

    assert result.tool_call_count == 0
    assert stage.of(QueryStarted) == []
    assert "QueryRefused" not in stage.kinds()


@pytest.mark.parametrize(
    "sent", ["", "no JSON", '{"args": [1, 2], "kwargs": {"usd": 1e9}}', "\ud800", "[" * 10_000]
)
async def test_whatever_is_sent_along_changes_nothing(sent: str) -> None:
    """A hostile cell cannot raise a limit by asking for it."""
    answers: list[Any] = []

    async def ask(run: CellRun) -> None:
        answers.append(await run.call_tool("budget", sent))
        answers.append(await run.call_tool("budget"))

    await Stage([LOOK, FINISH], ask, finish).run()
    first, second = map(json.loads, answers)

    assert first | {"time_s": 0} == second | {"time_s": 0}
    assert first["usd"] is None


async def in_parent_or_child(run: CellRun, told: dict[str, dict[str, Any]]) -> None:
    """Notes what parent and child are told, the parent before and after its child run."""
    if run.source == "parent":
        told["before"] = json.loads(str(await run.call_tool("budget")))
        await run.ask_child("how much?", encode_context("a part"))
        told["after"] = json.loads(str(await run.call_tool("budget")))
    elif run.source == "child":
        await run.ask("of the child's")
        told["child"] = json.loads(str(await run.call_tool("budget")))
    else:
        await finish(run)


async def told_in_a_tree(*, child_runs: int, depth: int) -> dict[str, dict[str, Any]]:
    """Runs a parent with one child, whose first turn looks about it."""
    told: dict[str, dict[str, Any]] = {}

    async def act(run: CellRun) -> None:
        await in_parent_or_child(run, told)

    stage = Stage(
        ["```repl\nparent\n```", FINISH],
        provider=FakeProvider(*[act] * 3),
        child=FakeModel(["```repl\nchild\n```", FINISH], name="child"),
        limits=RunLimits(queries=10, turns=5, child_runs=child_runs, depth=depth),
    )
    assert (await stage.run()).answer == "42"
    return told


async def test_child_run_has_what_its_tree_has() -> None:
    """What parent and child spend is of one ledger; turns and depth are each one's own."""
    told = await told_in_a_tree(child_runs=3, depth=2)
    before, child, after = told["before"], told["child"], told["after"]

    assert (before["queries"], child["queries"], after["queries"]) == (10, 9, 9)
    assert (before["child_runs"], child["child_runs"], after["child_runs"]) == (3, 2, 2)
    assert (before["depth"], child["depth"], after["depth"]) == (2, 1, 2)
    assert (before["turns"], child["turns"], after["turns"]) == (4, 4, 4)


async def test_child_that_can_have_none_is_told_of_no_child_runs() -> None:
    """Where the depth is used up, what the tree has left of them is no use to a cell."""
    told = await told_in_a_tree(child_runs=3, depth=1)

    assert (told["child"]["child_runs"], told["child"]["depth"]) == (0, 0)
    assert told["after"]["child_runs"] == 2
