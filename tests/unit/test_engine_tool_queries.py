"""Tool calls are on the ledger like everything that a cell can ask for."""

from __future__ import annotations

import asyncio

import pytest
from support.broker_host import until
from support.desks import Desk
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.sample_tools import gather, total
from support.stage import FINISH, LOOK, Stage

from orchestrator.context import encode_context
from orchestrator.domain import QueryFailure, QueryFailureReason, QueryKind
from orchestrator.engine.tools import Tool, Toolbox
from orchestrator.events import QueryEnded, QueryRefused, QueryStarted
from orchestrator.limits import RunLimits

ARGUMENTS = '{"args": [2.5], "kwargs": {"count": 2}}'


def desk_of(*tools: Tool, tool_calls: int = 10) -> Desk:
    """Opens a desk with tools."""
    return Desk(FakeModel(["sub says"]), tools=tools, limits=RunLimits(tool_calls=tool_calls))


async def test_call_is_counted_and_told_of() -> None:
    """The trajectory has name, arguments and result; the ledger has one call, and no query."""
    desk = desk_of(Tool(function=total))

    assert await desk.call("total", ARGUMENTS) == "5.0"
    assert (desk.ledger.spent.tool_calls, desk.ledger.spent.queries) == (1, 0)
    assert desk.ledger.reserved.tool_calls == 0
    [started], [ended] = desk.started(), desk.ended()
    assert (started.kind, started.tool_name, started.model) == (QueryKind.TOOL, "total", "")
    assert started.prompt == ARGUMENTS
    assert ended.reply is not None
    assert (ended.reply.text, ended.reply.cost_usd) == ("5.0", 0.0)
    assert desk.account.usage == {}


async def test_calls_beyond_the_limit_are_refused() -> None:
    """A loop gone wrong ends at the limit, with a sentence for the model, and calls nothing."""
    desk = desk_of(Tool(function=total), tool_calls=2)
    answers = [await desk.call("total", ARGUMENTS) for _ in range(3)]

    assert answers == [
        "5.0",
        "5.0",
        QueryFailure(
            reason=QueryFailureReason.BUDGET_EXHAUSTED,
            message="1 tool call asked, 0 left; finish with what you have",
        ),
    ]
    assert isinstance(desk.events[-1], QueryRefused)


async def test_same_call_is_made_again() -> None:
    """A function may answer otherwise the next time, or do something each time."""
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    desk = desk_of(Tool(function=count))

    assert [await desk.call("count") for _ in range(2)] == ["1", "2"]
    assert not any(event.is_repeat for event in desk.started())


@pytest.mark.parametrize("sent", ["", "no JSON", '{"args": ["x"]}', "\ud800", "[" * 10_000])
async def test_call_that_fails_is_counted_too(sent: str) -> None:
    """Whatever a hostile cell sends as arguments is an answer to it, and a call spent."""
    desk = desk_of(Tool(function=total))
    failure = await desk.call("total", sent)

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.TOOL_FAILED
    assert desk.ledger.spent.tool_calls == 1
    assert desk.ended()[0].failure == failure


@pytest.mark.parametrize("name", ["", "totals", "__class__", "budget.x", "\ud800", "x" * 100_000])
async def test_name_that_no_tool_has_is_refused(name: str) -> None:
    """A hostile cell learns which tools there are, and nothing is called or counted."""
    desk = desk_of(Tool(function=total), Tool(function=gather))
    failure = await desk.call(name)

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.TOOL_FAILED
    assert failure.message.endswith("here; there are: gather, total")
    assert len(failure.message) < 300
    assert desk.ledger.spent.tool_calls == 0
    assert isinstance(desk.events[0], QueryRefused)


