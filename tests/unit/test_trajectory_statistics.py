"""Figures of many runs: stated exactly, known or left out, and the tail by name."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trajectories import (
    Chronicle,
    RunTeller,
    cancelled_run,
    direct_run,
    rich_run,
    told,
)

from orchestrator.domain import FinishReason
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.statistics import (
    CUT_OFF,
    MEASURES,
    RunFigures,
    distribution,
    figures_of,
    group_figures,
    most_expensive,
    percentile,
)


def figures(chronicle: Chronicle) -> RunFigures:
    [run] = runs_of(chronicle.records)
    return figures_of(run, file="a.jsonl")


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([7.0], 50, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([3.0, 1.0, 2.0], 95, 3.0),
        ([float(value) for value in range(1, 21)], 95, 19.0),
        ([float(value) for value in range(1, 101)], 95, 95.0),
        ([float(value) for value in range(1, 102)], 95, 96.0),
        ([1.0, 2.0, 3.0, 4.0], 100, 4.0),
        ([1.0, 2.0, 3.0, 4.0], 0.1, 1.0),
    ],
)
def test_percentile_is_by_nearest_rank(values: list[float], percent: float, found: float) -> None:
    """The smallest value that so many in a hundred of all do not exceed."""
    assert percentile(values, percent) == found


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.integers(min_value=1, max_value=100),
)
def test_percentile_happened_and_covers_what_it_says(values: list[float], percent: int) -> None:
    """It is one of the values; enough are not above it, and too few are below it."""
    found = percentile(values, percent)

    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


def test_what_is_not_known_is_in_no_distribution() -> None:
    """A run of unknown cost is not a run that cost nothing."""
    found = distribution([1.0, None, 3.0])

    assert found is not None
    assert (found.known_count, found.total, found.median, found.max) == (2, 4.0, 1.0, 3.0)
    assert distribution([None]) is None


def test_figures_of_a_run_have_its_child_runs_in_them() -> None:
    """What a caller pays and waits for is the whole tree."""
    found = figures(rich_run())

    assert found.cost_usd == pytest.approx(0.1015)
    assert found.tokens == 42_060 + 1_940 + 20_424 + 956
    assert (found.turns, found.child_runs, found.repeated_queries, found.notices) == (5, 1, 3, 1)
    assert found.queries == 4 + 1
    assert found.wall_s == pytest.approx(46.39)
    assert found.one_prompt_ratio == pytest.approx(0.1015 / 3.9375)
    assert found.sent_share == pytest.approx(41_000 / 12_600_000)


def test_run_that_was_cut_off_is_counted() -> None:
    """The runs that had to be killed are the ones to hear of."""
    chronicle = rich_run()
    chronicle.records.pop()

    found = figures(chronicle)

    assert found.finish_reason == CUT_OFF
    assert found.cost_usd == pytest.approx(0.1015)
    assert found.one_prompt_ratio is None


def test_run_with_an_unknown_price_has_no_cost() -> None:
    """Half a sum would be read as the whole."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "x")
    run.begin()
    run.turn((told("q"),), "a", cost_usd=None)
    run.cell("llm_query('p')")
    run.answer(run.ask("p"), "of a model with a price")

    assert figures(chronicle).cost_usd is None


def test_group_counts_how_runs_ended() -> None:
    """Most frequent first."""
    runs = [figures(each) for each in (rich_run(), direct_run(), cancelled_run())]

    group = group_figures("all", runs)

    assert group.run_count == 3
    assert list(group.finish_reasons.items()) == [
        (FinishReason.ANSWERED.value, 2),
        (FinishReason.CANCELLED.value, 1),
    ]
    assert group.distributions["cost_usd"].max == pytest.approx(0.1015)
    assert group.distributions["one_prompt_ratio"].known_count == 1


def test_measures_are_figures_of_a_run() -> None:
    """Every measure is a field, and every figure of a run is a measure."""
    labels = {"file", "run_id", "question", "root_model", "profile", "is_scripted", "finish_reason"}

    assert set(MEASURES) == {field.name for field in fields(RunFigures)} - labels


def test_most_expensive_runs_are_named() -> None:
    """The first first; where no price is known, tokens decide."""
    cheap, dear = figures(direct_run()), figures(rich_run())
    unpriced = replace(dear, cost_usd=None)
    more_unpriced = replace(dear, cost_usd=None, tokens=dear.tokens + 1)

    assert most_expensive([cheap, dear], count=5) == (dear, cheap)
    assert most_expensive([cheap, dear], count=1) == (dear,)
    assert most_expensive([unpriced, more_unpriced], count=1) == (more_unpriced,)
