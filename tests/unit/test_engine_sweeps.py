"""Every limit, every error, every cancellation, at every point of a run.

One rich run (turns, a query, a batch, a child run with a query of its own, a tool) is repeated with
one thing in its way, which is moved through it from the beginning to the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from support.fake_sandbox import CellRun, FakeProvider
from support.metered_model import Meter, MeteredModel
from support.stage import FINISH, Stage

from orchestrator.chat import Message
from orchestrator.context import encode_context
from orchestrator.domain import AnswerSource, FinishReason, QueryAnswer, QueryFailure
from orchestrator.engine.result import RunResult
from orchestrator.engine.tools import Toolbox
from orchestrator.errors import (
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
    SandboxError,
    SandboxLostError,
)
from orchestrator.events import RunEnded
from orchestrator.limits import ModelCap, RunLimits

PART = encode_context("a part of the text")
#: Of the run that nothing is in the way of: a turn, three queries, a turn, a turn and a query of
#: the child run, a turn.
REQUESTS = 8
_DONE = {FinishReason.ANSWERED}
_AT_LIMIT = {
    FinishReason.TURN_LIMIT,
    FinishReason.QUERY_LIMIT,
    FinishReason.COST_LIMIT,
    FinishReason.TOKEN_LIMIT,
    FinishReason.MODEL_LIMIT,
}


def look_up(order_id: int) -> str:
    """Looks an order up."""
    return f"order {order_id}"


@dataclass(slots=True)
class Trial:
    """One repetition.

    Attributes:
        meter: What the models have delivered.
        failures: Every failure that a cell was given.
        lost_at: The cell with which the sandbox dies; None for none.
    """

    limits: RunLimits = field(default_factory=RunLimits)
    meter: Meter = field(default_factory=Meter)
    lost_at: int | None = None
    failures: list[QueryFailure] = field(default_factory=list)
    cell_count: int = 0

    def stage(self) -> Stage:
        """Joins the parts."""
        return Stage(
            [],
            root=self._model("root", self._root_reply),  # type: ignore[arg-type]  # any client does
            child=self._model("child", lambda _: _block("ask a child")),  # type: ignore[arg-type]
            sub=self._model("sub", lambda _: "an answer of the sub-model"),  # type: ignore[arg-type]
            provider=FakeProvider(*[self._cell] * 50),
            limits=self.limits,
            toolbox=Toolbox([look_up]),
        )

    def _model(self, name: str, reply: Any) -> MeteredModel:  # noqa: ANN401 - a function of a chat
        return MeteredModel(reply, name=name, meter=self.meter)

    def _root_reply(self, messages: Sequence[Message]) -> str:
        if "No turn is left" in messages[-1].content or "limit of" in messages[-1].content:
            return "my best guess"
        return {2: _block("queries"), 4: _block("others")}.get(len(messages), FINISH)

    async def _cell(self, run: CellRun) -> None:
        number, self.cell_count = self.cell_count, self.cell_count + 1
        if number == self.lost_at:
            raise SandboxLostError("the container exited with 137")
        match run.source:
            case "queries":
                run.draft("perhaps")
                self._keep(await run.ask("one"))
                self._keep(await run.ask("two", "three"))
            case "others":
                self._keep([await run.ask_child("who?", PART)])
                self._keep([await run.call_tool("look_up", '{"args": [7]}')])
            case "ask a child":
                self._keep(await run.ask("four"))
                run.final("of a child")
            case _:
                run.final("42")

    def _keep(self, answers: Sequence[QueryAnswer]) -> None:
        self.failures += [answer for answer in answers if isinstance(answer, QueryFailure)]


def _block(source: str) -> str:
    return f"```repl\n{source}\n```"


def assert_settled(result: RunResult | RunEnded, trial: Trial) -> None:
    """Holds what a run says it spent against what its models have delivered, to the token."""
    usage = result.usage.values()
    assert sum(each.prompt_tokens for each in usage) == trial.meter.delivered_prompt_tokens
    assert sum(each.completion_tokens for each in usage) == trial.meter.delivered_completion_tokens
    assert sum(each.cost_usd or 0.0 for each in usage) == pytest.approx(trial.meter.delivered_usd)
    for failure in trial.failures:
        assert len(failure.message.split()) >= 5, failure  # a sentence, and not a number


async def undisturbed() -> tuple[RunResult, Trial]:
    """Returns the run that nothing is in the way of."""
    trial = Trial()
    return await trial.stage().run(), trial


async def test_undisturbed_run_is_what_the_others_are_held_against() -> None:
    """The control: it answers, and does one of everything."""
    result, trial = await undisturbed()

    assert (result.answer, result.finish_reason) == ("42", FinishReason.ANSWERED)
    assert (result.turn_count, result.query_count) == (3, 4)
    assert (result.child_run_count, result.tool_call_count) == (1, 1)
    assert trial.meter.request_count == REQUESTS
    assert trial.failures == []
    assert_settled(result, trial)


COUNTS = {
    "turns": 3,
    "queries": 4,
    "child_runs": 1,
    "tool_calls": 1,
    "root requests": 3,
    "sub requests": 4,
    "child requests": 1,
}


def limits_of(name: str, count: int) -> RunLimits:
    """Returns limits of which one is in the way."""
    if not name.endswith(" requests"):
        changed: Any = {name: count}
        return replace(RunLimits(), **changed)
    return RunLimits(models={name.removesuffix(" requests"): ModelCap(requests=count)})


@pytest.mark.parametrize(
    ("name", "count"), [(name, count) for name, most in COUNTS.items() for count in range(most + 1)]
)
async def test_count_that_is_limited_is_not_exceeded(name: str, count: int) -> None:
    """Whatever there is too little of, the run returns, and nobody did more than was allowed."""
    if name == "turns" and not count:
        return  # a run without turns is none; settings refuse it
    trial = Trial(limits=limits_of(name, count))
    result = await trial.stage().run()

    is_enough = count >= COUNTS[name]
    done = {
        "turns": result.turn_count,
        "queries": result.query_count,
        "child_runs": result.child_run_count,
        "tool_calls": result.tool_call_count,
    } | {f"{model} requests": usage.request_count for model, usage in result.usage.items()}
    if name != "turns":  # beyond which there is one last request
        assert done.get(name, 0) <= count
    assert result.finish_reason in (_DONE if is_enough else _DONE | _AT_LIMIT)
    assert bool(trial.failures) <= (not is_enough)
    assert_settled(result, trial)


@pytest.mark.parametrize("name", ["usd", "prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("permille", [1, *range(50, 1_500, 50), 3_000, 30_000])
async def test_money_and_tokens_that_are_limited_are_not_exceeded(name: str, permille: int) -> None:
    """From next to nothing to more than enough: the run returns within its means."""
    undisturbed_result, before = await undisturbed()
    assert undisturbed_result.cost_usd is not None
    full = {
        "usd": undisturbed_result.cost_usd,
        "prompt_tokens": before.meter.delivered_prompt_tokens,
        "completion_tokens": before.meter.delivered_completion_tokens,
    }[name]
    limit = full * permille / 1000
    changed: Any = {name: limit if name == "usd" else max(int(limit), 1)}
    trial = Trial(limits=replace(RunLimits(), **changed))
    result = await trial.stage().run()

    meter = trial.meter
    spent = {
        "usd": meter.delivered_usd,
        "prompt_tokens": meter.delivered_prompt_tokens,
        "completion_tokens": meter.delivered_completion_tokens,
    }[name]
    assert spent <= max(limit, 1) + 1e-9
    assert result.finish_reason in _DONE | _AT_LIMIT
    if result.finish_reason not in _DONE:
        assert result.limit == name
        assert result.answer_source in {
            AnswerSource.DRAFT,
            AnswerSource.LAST_REQUEST,
            AnswerSource.NONE,
        }
    if permille == 30_000:
        assert result.finish_reason is FinishReason.ANSWERED
        assert trial.failures == []
    assert_settled(result, trial)


ERRORS: dict[str, ModelError] = {
    "refused": ModelRefusedError("no such model", model="m"),
    "unavailable": ModelUnavailableError("503", model="m"),
    "broke off": ModelUnavailableError(
        "the stream broke", model="m", may_be_billed=True, received_text="half an ans"
    ),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("request_number", range(REQUESTS))
async def test_error_of_a_provider_at_every_request(error: ModelError, request_number: int) -> None:
    """Only the very first is the caller's; any later one costs the turn or the query it met."""
    trial = Trial(meter=Meter(trips_at=request_number, trip=error))
    stage = trial.stage()
    if request_number == 0:
        with pytest.raises(type(error)):
            await stage.run()
    else:
        await stage.run()
    ended = stage.ends()[-1]

    usage = ended.usage.values()
    is_billed = isinstance(error, ModelUnavailableError) and error.may_be_billed
    assert trial.meter.tripped.is_set()
    assert sum(each.unanswered_count for each in usage) == is_billed
    assert (sum(each.unanswered_usd for each in usage) > 0) == is_billed
    assert_settled(ended, trial)
    assert all(sandbox.is_destroyed for sandbox in stage.provider.opened)


