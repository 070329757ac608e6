"""Money and seconds of a recorded run are counted once, and what is not known is said to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.trajectories import (
    ROOT,
    SUB,
    Chronicle,
    RunTeller,
    cancelled_run,
    direct_run,
    fenced,
    rich_run,
    told,
)

from orchestrator.chat import ModelUsage
from orchestrator.domain import Efficiency
from orchestrator.events import RunEnded
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.growth import records_of, runs_of
from orchestrator.trajectory.spending import (
    Money,
    elapsed_s,
    money_of,
    query_money,
    query_tokens,
    run_money,
    time_shares,
    turn_money,
    turn_s,
    usage_by_model,
)
from orchestrator.trajectory.tree import RecordedRun


@pytest.fixture
def run() -> RecordedRun:
    """A run in which nearly everything happens."""
    [run] = runs_of(rich_run().records)
    return run


@pytest.fixture
def cut_run() -> RecordedRun:
    """The same without its last line."""
    [run] = runs_of(rich_run().records[:-1])
    return run


def test_account_of_a_run_that_ended_is_its_own(run: RecordedRun) -> None:
    """What the engine has charged is what is shown."""
    assert run.ended is not None
    assert usage_by_model(run) == run.ended.usage
    assert run_money(run).usd == pytest.approx(0.0722 + 0.012 + 0.0173)


def test_events_add_up_to_the_account(run: RecordedRun, cut_run: RecordedRun) -> None:
    """A run that was killed just before its end comes to the same as one that was not.

    Replies, queries, child runs and requests that failed are counted once each; repeats and the
    answers of child runs, which cost nothing of their own, are not.
    """
    counted, account = usage_by_model(cut_run), usage_by_model(run)

    assert set(counted) == set(account)
    for model, usage in account.items():
        for name in ModelUsage.__slots__:
            assert getattr(counted[model], name) == pytest.approx(getattr(usage, name)), name


def test_turns_add_up_to_the_run(run: RecordedRun) -> None:
    """No cent of a run is outside of its turns."""
    turns = [turn_money(turn).usd for turn in run.turns]

    assert sum(turns) == pytest.approx(run_money(run).usd)
    assert turns[2] == pytest.approx(0.016 + 0.012 + 0.0165)


def test_repeat_costs_nothing(run: RecordedRun) -> None:
    """A prompt that had been answered before is free."""
    first, _, repeat = run.turns[1].queries

    assert query_money(first).usd == pytest.approx(0.0004)
    assert query_money(repeat) == Money()
    assert query_tokens([first, repeat]) == (1_200, 60)


def test_child_run_is_the_cost_of_its_query(run: RecordedRun) -> None:
    """The query of a child run costs what the child run did, and a tool nothing."""
    child, tool = run.turns[2].queries

    assert query_money(child).usd == pytest.approx(0.0165)
    assert query_money(tool) == Money()
    assert query_tokens([child, tool]) == (18_024, 836)


@pytest.mark.parametrize(
    ("usage", "money"),
    [
        ({}, Money()),
        ({"m": ModelUsage(request_count=1, cost_usd=0.5)}, Money(usd=0.5)),
        ({"m": ModelUsage(request_count=1)}, Money(has_unpriced=True)),
        ({"m": ModelUsage(unanswered_count=1, unanswered_usd=0.25)}, Money(usd=0.25)),
        (
            {
                "m": ModelUsage(request_count=1, cost_usd=0.5, unanswered_usd=0.25),
                "n": ModelUsage(request_count=1),
            },
            Money(usd=0.75, has_unpriced=True),
        ),
    ],
)
def test_sum_says_what_is_missing(usage: dict[str, ModelUsage], money: Money) -> None:
    """A model without a known price makes a sum incomplete; one that was not asked does not."""
    assert money_of(usage) == money


def test_unpriced_reply_makes_its_turn_incomplete() -> None:
    """Likewise of a single turn."""
    chronicle = Chronicle()
    teller = RunTeller(chronicle, "x")
    teller.begin()
    teller.turn((told("q"),), "a", cost_usd=None)
    [run] = runs_of(chronicle.records)

    assert turn_money(run.turns[0]) == Money(has_unpriced=True)
    assert run_money(run) == Money(has_unpriced=True)


def test_time_adds_up(run: RecordedRun, cut_run: RecordedRun) -> None:
    """Every second of a run is somebody's, whether it ended or was cut off."""
    for each in (run, cut_run):
        shares = time_shares(each)
        parts = (
            shares.start_s,
            shares.root_model_s,
            shares.queries_s,
            shares.code_s,
            shares.other_s,
        )
        assert sum(parts) == pytest.approx(shares.total_s)
        assert shares.total_s == pytest.approx(elapsed_s(each))
        assert all(part >= 0 for part in parts)


