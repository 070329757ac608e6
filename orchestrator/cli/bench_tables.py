"""Shows what was measured as tables for a reader.

Without it a reader would have to divide figures in JSON by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.bench.report import BenchReport, JudgedGoal, Row, Series
from orchestrator.bench.scale_report import ScaleReport
from orchestrator.bench.turns import Kind
from orchestrator.cli.doctor_tables import print_wide
from orchestrator.cli.sanitize import for_one_line, for_terminal

_LACKS_CHARS = 300
_MB = 1e6
_MARKS = {True: ("reached", "green"), False: ("NOT reached", "bold red"), None: ("", "dim")}


def figure(value: float) -> str:
    """Returns a figure with three digits that count."""
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.{max(3 - len(str(int(abs(value)))), 0)}f}"


def row_line(row: Row) -> str:
    """Returns the outcome of a row in one line, for progress."""
    ours = row.ours
    if ours is None:
        return f"  {row.name}: not measured: {for_one_line(row.problem, max_chars=_LACKS_CHARS)}"
    ratios = ", ".join(
        f"{figure(one.ratio.median)} x {one.name}" for one in row.series if one.ratio is not None
    )
    return f"  {row.name}: {figure(ours.figures.median)} {row.unit}; {ratios}"


def print_report(report: BenchReport, stream: TextIO) -> None:
    """Prints a table for each row, and what was measured on under them."""
    parts: list[RenderableType] = []
    for row in report.rows:
        parts += _row_parts(row)
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts.append(Text(for_terminal(machine), style="dim"))
    parts += [Text(for_terminal(f"{name}: {state}")) for name, state in report.peers.items()]
    parts.append(Text(f"in {report.took_s:.0f} s"))
    print_wide(parts, stream=stream)


def print_scale(report: ScaleReport, stream: TextIO) -> None:
    """Prints the curve of many sessions as a table, and what gave way."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in (
        *("open", "busy", "cells/s", "queries/s", "p50 ms", "p95 ms", "uneven"),
        *("CPU", "own CPU", "own MB", "brokers MB", "host MB"),
    ):
        table.add_column(name, justify="right")
    for step in report.steps:
        figures = step.cell_ms
        table.add_row(
            *(str(step.session_count), str(step.busy_count)),
            *(figure(step.cells_per_s), figure(step.queries_per_s)),
            "" if figures is None else figure(figures.median),
            "" if figures is None else figure(figures.p95),
            "" if step.fairness is None else f"{step.fairness:.2f}",
            *(f"{step.cpu_share:.0%}", f"{step.own_cpu_share:.0%}"),
            *(
                f"{size_bytes / _MB:,.0f}"
                for size_bytes in (step.own_bytes, step.broker_bytes, step.host_bytes)
            ),
        )
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    legend = (
        "p50, p95: of a cell that asks four times. uneven: the most cells of a session over the "
        "fewest. CPU: of all cores, by everything. own: the orchestrator's process. host: by how "
        "much less memory the host has left."
    )
    lines = [Text(for_terminal(sentence)) for sentence in report.gave_way]
    print_wide(
        [table, Text(legend, style="dim"), *lines, Text(for_terminal(machine), style="dim")],
        stream=stream,
    )


def _row_parts(row: Row) -> Iterator[RenderableType]:
    if row.problem:
        text = for_terminal(f"{row.title} ({row.name}): not measured: {row.problem}")
        yield Text(f"{text}\n", style="bold red")
        return
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        title=f"{row.title} ({row.name}), {row.unit}",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for name in ("n", "min", "median", "p95", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ours over it", justify="right", no_wrap=True)
    table.add_column("goal", ratio=1)
    for one in row.series:
        figures = one.figures
        goals = [judged for judged in row.goals if judged.goal.against == _key(one)]
        table.add_row(
            one.name,
            str(figures.count),
            *map(figure, (figures.minimum, figures.median, figures.p95, figures.maximum)),
            _ratio(one),
            Text("\n").join(_goal(judged, row) for judged in goals),
        )
    yield table
    yield Text(for_terminal(row.measures), style="dim")
    for one in row.series:
        if one.lacks and one.kind is not Kind.PEER:  # of peers once, at the end
            lacks = for_one_line(one.lacks, max_chars=_LACKS_CHARS)
            yield Text(f"{one.name} does without: {lacks}", style="dim")
    if row.note:
        yield Text(for_terminal(row.note), style="dim")
    yield Text("")


def _key(series: Series) -> str:
    """Returns what goals about a series say they are against: nothing, of ours itself."""
    return "" if series.kind is Kind.OURS else series.name


def _ratio(series: Series) -> str:
    ratio = series.ratio
    if ratio is None:
        return ""
    spread = ""
    if ratio.lowest != ratio.highest:
        spread = f" ({figure(ratio.lowest)}-{figure(ratio.highest)})"
    return f"{figure(ratio.median)} x its {series.statistic}{spread}"


def _goal(judged: JudgedGoal, row: Row) -> Text:
    word, style = _MARKS[judged.is_reached]
    goal = judged.goal
    if goal.against:
        return Text(f"≤ {figure(goal.at_most)} x: {word}", style=style)
    return Text(f"{goal.statistic} ≤ {figure(goal.at_most)} {row.unit}: {word}", style=style)
