"""Shows findings and attacks as tables for a reader.

Without it a reader would have to find the three lines that matter among a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.attacks.attack import Group, Position, Verdict
from orchestrator.attacks.report import Report
from orchestrator.attacks.settling import AttackResult
from orchestrator.attacks.walls import WALLS
from orchestrator.cli.sanitize import for_one_line, for_terminal
from orchestrator.domain import Json
from orchestrator.sandbox.finding import Finding, Status

_STYLES = {
    Status.OK: "green",
    Status.WARNING: "yellow",
    Status.FAILED: "bold red",
    Verdict.STOPPED: "green",
    Verdict.NOT_STOPPED: "bold red",
    Verdict.KNOWN_LIMIT: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
    Verdict.UNDECIDED: "yellow",
}
# Where nobody looks at a terminal (a pipe, a file) lines are as long as a page is wide in print.
_PRINT_WIDTH = 120
_OUTCOME_WIDTH = max(len(verdict) for verdict in Verdict)  # the same in every group
_SEEN_CHARS = 200
_ANSWER_CHARS = 80
_SETTING_CHARS = 40  # the start of an image's digest tells it apart; the JSON has all of it


def print_wide(renderables: Sequence[RenderableType], *, stream: TextIO) -> None:
    """Prints to a terminal as wide as it is, and to anything else as wide as a page."""
    if stream.isatty():
        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        console.print(*renderables, sep="\n")
        return
    text = StringIO()
    console = Console(file=text, width=_PRINT_WIDTH, highlight=False, markup=False, emoji=False)
    console.print(*renderables, sep="\n")
    # Tables fill their lines up, which nobody wants in a file.
    stream.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def print_findings(findings: Sequence[Finding], *, stream: TextIO) -> None:
    """Prints what was found on this host, with advice under what needs any."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("status", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", ratio=1, overflow="fold")
    for finding in findings:
        found = Text(for_terminal(finding.found))
        if finding.status is not Status.OK and finding.expected:
            found.append(f"\nexpected: {finding.expected}", style="dim")
        if finding.advice:
            found.append(f"\n→ {for_terminal(finding.advice)}")
        table.add_row(Text(finding.status, style=_STYLES[finding.status]), finding.name, found)
    print_wide([table], stream=stream)


def print_attacks(report: Report, *, stream: TextIO) -> None:
    """Prints each attack, group by group: what came of it, what stopped it, how that is known."""
    tables = [
        _table_of(group, results)
        for group in Group
        if (results := [result for result in report.results if result.attack.group is group])
    ]
    summary = Text(_summary(report), style="green" if report.is_sealed else "bold red")
    print_wide([*tables, summary], stream=stream)


def _table_of(group: Group, results: Sequence[AttackResult]) -> Table:
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=group.value, title_justify="left"
    )
    table.add_column("outcome", no_wrap=True, min_width=_OUTCOME_WIDTH)
    table.add_column("attack", ratio=3)
    table.add_column("from", no_wrap=True)
    table.add_column("stopped by: how that is known", ratio=4, overflow="fold")
    rows: dict[tuple[str, Verdict, str], list[str]] = {}
    for result in results:
        # Seen alike from both positions, an attack is one line of news.
        attack = f"{result.attack.attack_id}: {result.attack.title}"
        key = (attack, result.verdict, _describe_evidence(result))
        rows.setdefault(key, []).append(_POSITIONS[result.position])
    for (attack, verdict, evidence), positions in rows.items():
        style = _STYLES[verdict]
        table.add_row(Text(verdict, style=style), attack, "\n".join(positions), evidence)
    return table


_POSITIONS = {Position.CELL: "a cell", Position.WORKER: "the worker"}


def _describe_evidence(result: AttackResult) -> str:
    if result.verdict is not Verdict.STOPPED:
        return for_one_line(result.why, max_chars=_SEEN_CHARS)
    lines = []
    for entry in result.stopped_by:
        known = entry.proof or _first_setting(entry.settings)
        answers = for_one_line(", ".join(entry.answers), max_chars=_ANSWER_CHARS)
        lines.append(f"{WALLS[entry.wall].title}: {answers}; {known}")
    return for_terminal("\n".join(lines))


def _first_setting(settings: Mapping[str, Json]) -> str:
    if not settings:
        return ""
    name, value = next(iter(settings.items()))
    return for_one_line(f"{name} = {value}", max_chars=_SETTING_CHARS)


def _summary(report: Report) -> str:
    counts = ", ".join(
        f"{report.count(verdict)} {verdict.value}" for verdict in Verdict if report.count(verdict)
    )
    verdict = "sealed" if report.is_sealed else "NOT sealed"
    problem = f" {report.problem}" if report.problem else ""
    return for_terminal(
        f"{verdict}: {counts or 'nothing tried'}, in {report.took_s:.0f} s.{problem}"
    )