def test_waiting_is_counted_once_however_many_wait(run: RecordedRun) -> None:
    """Prompts that are open at the same time are waited for at the same time."""
    # A batch; a child run, and then a tool; another batch.
    assert time_shares(run).queries_s == pytest.approx(2.4 + 11.67 + 0.1 + 0.9)


def test_waiting_is_known_without_times_too() -> None:
    """Of events that come from a result, the longest prompt of each request is waited for."""
    [run] = runs_of(records_of(record.event for record in rich_run().records))

    assert time_shares(run).queries_s == pytest.approx(2.4 + 11.67 + 0.1 + 0.9)


def test_direct_answer_is_waiting_for_a_query() -> None:
    """A run without cells spent its time on the sub-model."""
    [run] = runs_of(direct_run().records)

    assert time_shares(run).queries_s == pytest.approx(1.5)


def test_cell_that_was_cut_off_counts_by_its_queries() -> None:
    """How long a cell ran that never ended is not known; how long it waited is."""
    [run] = runs_of(cancelled_run().records[:-1])

    assert time_shares(run).queries_s == pytest.approx(5.0)
    assert time_shares(run).code_s == 0.0


def test_time_of_a_turn_is_its_reply_and_its_cells(run: RecordedRun) -> None:
    """What a reader is shown beside each turn."""
    assert turn_s(run.turns[1]) == pytest.approx(6.2 + 2.6 + 9.8)


def test_time_of_events_without_times_is_not_known() -> None:
    """Rather than a duration of nothing."""
    records = rich_run().records[:10]
    [run] = runs_of(records_of(record.event for record in records))

    assert elapsed_s(run) is None


def test_efficiency_of_a_run_that_was_cut_off_is_counted(
    run: RecordedRun, cut_run: RecordedRun
) -> None:
    """It comes to what the engine counts, but for prices, which are in no event."""
    assert run.ended is not None
    engine, counted = efficiency_of(run), efficiency_of(cut_run)

    assert engine == run.ended.efficiency
    assert counted == replace(
        engine,
        sent_chars=counted.sent_chars,
        sent_query_count=counted.sent_query_count,
        one_prompt_usd=None,
        fits_one_prompt=None,
    )
    # Two prompts of the first batch, one of the second, and a child run with its context.
    assert counted.sent_query_count == 4
    assert counted.sent_chars == 31 + 30 + 31 + 35 + 40_000


def test_direct_run_has_read_all_of_its_context() -> None:
    """What a direct query was given counts as sent."""
    [run] = runs_of(direct_run().records[:-1])

    assert efficiency_of(run) == Efficiency(
        context_chars=11, sent_query_count=1, sent_chars=11 + 11
    )
    assert efficiency_of(run).sent_share == 1.0


def test_models_of_child_runs_are_in_the_account() -> None:
    """Money that a child run spent is its parent's, by the name of who was paid."""
    records = [record for record in rich_run().records if not isinstance(record.event, RunEnded)]
    [run] = runs_of(records)

    assert set(usage_by_model(run)) == {ROOT, SUB}
    assert usage_by_model(run)[SUB].request_count == 5


def test_reply_without_cells_has_only_its_own_time() -> None:
    """A turn in which nothing ran took as long as its reply."""
    chronicle = Chronicle()
    teller = RunTeller(chronicle, "x")
    teller.begin()
    teller.turn((told("q"),), fenced("pass"), wall_s=3.0)
    [run] = runs_of(chronicle.records)

    assert turn_s(run.turns[0]) == 3.0
