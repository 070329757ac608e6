"""No schedule of calls, failures, retries and cancellations spends more than it may."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.desks import Desk
from support.simulated_provider import Behaviour, SimulatedProvider
from support.virtual_time import run_in_virtual_time

from orchestrator.chat import Message, ModelRequest
from orchestrator.context import encode_context
from orchestrator.controls import Controls
from orchestrator.domain import (
    AnswerSource,
    Efficiency,
    FinishReason,
    NotedAnswer,
    QueryFailure,
    RunId,
    Timings,
)
from orchestrator.engine.account import Account
from orchestrator.engine.child_runs import ChildOrder
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Amounts
from orchestrator.engine.paid_model import PaidModel
from orchestrator.engine.result import RunResult
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import BudgetExhaustedError, ModelError
from orchestrator.limits import ModelCap, QueryLimits, RunLimits

CONTEXT = encode_context("x" * 100)
POLICY = RetryPolicy(max_retries=2)


@dataclass(frozen=True)
class Call:
    """Something that happens in a run: a root turn, a batch, a child run or a tool call."""

    kind: str
    numbers: tuple[int, ...]
    delay_s: float
    patience_s: float | None


behaviours = st.lists(
    st.builds(
        Behaviour,
        token_count=st.integers(0, 40),
        token_s=st.sampled_from([0.0, 0.1, 3.0]),
        failure_count=st.integers(0, 3),
        fails_after=st.none() | st.integers(0, 10),
        retry_after_s=st.none() | st.sampled_from([0.0, 1.0, 40.0, 400.0]),
        refuses=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=4,
)
calls = st.lists(
    st.builds(
        Call,
        kind=st.sampled_from(["batch", "batch", "turn", "child", "tool"]),
        numbers=st.lists(st.integers(0, 9), min_size=1, max_size=6).map(tuple),
        delay_s=st.sampled_from([0.0, 0.05, 1.0, 5.0]),
        patience_s=st.none() | st.sampled_from([0.0, 0.15, 2.0, 30.0]),
    ),
    min_size=1,
    max_size=8,
)
limits = st.builds(
    RunLimits,
    queries=st.integers(0, 60),
    child_runs=st.integers(0, 4),
    tool_calls=st.integers(0, 4),
    time_s=st.sampled_from([2.0, 60.0, 1800.0]),
    usd=st.sampled_from([None, None, 0.0001, 0.005, 0.02, 0.1, 1.0]),
    prompt_tokens=st.none() | st.integers(100, 10_000),
    completion_tokens=st.none() | st.integers(100, 60_000),
    models=st.sampled_from([{}, {}, {"simulated": ModelCap(requests=12, usd=0.02)}]),
)


class Tree:
    """A run tree under test: a desk, child runs on the same ledger, root turns, tools."""

    def __init__(self, provider: SimulatedProvider, run_limits: RunLimits) -> None:
        """Opens the tree."""
        self.provider = provider
        self.run_limits = run_limits
        self.open_children = itertools.count()
        self.desk = Desk(
            provider,
            limits=run_limits,
            query_limits=QueryLimits(concurrent_queries=4, concurrent_child_runs=2),
            tools=[wait],
            start_child=self.run_child,
            retry=POLICY,
            max_completion_tokens=None,
            on_event=lambda _event: self.check(),
        )
        self.paid = PaidModel(provider, estimator=TokenEstimator(), retry=POLICY)

    def check(self) -> None:
        """Holds spent and reserved against every limit."""
        ledger, allowed = self.desk.ledger, self.run_limits
        spent, reserved = ledger.spent, ledger.reserved
        for name in ("queries", "child_runs", "tool_calls", "prompt_tokens", "completion_tokens"):
            limit = getattr(allowed, name)
            if limit is not None:
                assert getattr(spent, name) + getattr(reserved, name) <= limit, name
        if allowed.usd is not None:
            assert spent.usd + reserved.usd <= allowed.usd + 1e-12
        cap = allowed.models.get(self.provider.name)
        if cap is not None:
            assert cap.requests is None or spent.requests + reserved.requests <= cap.requests
            assert cap.usd is None or spent.usd + reserved.usd <= cap.usd + 1e-12

    async def turn(self, number: int, account: Account, *, is_last: bool = False) -> None:
        """Asks a root model once, as a conversation does."""
        request = ModelRequest(messages=(Message("user", f"{number} turn " + "x" * 200),))
        ledger = self.desk.ledger
        [planned] = self.paid.plan([request], ledger=ledger, is_last=is_last)
        [reservation] = ledger.reserve([planned.amounts], model=self.provider.name, is_last=is_last)
        try:
            await self.paid.ask(
                planned,
                reservation,
                account=account,
                run_id=RunId("run"),
                tell=lambda _event: self.check(),
                on_text=lambda _piece: True,
            )
        finally:
            reservation.close()

    async def run_child(self, order: ChildOrder) -> RunResult:
        """Takes two turns on the tree's ledger, and returns an answer or none."""
        account = Account(self.desk.ledger, parent=self.desk.account)
        source = AnswerSource.FINAL
        try:
            await self.turn(int(order.question), account)
            await self.turn(int(order.question) + 1, account, is_last=True)
        except BudgetExhaustedError:
            source = AnswerSource.NONE
        return result_of(source, account)

    async def do(self, call: Call) -> None:
        """Makes one call; every outcome is one that a run knows."""
        await asyncio.sleep(call.delay_s)
        task = asyncio.ensure_future(self._do(call))
        if call.patience_s is not None:
            await asyncio.wait({task}, timeout=call.patience_s)
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _do(self, call: Call) -> None:
        match call.kind:
            case "batch":
                prompts = [f"{number} " + "y" * 60 * number for number in call.numbers]
                answers = await self.desk.ask(*prompts)
                assert len(answers) == len(prompts)
                event("answered" if isinstance(answers[0], str | NotedAnswer) else "refused")
            case "child":
                answer = await self.desk.ask_child(str(call.numbers[0]), CONTEXT)
                assert isinstance(answer, str | NotedAnswer | QueryFailure)
            case "tool":
                await self.desk.call("wait", '{"args": [0.5]}')
            case _:
                try:
                    await self.turn(call.numbers[0], self.desk.account)
                except (BudgetExhaustedError, ModelError) as error:
                    event(f"turn: {type(error).__name__}")