async def test_without_tools_there_is_none_to_call() -> None:
    """A run that has none says so."""
    failure = await desk_of().call("total")

    assert isinstance(failure, QueryFailure)
    assert failure.message == "no tool is called 'total' here; there are: none"


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), RuntimeError("boom")])
@pytest.mark.parametrize("is_async", [False, True])
async def test_whatever_a_tool_raises_is_an_answer(error: BaseException, *, is_async: bool) -> None:
    """The desk never raises for a call that failed, and never looks cancelled when it is not."""

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    desk = desk_of(Tool(function=fail_later if is_async else fail, name="fail"))
    failure = await desk.call("fail")

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.TOOL_FAILED
    assert desk.ledger.reserved.tool_calls == 0


async def test_a_cell_has_eight_calls_open_at_most() -> None:
    """Each synchronous one is a thread; the others wait for their turn."""
    opened, gate = 0, asyncio.Event()

    async def wait() -> int:
        nonlocal opened
        opened += 1
        await gate.wait()
        return opened

    desk = desk_of(Tool(function=wait), tool_calls=20)
    tasks = [asyncio.ensure_future(desk.call("wait")) for _ in range(20)]
    await until(lambda: opened == 8)
    for _ in range(5):
        await asyncio.sleep(0)
    most = opened
    gate.set()

    assert (await asyncio.gather(*tasks))[0] == "8"
    assert (most, opened) == (8, 20)


async def test_cell_that_ends_cancels_its_call_and_settles() -> None:
    """What was dispatched is spent; nothing stays set aside, and nothing goes on."""
    entered, ends = asyncio.Event(), []

    async def hang() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    desk = desk_of(Tool(function=hang))
    task = asyncio.ensure_future(desk.call("hang"))
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert ends == ["ended"]
    assert (desk.ledger.spent.tool_calls, desk.ledger.reserved.tool_calls) == (1, 0)
    failure = desk.ended()[0].failure
    assert failure is not None
    assert failure.reason is QueryFailureReason.CANCELLED


async def call_total(run: CellRun) -> None:
    """Calls the tool and prints what comes."""
    run.print(f"total: {await run.call_tool('total', ARGUMENTS)}")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


async def test_run_offers_its_tools_to_cells_and_to_the_root_model() -> None:
    """Both read name, parameters and what it does; the result counts the calls."""
    stage = Stage([LOOK, FINISH], call_total, finish, toolbox=Toolbox([total]))
    result = await stage.run()

    [offer] = stage.provider.opened[0].offers
    assert [tool.signature for tool in offer.tools] == ["(price: float, count: int = 1) -> float"]
    assert "`total(price: float, count: int = 1) -> float`: Multiplies." in stage.told(0)
    assert "total: 5.0" in stage.told(1)
    assert (result.tool_call_count, result.query_count) == (1, 0)
    assert result.efficiency.sent_query_count == 0  # nobody was asked anything


async def in_parent_or_child(run: CellRun) -> None:
    """Calls the tool once and asks a child run, or calls it twice and answers."""
    if run.source == "parent":
        await call_total(run)
        await run.ask_child("how much?", encode_context("a part"))
    elif run.source == "child":
        run.final(" ".join([str(await run.call_tool("total", ARGUMENTS)) for _ in range(2)]))
    else:
        await finish(run)


async def test_child_runs_call_on_the_same_ledger() -> None:
    """A child has its parent's tools, and what it calls counts for both."""
    stage = Stage(
        ["```repl\nparent\n```", FINISH],
        provider=FakeProvider(*[in_parent_or_child] * 2),
        child=FakeModel(["```repl\nchild\n```"], name="child"),
        toolbox=Toolbox([total]),
        limits=RunLimits(tool_calls=2),
    )
    result = await stage.run()

    assert [len(sandbox.offers[0].tools) for sandbox in stage.provider.opened] == [1, 1]
    assert result.tool_call_count == 2
    child, parent = stage.ends()
    assert (child.tool_call_count, parent.tool_call_count) == (1, 2)
    [refused] = stage.of(QueryRefused)
    assert refused.failure.reason is QueryFailureReason.BUDGET_EXHAUSTED
    assert len(stage.of(QueryStarted)) == len(stage.of(QueryEnded)) == 3
