"""Draws the figures of many runs.

Without it the three runs that ate the budget would be three rows among a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.cli.clipping import in_one_line
from orchestrator.cli.figures_text import percent, seconds, usd
from orchestrator.domain import FinishReason
from orchestrator.engine.prompts.figures import counted
from orchestrator.trajectory.spending import Money
from orchestrator.trajectory.statistics import MEASURES, GroupFigures, RunFigures

_NAMES = {
    "cost_usd": "cost",
    "wall_s": "time",
    "turns": "turns",
    "queries": "prompts sent",
    "child_runs": "child runs",
    "tokens": "tokens",
    "sent_share": "of the context sent on",
    "repeated_queries": "prompts repeated",
    "notices": "notices",
    "one_prompt_ratio": "cost against one prompt",
}
_WITHOUT_TOTAL = frozenset({"sent_share", "one_prompt_ratio"})
_QUESTION_CHARS = 200


def in_one_sentence(runs: Sequence[RunFigures], *, file_count: int) -> Text:
    """Returns how many runs there are, and how they ended."""
    scripted = sum(run.is_scripted for run in runs)
    asked_nobody = f", {scripted:,} of them without a model" if scripted else ""
    text = f"{counted(len(runs), 'run')} in {counted(file_count, 'file')}{asked_nobody}"
    return Text(text, style="bold")


def drawn_groups(groups: Sequence[GroupFigures]) -> list[RenderableType]:
    """Returns a table for each group, and above it how its runs ended."""
    drawn: list[RenderableType] = []
    for group in groups:
        title = Text()
        if group.name:
            name = in_one_line(group.name)
            drawn.append(Text())
            title.append(f"{name}: {counted(group.run_count, 'run')}", style="bold cyan")
            drawn.append(title)
        drawn += [_endings(group), _table(group)]
    return drawn


def drawn_most_expensive(runs: Sequence[RunFigures]) -> list[RenderableType]:
    """Returns the runs that cost most, each with the file to look into."""
    drawn: list[RenderableType] = [Text(), Text("most expensive", style="bold")]
    for run in runs:
        line = Text.assemble(
            (f"  {_money(run.cost_usd)}", "bold yellow"),
            f"  {seconds(run.wall_s)}, {counted(run.turns, 'turn')}, ",
            f"{counted(run.queries, 'prompt')}, {run.tokens:,} tokens, ",
            (_ending(run.finish_reason), _style(run.finish_reason)),
        )
        where = f"    rlm trace {in_one_line(run.file)} --run {in_one_line(run.run_id)[:12]}"
        question = in_one_line(run.question, max_chars=_QUESTION_CHARS)
        drawn += [
            line,
            Text(f"    {question}", no_wrap=True, overflow="ellipsis"),
            Text(where, style="dim", overflow="fold"),
        ]
    return drawn


def _endings(group: GroupFigures) -> Text:
    text = Text("  ")
    for index, (reason, count) in enumerate(group.finish_reasons.items()):
        text.append(", " if index else "")
        text.append(f"{count:,} {_ending(reason)}", style=_style(reason))
    return text


def _table(group: GroupFigures) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    is_all_known = all(
        found.known_count == group.run_count for found in group.distributions.values()
    )
    for name in ("median", "p95", "max", "total", "" if is_all_known else "known of"):
        table.add_column(name, justify="right", no_wrap=True)
    for measure in MEASURES:
        found = group.distributions.get(measure)
        if found is None:
            continue
        total = "" if measure in _WITHOUT_TOTAL else _shown(measure, found.total)
        is_known_of_all = found.known_count == group.run_count
        table.add_row(
            f"  {_NAMES[measure]}",
            _shown(measure, found.median),
            _shown(measure, found.p95),
            Text(_shown(measure, found.max), style="bold"),
            total,
            "" if is_known_of_all else f"{found.known_count:,} of {group.run_count:,}",
        )
    return table


def _shown(measure: str, value: float) -> str:
    match measure:
        case "cost_usd":
            return usd(Money(usd=value))
        case "wall_s":
            return seconds(value)
        case "sent_share":
            return percent(value)
        case "one_prompt_ratio":
            return f"{value:.2f} x"
        case _:
            return f"{value:,.0f}"


def _money(cost_usd: float | None) -> str:
    return usd(Money(has_unpriced=True) if cost_usd is None else Money(usd=cost_usd))


def _ending(reason: str) -> str:
    return reason.replace("_", " ")


def _style(reason: str) -> str:
    return "green" if reason == FinishReason.ANSWERED else "yellow"
