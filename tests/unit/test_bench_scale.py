"""The curve of many sessions: where it is measured, and what is said of it."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from support.scale_plot import draw_curve

from orchestrator.bench.figures import summarize
from orchestrator.bench.scale_report import (
    ScaleReport,
    Step,
    describe_what_gave_way,
    plan_counts,
)
from orchestrator.cli.bench_tables import print_scale

MB = 10**6


def step(session_count: int, *cells: int, cpu_share: float = 0.5, own_bytes: int = 40 * MB) -> Step:
    return Step(
        session_count=session_count,
        busy_count=len(cells),
        window_s=2.0,
        cells=cells,
        queries_per_cell=4,
        cell_ms=summarize([5.0, 10.0]) if cells else None,
        cpu_share=cpu_share,
        own_cpu_share=0.1,
        own_bytes=own_bytes,
        broker_bytes=8 * MB * session_count,
        host_bytes=50 * MB * session_count,
    )


def report_of(*steps: Step, problem: str = "", others: float = 0.0) -> ScaleReport:
    return ScaleReport(
        machine={"cpu_count": 2},
        others_cpu_share=others,
        steps=steps,
        open_s=3.0,
        problem=problem,
        took_s=9.0,
    )


@pytest.mark.parametrize(
    ("session_count", "counts"),
    [(1, (1,)), (3, (1, 2, 3)), (50, (1, 2, 5, 10, 20, 50)), (60, (1, 2, 5, 10, 20, 50, 60))],
)
def test_curve_ends_where_the_user_says(session_count: int, counts: tuple[int, ...]) -> None:
    """The curve is measured at the same places each time, and at its end."""
    assert plan_counts(session_count) == counts


def test_rates_are_of_all_sessions_together() -> None:
    """Cells of all sessions over the window, and four queries for each."""
    found = step(5, 10, 30)

    assert (found.cells_per_s, found.queries_per_s, found.fairness) == (20.0, 80.0, 3.0)


@pytest.mark.parametrize("cells", [(), (7,), (3, 0)])
def test_fairness_needs_two_that_had_something(cells: tuple[int, ...]) -> None:
    """One session shares with nobody, and nothing over none is no figure."""
    assert step(3, *cells).fairness is None


def test_what_gave_way_is_said_in_order() -> None:
    """Full cores, uneven shares and an early end are each said, with the step they came at."""
    steps = (step(1, 10), step(2, 10, 9, cpu_share=0.97), step(5, 10, 2))
    sentences = describe_what_gave_way(steps, others_cpu_share=0.5, problem="no memory left")

    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "Others used 50% of this machine's cores before the first session",
        "The machine's cores",
        "Even shares",
        "The curve ended early",
    ]
    assert "2 busy" in sentences[1]
    assert "5.0 times" in sentences[2]


def test_nothing_that_gave_way_is_said_too() -> None:
    """A curve that met no limit says so instead of saying nothing."""
    [sentence] = describe_what_gave_way((step(1, 10),), others_cpu_share=0.0, problem="")

    assert sentence.startswith("Nothing")


def test_report_is_told_as_json_and_as_a_table() -> None:
    """A program and a reader find the same steps; an early end is not complete."""
    report = report_of(step(1, 10), step(2, 10, 5), step(2), problem="no memory left")
    found = json.loads(json.dumps(report.to_json()))
    stream = StringIO()
    print_scale(report, stream)

    assert [(one["sessions"], one["busy"]) for one in found["steps"]] == [(1, 1), (2, 2), (2, 0)]
    assert found["steps"][1]["most_over_fewest_cells"] == 2.0
    assert found["steps"][2]["cell_ms"] is None
    assert not report.is_complete
    assert "no memory left" in stream.getvalue()


def test_plot_has_a_point_for_each_step_that_was_busy() -> None:
    """The plot leaves out steps in which nobody was busy, and draws the others."""
    report = report_of(step(1, 10), step(2, 10, 5), step(5, 4, 4, 4), step(5)).to_json()
    svg = draw_curve(report)

    assert svg.startswith("<svg ")
    lines = svg.split("<polyline points=")[1:]
    assert [line.partition(" fill")[0].count(",") for line in lines] == [3, 3, 3, 3, 2, 3, 3, 3]
