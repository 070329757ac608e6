"""Draws where the money and the time of a run went.

Without it a reader would add up figures of a hundred lines to find the one that matters.
"""

from __future__ import annotations

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.chat import ModelUsage
from orchestrator.cli.clipping import in_one_line
from orchestrator.cli.figures_text import bar, percent, seconds, usd
from orchestrator.engine.prompts.figures import counted
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.spending import (
    Money,
    money_of,
    run_money,
    time_shares,
    usage_by_model,
)
from orchestrator.trajectory.tree import RecordedRun

_BAR_CHARS = 14
_MODEL_CHARS = 22


def drawn_spending(run: RecordedRun) -> list[RenderableType]:
    """Returns two tables and a comparison; child runs are in the figures of money."""
    usage = usage_by_model(run)
    drawn: list[RenderableType] = []
    if usage:
        drawn += [Text("money", style="bold"), _money_table(usage)]
    lost = sum(each.unanswered_usd for each in usage.values())
    if lost:
        drawn.append(Text(f"  {usd(Money(usd=lost))} of it for requests that brought nothing"))
    if run.ended is None:
        drawn.append(Text("  what was under way at the end is not in it", style="yellow"))
    comparison = _against_one_prompt(run)
    if comparison:
        drawn.append(Padding(Text(comparison, style="dim"), (0, 0, 0, 2)))
    drawn += [Text("time", style="bold"), _time_table(run)]
    return drawn


def _money_table(usage: dict[str, ModelUsage]) -> Table:
    total_usd = money_of(usage).usd
    total_tokens = sum(_tokens(each) for each in usage.values())
    table = _grid(("left", "right", "left", "right", "right", "right"))
    costly_first = sorted(
        usage.items(),
        key=lambda entry: (money_of(dict([entry])).usd, _tokens(entry[1])),
        reverse=True,
    )
    for model, each in costly_first:
        money = money_of({model: each})
        # Where nothing has a price, tokens are the next best measure.
        share = money.usd / total_usd if total_usd else _tokens(each) / max(total_tokens, 1)
        table.add_row(
            Text(f"  {in_one_line(model, max_chars=_MODEL_CHARS)}"),
            Text(usd(money), style="green"),
            Text(bar(share, width=_BAR_CHARS).ljust(_BAR_CHARS), style="green"),
            Text(percent(share)),
            Text(counted(each.request_count + each.unanswered_count, "request"), style="dim"),
            Text(f"{each.prompt_tokens:,} + {each.completion_tokens:,}", style="dim"),
        )
    return table


def _time_table(run: RecordedRun) -> Table:
    shares = time_shares(run)
    parts = (
        ("root model", shares.root_model_s),
        ("queries", shares.queries_s),
        ("code of cells", shares.code_s),
        ("sandbox start", shares.start_s),
        ("the rest", shares.other_s),
    )
    table = _grid(("left", "right", "left", "right"))
    for name, spent_s in parts:
        if not spent_s:
            continue
        share = spent_s / shares.total_s if shares.total_s else 0.0
        table.add_row(
            Text(f"  {name}"),
            Text(seconds(spent_s), style="blue"),
            Text(bar(share, width=_BAR_CHARS).ljust(_BAR_CHARS), style="blue"),
            Text(percent(share)),
        )
    return table


def _against_one_prompt(run: RecordedRun) -> str:
    """Returns what the whole context in one prompt would have cost, where that is known."""
    efficiency, money = efficiency_of(run), run_money(run)
    one_prompt_usd = efficiency.one_prompt_usd
    sent = f"sub-models can have read {percent(efficiency.sent_share)} of the context"
    if not one_prompt_usd:
        return sent if efficiency.sent_query_count else ""
    fits = ", which it would not have fitted" if efficiency.fits_one_prompt is False else ""
    return (
        f"{sent}; all of it in one prompt{fits}: {usd(Money(usd=one_prompt_usd))} "
        f"(spent: {money.usd / one_prompt_usd:.2f} times that)"
    )


def _tokens(usage: ModelUsage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def _grid(alignments: tuple[str, ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    for alignment in alignments:
        table.add_column(justify="right" if alignment == "right" else "left", no_wrap=True)
    return table
