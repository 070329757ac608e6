"""The table of promises says what a kept run has shown, and tests hold what it says."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from support.promises import PAGE, PLOT, read_report, render_page, render_plot

from orchestrator.bench.catalogue import BENCHMARKS
from orchestrator.bench.promises import GUARDED, SLACK, read_bounds, render_promises


@pytest.fixture
def report() -> dict[str, Any]:
    return read_report("bench")


def test_page_is_what_the_kept_run_has_shown() -> None:
    """The table is not written by hand: `make promises` writes it from the figures beside it."""
    assert PAGE.read_text("utf-8") == render_page()
    assert PLOT.read_text("utf-8") == render_plot()


def test_kept_run_has_every_row(report: dict[str, Any]) -> None:
    """No row is left out of the page, and none on it was given up."""
    assert [row["name"] for row in report["rows"]] == [one.name for one in BENCHMARKS]
    assert {row["problem"] for row in report["rows"]} == {""}


def test_each_goal_stands_with_whether_it_is_kept(report: dict[str, Any]) -> None:
    """A goal that was missed is a line of the table that says no; it is not left out."""
    missed = deepcopy(report)
    missed["rows"] = [row for row in missed["rows"] if row["name"] in GUARDED]
    for row in missed["rows"]:
        for goal in row["goals"]:
            goal["is_reached"] = False
    text = render_promises(missed)

    assert text.count("| no |") == sum(len(row["goals"]) for row in missed["rows"])
    assert "| yes |" not in text


def test_row_without_figures_is_a_line_with_its_reason(report: dict[str, Any]) -> None:
    """What could not be measured is on the page, with why."""
    report["rows"][-2] |= {"series": [], "goals": [], "problem": "no engine"}

    assert "not measured: no engine" in render_promises(report)


def test_bounds_are_twice_what_is_stated(report: dict[str, Any]) -> None:
    """Each row that tests hold may be so many times its stated ratio, which is above zero."""
    bounds = {bound.row: bound for bound in read_bounds(report)}

    assert set(bounds) == set(GUARDED)
    file = bounds.pop("context-40mb")
    assert file.at_most == 2 * SLACK * file.stated > 0
    assert all(bound.at_most == SLACK * bound.stated > 0 for bound in bounds.values())


def test_report_that_lacks_a_guarded_row_is_refused(report: dict[str, Any]) -> None:
    """A page that states less than tests hold is not written."""
    report["rows"] = [row for row in report["rows"] if row["name"] != "query"]

    with pytest.raises(ValueError, match="'query'"):
        read_bounds(report)