async def wait(seconds: float) -> float:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return seconds


def result_of(source: AnswerSource, account: Account) -> RunResult:
    """Makes a child run's result."""
    controls: Controls | None = None
    is_final = source is AnswerSource.FINAL
    return RunResult(
        run_id=RunId("child"),
        answer="42" if is_final else "",
        finish_reason=FinishReason.ANSWERED if is_final else FinishReason.COST_LIMIT,
        answer_source=source,
        failure="",
        limit="" if is_final else "usd",
        usage=account.usage,
        cost_usd=None,
        timings=Timings(total_s=0, start_s=0, root_model_s=0, cells_s=0),
        turn_count=2,
        query_count=0,
        child_run_count=0,
        tool_call_count=0,
        efficiency=Efficiency(),
        controls=controls,
        trajectory=(),
    )


@settings(deadline=None, max_examples=2_000)
@given(plan=calls, behaviour=behaviours, run_limits=limits)
def test_no_schedule_spends_more_than_it_may(
    plan: list[Call], behaviour: list[Behaviour], run_limits: RunLimits
) -> None:
    """At every event spent + reserved <= limit; at the end nothing is reserved.

    And what the provider bills is never more than what was counted as spent: neither cancelled, nor
    failed, nor retried requests are left out.
    """

    async def schedule() -> None:
        provider = SimulatedProvider(behaviours=behaviour)
        tree = Tree(provider, run_limits)
        async with asyncio.TaskGroup() as group:
            for call in plan:
                group.create_task(tree.do(call))
        await asyncio.sleep(1)

        ledger, spent = tree.desk.ledger, tree.desk.ledger.spent
        tree.check()
        assert ledger.reserved == Amounts()
        assert provider.open_count == 0
        assert provider.billed_prompt_tokens <= spent.prompt_tokens
        assert provider.billed_completion_tokens <= spent.completion_tokens + _unseen(tree)
        assert provider.billed_usd <= spent.usd + _unseen(tree) * 4e-6 + 1e-12
        assert replace(tree.desk.account.spent) == spent

    run_in_virtual_time(schedule())


def _unseen(tree: Tree) -> int:
    """Returns completion tokens that nobody can have seen: of requests that are not streamed.

    Where money or completions are limited every request is streamed, so there are none.
    """
    if tree.desk.ledger.limits_money_or_completions(tree.provider.name):
        return 0
    return tree.provider.billed_completion_tokens
