"""Draws what cells asked for: prompts, answers, refusals, failures, child runs.

Without it a batch of sixty prompts would bury the one that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.clipping import Clip, clipped, in_one_line
from orchestrator.cli.drawing import Ledgered, Rail
from orchestrator.cli.figures_text import seconds, usd
from orchestrator.domain import QueryKind
from orchestrator.engine.prompts.figures import counted
from orchestrator.events import QueryRefused, RequestFailed
from orchestrator.trajectory.spending import Money, steps_money
from orchestrator.trajectory.tree import RecordedQuery, RecordedRun, Step

_MONEY_CHARS = 10
_TIME_CHARS = 9
#: Prompts of one request that are shown where not all are; those that failed come on top.
_SHOWN_PROMPTS = 2
_SHOWN_FAILURES = 3
_MESSAGE_CHARS = 300  # of what a provider or the engine says went wrong

DrawRun = Callable[[RecordedRun], Sequence[RenderableType]]


def figures(money: Money | None, wall_s: float | None, *, is_most: bool = False) -> Text:
    """Returns money and time as they stand at the right edge of a line."""
    shown_usd = "" if money is None or money == Money() else usd(money)
    shown_s = "" if wall_s is None else seconds(wall_s)
    return Text.assemble(
        (shown_usd.rjust(_MONEY_CHARS), "bold yellow" if is_most else "green"),
        (shown_s.rjust(_TIME_CHARS), "blue"),
    )


def drawn_steps(steps: Sequence[Step], *, is_full: bool, draw_run: DrawRun) -> list[RenderableType]:
    """Returns what a cell asked for; prompts of one request together, where the first began.

    Args:
        steps: What was asked for.
        is_full: Whether every prompt is shown, and whole.
        draw_run: Draws a child run.
    """
    requests: dict[str, list[RecordedQuery]] = {}
    for step in steps:
        if isinstance(step, RecordedQuery):
            requests.setdefault(step.started.query_id, []).append(step)
    drawn: list[RenderableType] = []
    for step in steps:
        if not isinstance(step, RecordedQuery):
            drawn.append(_trouble(step))
        elif queries := requests.pop(step.started.query_id, None):
            queries.sort(key=lambda query: query.started.prompt_index)
            drawn += _request(queries, is_full=is_full, draw_run=draw_run)
    return drawn


def drawn_failure(failed: RequestFailed) -> RenderableType:
    """Returns a request that a provider did not answer."""
    then = "given up" if failed.wait_s is None else f"asked again after {failed.wait_s:.1f} s"
    charged = f", taken to cost {usd(Money(usd=failed.charged_usd))}" if failed.charged_usd else ""
    return _failure(f"{failed.model} did not answer, {then}{charged}", failed.why)


def _failure(what: str, why: str) -> RenderableType:
    text = Text(f"{in_one_line(what)}: ", style="yellow")
    text.append(in_one_line(why, max_chars=_MESSAGE_CHARS), style="default")
    return Rail([text], mark="✗", style="red", is_bullet=True)


def _trouble(step: QueryRefused | RequestFailed) -> RenderableType:
    if isinstance(step, RequestFailed):
        return drawn_failure(step)
    what = f"{step.query_id}  {counted(step.prompt_count, 'prompt')} refused"
    return _failure(what, step.failure.message)


def _request(
    queries: Sequence[RecordedQuery], *, is_full: bool, draw_run: DrawRun
) -> list[RenderableType]:
    first = queries[0].started
    repeats = sum(query.started.is_repeat for query in queries)
    head = Text.assemble(("? ", "magenta"), (in_one_line(first.query_id), "magenta"))
    if len(queries) > 1:
        head.append(f"  {counted(len(queries), 'prompt')}")
    head.append(f" → {_whom(queries[0])}", style="magenta")
    if repeats:
        of = f"{repeats} of them" if len(queries) > 1 else "this one"
        head.append(f"  {of} answered before", style="yellow")
    longest_s = max((query.ended.wall_s for query in queries if query.ended), default=None)
    shown = list(queries) if is_full else _worth_showing(queries)
    lines: list[RenderableType] = []
    for query in shown:
        lines += _prompt_and_answer(query, is_full=is_full, draw_run=draw_run)
    if len(shown) < len(queries):
        rest = len(queries) - len(shown)
        lines.append(Text(f"… {counted(rest, 'more prompt')}", style="dim italic"))
    return [Ledgered(head, figures(steps_money(queries), longest_s)), Rail(lines, mark=" ")]


def _whom(query: RecordedQuery) -> str:
    started = query.started
    match started.kind:
        case QueryKind.TOOL:
            return f"{in_one_line(started.tool_name)}()"
        case QueryKind.CHILD_RUN:
            return f"child run over {started.context_chars:,} characters"
        case QueryKind.PLAIN:
            return in_one_line(started.model) or "sub-model"


def _worth_showing(queries: Sequence[RecordedQuery]) -> list[RecordedQuery]:
    """Returns the first prompts, the first that failed, and all that became runs, in order."""
    failed = [query for query in queries if _is_failed(query)][:_SHOWN_FAILURES]
    kept = [*queries[:_SHOWN_PROMPTS], *failed]
    kept += [query for query in queries if query.child_run is not None]
    indexes = {query.started.prompt_index for query in kept}
    return [query for query in queries if query.started.prompt_index in indexes]


def _is_failed(query: RecordedQuery) -> bool:
    return query.ended is None or query.ended.failure is not None


def _prompt_and_answer(
    query: RecordedQuery, *, is_full: bool, draw_run: DrawRun
) -> list[RenderableType]:
    started, ended = query.started, query.ended
    style = "dim" if started.is_repeat else ""
    lines: list[RenderableType] = []
    if is_full:
        lines += [Rail(clipped(started.prompt, _WHOLE, style=style), mark="→", style="magenta")]
    else:
        lines.append(_one(("→ ", "magenta"), started.prompt, style))
    if query.child_run is not None:
        lines.append(Rail(draw_run(query.child_run), mark="┃", style="cyan"))
    if ended is None:
        lines.append(Text("✗ no answer is recorded: the trajectory ends here", style="red"))
    elif ended.failure is not None:
        reason = ended.failure.reason.replace("_", " ")
        lines.append(_failure(reason, ended.failure.message))
    elif ended.reply is not None and query.child_run is None:
        cut = " (cut off at its length limit)" if ended.reply.was_cut else ""
        if is_full:
            answer = clipped(ended.reply.text + cut, _WHOLE, style=style)
            lines += [Rail(answer, mark="←", style="magenta")]
        else:
            lines.append(_one(("← ", "magenta"), ended.reply.text + cut, style))
    if ended is not None and ended.notice:
        lines.append(_one(("! ", "yellow"), ended.notice, "yellow"))
    return lines


_WHOLE = Clip(head_lines=0, is_whole=True)


def _one(mark: tuple[str, str], text: str, style: str) -> Text:
    line = Text.assemble(mark, no_wrap=True, overflow="ellipsis")
    return line.append(in_one_line(text) or "(empty)", style=style)
