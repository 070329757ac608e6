"""Figures of a benchmark: what is shown of a series, and how two are compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bench.figures import Statistic, compare, percentile, summarize

POSITIVE = st.floats(min_value=1e-6, max_value=1e6)
SERIES = st.lists(POSITIVE, min_size=1, max_size=50)


def test_figures_of_a_series_whose_values_are_known() -> None:
    """Each figure is the one that its name says, whatever order the values come in."""
    figures = summarize([float(value) for value in reversed(range(1, 101))])

    assert (figures.count, figures.minimum, figures.maximum) == (100, 1.0, 100.0)
    assert figures.median == 50.5
    assert figures.p95 == pytest.approx(95.05)
    assert figures.p99 == pytest.approx(99.01)


def test_one_value_is_every_figure() -> None:
    """A series of one has no spread, and no figure of it is made up."""
    figures = summarize([7.0])

    assert {figures.of(statistic) for statistic in Statistic} == {7.0}


def test_nothing_measured_is_an_error() -> None:
    """An empty series has no figures; it does not count as zero."""
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


@given(values=SERIES, share=st.floats(min_value=0, max_value=1))
def test_percentile_lies_within_its_series(values: list[float], share: float) -> None:
    """No percentile is smaller than the smallest value or larger than the largest."""
    found = percentile(sorted(values), share)

    assert min(values) <= found * (1 + 1e-9)
    assert found <= max(values) * (1 + 1e-9)


def test_ratio_is_of_each_turns_own_halves() -> None:
    """A load that is in both halves of one turn changes no ratio."""
    quiet, loaded = 1.0, 10.0
    ours = [[2 * quiet], [2 * loaded], [2 * quiet]]
    theirs = [[quiet], [loaded], [quiet]]

    ratio = compare(ours, theirs, Statistic.MEDIAN)

    assert (ratio.lowest, ratio.median, ratio.highest) == (2.0, 2.0, 2.0)
    assert ratio.turn_count == 3


def test_tails_are_compared_over_all_turns() -> None:
    """A 99th percentile is of all values together: one turn has too few for one."""
    ours = [[1.0] * 50, [1.0] * 49 + [100.0]]
    theirs = [[1.0] * 50, [1.0] * 50]

    assert compare(ours, theirs, Statistic.MAXIMUM).median == 100.0
    assert compare(ours, theirs, Statistic.P99).median < 100.0
    assert compare(ours, theirs, Statistic.MEDIAN).median == 1.0


@given(turns=st.lists(SERIES, min_size=1, max_size=8), factor=st.floats(0.01, 100))
def test_ratio_of_a_series_and_its_multiple_is_that_factor(
    turns: list[list[float]], factor: float
) -> None:
    """Comparing is linear, for each statistic."""
    ours = [[factor * value for value in turn] for turn in turns]

    for statistic in Statistic:
        assert compare(ours, turns, statistic).median == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [([[1.0]], [[1.0], [1.0]]), ([], [])])
def test_turns_without_a_partner_are_an_error(
    ours: list[list[float]], theirs: list[list[float]]
) -> None:
    """What was not measured by turns is not compared."""
    with pytest.raises(ValueError, match="as many turns"):
        compare(ours, theirs, Statistic.MEDIAN)


def test_nothing_is_compared_with_zero() -> None:
    """A floor that took nothing was not measured; the row says so instead of an infinite ratio."""
    with pytest.raises(ValueError, match="zero"):
        compare([[1.0]], [[0.0]], Statistic.MEDIAN)