@pytest.mark.parametrize("request_number", range(REQUESTS))
async def test_cancellation_at_every_request(request_number: int) -> None:
    """What was spent by then is told, with what the open request may be billed for."""
    trial = Trial(meter=Meter(trips_at=request_number))
    stage = trial.stage()
    task = asyncio.ensure_future(stage.run())
    await asyncio.wait_for(trial.meter.tripped.wait(), timeout=5)
    task.cancel()
    await asyncio.wait({task})
    ended = stage.ends()[-1]

    assert task.cancelled()
    assert ended.finish_reason is FinishReason.CANCELLED
    # A batch has two requests open.
    assert sum(each.unanswered_count for each in ended.usage.values()) in {1, 2}
    assert_settled(ended, trial)
    assert all(sandbox.is_destroyed for sandbox in stage.provider.opened)


@pytest.mark.parametrize("request_number", range(REQUESTS))
async def test_time_runs_out_at_every_request(request_number: int) -> None:
    """A provider that does not answer is waited for as long as there is time, and no longer."""
    trial = Trial(limits=RunLimits(time_s=0.4), meter=Meter(trips_at=request_number))
    stage = trial.stage()
    async with asyncio.timeout(5):
        result = await stage.run()

    # A child run ends before its parent has to, which then still comes to its answer.
    is_childs = request_number in {5, 6}
    expected = FinishReason.ANSWERED if is_childs else FinishReason.TIME_LIMIT
    assert result.finish_reason is expected
    assert result.limit == ("" if is_childs else "time_s")
    # The first cell sets the draft before it asks, and is stopped with it when time is over.
    assert (result.answer_source is AnswerSource.DRAFT) == (request_number in {1, 2, 3, 4, 7})
    assert_settled(result, trial)
    assert all(sandbox.is_destroyed for sandbox in stage.provider.opened)


@pytest.mark.parametrize("cell", range(4))
async def test_sandbox_dies_with_every_cell(cell: int) -> None:
    """A child's death costs one answer, the run's own its variables: the draft is returned."""
    trial = Trial(lost_at=cell)
    stage = trial.stage()
    result = await stage.run()

    is_childs = cell == 2
    expected = FinishReason.ANSWERED if is_childs else FinishReason.SANDBOX_LOST
    assert result.finish_reason is expected
    assert len(trial.failures) == is_childs
    assert_settled(result, trial)
    assert all(sandbox.is_destroyed for sandbox in stage.provider.opened)


async def test_sandbox_dies_while_the_context_is_bound() -> None:
    """Nothing was asked, so nothing was spent."""
    error: SandboxError = SandboxLostError("out of memory")
    stage = Stage([FINISH], provider=FakeProvider(bind_error=error))
    result = await stage.run()

    assert result.finish_reason is FinishReason.SANDBOX_LOST
    assert result.usage == {}
