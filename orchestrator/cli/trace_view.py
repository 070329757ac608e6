"""Draws a recorded run: what was asked, each turn with its cells, and what came of it.

Without it a trajectory would be read with a pager, one JSON object a line, by whoever has the time.
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from orchestrator.cli.clipping import Clip, clipped, in_one_line
from orchestrator.cli.drawing import Ledgered, Rail
from orchestrator.cli.figures_text import seconds
from orchestrator.cli.trace_steps import drawn_failure, drawn_steps, figures
from orchestrator.domain import (
    AnswerSource,
    CellResult,
    FinishReason,
    Outcome,
    Printed,
    VariableState,
)
from orchestrator.engine.parsing import parse_reply
from orchestrator.engine.prompts.figures import counted
from orchestrator.events import ReplyReceived
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.spending import (
    elapsed_s,
    run_money,
    turn_money,
    turn_s,
    usage_by_model,
)
from orchestrator.trajectory.tree import RecordedCell, RecordedRun, RecordedTurn

_FINISH_STYLES = {FinishReason.ANSWERED: "bold green"}
_BROKEN = frozenset(
    {
        FinishReason.MODEL_FAILED,
        FinishReason.SANDBOX_LOST,
        FinishReason.CANCELLED,
        FinishReason.RAISED,
    }
)
_OUTCOME_STYLES = {Outcome.SUCCEEDED: "green", Outcome.RAISED: "yellow", Outcome.REJECTED: "yellow"}
_STATES = {
    VariableState.ROLLED_BACK: "variables as before it",
    VariableState.LOST: "variables lost",
}
_SOURCES = {
    AnswerSource.FINAL: "",
    AnswerSource.DIRECT: "of the sub-model, which was given the whole context",
    AnswerSource.DRAFT: "a draft, never declared ready",
    AnswerSource.LAST_REQUEST: "the best the root model could give when the limit was reached",
    AnswerSource.NONE: "none",
}
_ID_CHARS = 12


class RunView:
    """Draws runs, all in the same way."""

    def __init__(self, *, is_full: bool) -> None:
        """Decides how much of each text is shown."""
        self._is_full = is_full
        self._code = Clip(head_lines=10, tail_lines=2, is_whole=is_full)
        self._output = Clip(head_lines=5, tail_lines=3, is_whole=is_full)
        self._prose = Clip(head_lines=3, is_whole=is_full, folds=True)
        self._answer = Clip(head_lines=12, is_whole=is_full, folds=True)
        self._error = Clip(head_lines=1, tail_lines=6, is_whole=is_full)

    def drawn(self, run: RecordedRun) -> list[RenderableType]:
        """Returns a run, with its child runs in the cells that started them."""
        drawn: list[RenderableType] = [self._title(run), self._facts(run)]
        if run.before_turns:
            before = drawn_steps(run.before_turns, is_full=self._is_full, draw_run=self.drawn)
            drawn += [Text(), Rail(before)]
        most_usd = max((turn_money(turn).usd for turn in run.turns), default=0.0)
        for turn in run.turns:
            drawn += self._turn(turn, is_most=turn_money(turn).usd == most_usd > 0)
        drawn += drawn_steps(run.after_turns, is_full=self._is_full, draw_run=self.drawn)
        return drawn

    def _title(self, run: RecordedRun) -> RenderableType:
        what = "child run" if run.started.parent_run_id else "run"
        title = Text.assemble((f"{what} {in_one_line(run.run_id)[:_ID_CHARS]}", "bold"), "  ")
        if run.ended is None:
            title.append("cut off", style="bold red")
        else:
            reason = run.ended.finish_reason
            broken = "bold red" if reason in _BROKEN else "bold yellow"
            title.append(reason.replace("_", " "), style=_FINISH_STYLES.get(reason, broken))
        if run.started_at is not None:
            title.append(f"  {run.started_at:%Y-%m-%d %H:%M %Z}", style="dim")
        if run.started.is_scripted:
            title.append("  no model was asked", style="yellow")
        return Ledgered(title, figures(run_money(run), elapsed_s(run)))

    def _facts(self, run: RecordedRun) -> Table:
        started, ended = run.started, run.ended
        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        question = started.question if started.question.strip() else "(the context is its own)"
        digest = started.context_sha256_hex[:_ID_CHARS]
        models = f"{in_one_line(started.root_model)} (profile {in_one_line(started.profile)})"
        table.add_row("  question", Group(*clipped(question, self._prose, style="bold")))
        table.add_row("  answer", Group(*self._answer_lines(run)))
        if ended is not None and ended.failure:
            table.add_row("  failure", Text(in_one_line(ended.failure), style="red"))
        table.add_row(
            "  context",
            f"{started.context_kind}, {started.context_chars:,} characters (sha256 {digest}…)",
        )
        table.add_row("  models", f"{models}, queries {in_one_line(started.sub_model)}")
        if run.ready is not None:
            ready = f"{in_one_line(run.ready.runtime)}, ready after {seconds(run.ready.start_s)}"
            table.add_row("  sandbox", ready)
        table.add_row("  took", _taken(run))
        return table

    def _answer_lines(self, run: RecordedRun) -> list[Text]:
        if run.ended is None:
            sentence = "no end is recorded: the process was killed, or the run still goes on"
            return [Text(sentence, style="red")]
        source = run.ended.answer_source
        lines: list[Text] = []
        if source is not AnswerSource.NONE:
            lines += clipped(run.ended.answer, self._answer, style="green")
        if _SOURCES[source]:
            lines.append(Text(f"({_SOURCES[source]})", style="yellow"))
        return lines

    def _turn(self, turn: RecordedTurn, *, is_most: bool) -> list[RenderableType]:
        drawn: list[RenderableType] = [Text()]
        if turn.compaction is not None:
            shortened = turn.compaction
            sentence = (
                f"{counted(shortened.turn_count, 'earlier turn')} shortened: the chat had "
                f"{shortened.before_chars:,} characters, now {shortened.after_chars:,}"
            )
            drawn.append(
                Rail([Text(sentence, style="magenta")], mark="⇣", style="magenta", is_bullet=True)
            )
        name = f"turn {turn.number}" if turn.number else "probe"
        title = Text(name, style="bold cyan")
        if turn.reply is not None:
            reply = turn.reply.reply
            cached = f" ({reply.cached_prompt_tokens:,} cached)" * bool(reply.cached_prompt_tokens)
            title.append(
                f"  {reply.prompt_tokens:,}{cached} + {reply.completion_tokens:,} tokens",
                style="default not bold dim",
            )
        drawn.append(Ledgered(title, figures(turn_money(turn), turn_s(turn), is_most=is_most)))
        inside: list[RenderableType] = [drawn_failure(failed) for failed in turn.failed_requests]
        inside += self._reply(turn)
        for cell in turn.cells:
            inside += self._cell(cell)
        for notice in turn.notices:
            text = Text(in_one_line(notice.text), style="yellow")
            inside.append(Rail([text], mark="!", style="yellow", is_bullet=True))
        drawn.append(Rail(inside))
        return drawn

    def _reply(self, turn: RecordedTurn) -> list[RenderableType]:
        received = turn.reply
        if received is None:
            missing = Text("✗ no reply is recorded", style="red")
            return [missing] if turn.number else []
        lines: list[RenderableType] = []
        prose = _prose_of(received)
        if prose.strip():
            lines += clipped(prose, self._prose)
        if received.reply.was_cut:
            lines.append(Text("! cut off at its length limit", style="yellow"))
        if not received.cell_count:
            lines.append(Text("! no cell in this reply", style="yellow"))
        return lines

    def _cell(self, cell: RecordedCell) -> list[RenderableType]:
        title = Text.assemble((f"cell {cell.started.cell_id}", "bold"), "  ")
        result = None if cell.ended is None else cell.ended.result
        if result is None:
            title.append("no end recorded", style="bold red")
        else:
            style = _OUTCOME_STYLES.get(result.outcome, "bold red")
            title.append(result.outcome.replace("_", " "), style=style)
            if result.state in _STATES:
                title.append(f", {_STATES[result.state]}", style="red")
        wall_s = None if result is None else result.usage.wall_s
        code = [_highlighted(line) for line in clipped(cell.started.source, self._code)]
        drawn: list[RenderableType] = [
            Ledgered(title, figures(None, wall_s)),
            Rail(code, mark="▎", style="blue"),
        ]
        drawn += drawn_steps(cell.steps, is_full=self._is_full, draw_run=self.drawn)
        if result is not None:
            drawn += self._outcome(result)
        return drawn

    def _outcome(self, result: CellResult) -> list[RenderableType]:
        drawn: list[RenderableType] = []
        for printed, style in ((result.stdout, ""), (result.stderr, "yellow")):
            if printed.total_bytes:
                drawn.append(Rail(self._printed(printed, style), mark="┊", style="dim"))
        if result.error is not None:
            error = result.error
            message = f"{in_one_line(error.type_name)}: {in_one_line(error.message)}"
            lines = [Text(message, style="bold red", overflow="fold")]
            if error.traceback:
                lines += clipped(error.traceback, self._error, style="red")
            drawn.append(Rail(lines, mark="✗", style="red", is_bullet=True))
        if result.answer.content.strip():
            what = "answer ready" if result.answer.is_ready else "draft"
            line = Text(f"= {what}: ", style="green", no_wrap=True, overflow="ellipsis")
            drawn.append(line.append(in_one_line(result.answer.content)))
        return drawn

    def _printed(self, printed: Printed, style: str) -> list[Text]:
        lines = clipped(printed.head, self._output, style=style)
        if printed.dropped_bytes:
            gap = f"… {printed.dropped_bytes:,} of {printed.total_bytes:,} bytes were not kept"
            lines.append(Text(gap, style="dim italic"))
        if printed.tail:
            lines += clipped(printed.tail, self._output, style=style)
        return lines


def _prose_of(received: ReplyReceived) -> str:
    """Returns what a reply says beside its cells, which are shown as they ran."""
    reply = received.reply
    if not received.cell_count:
        return reply.text
    parsed = parse_reply(reply.text, accepts_bare_code=False, was_cut=reply.was_cut)
    # Bare code that was run as a cell is no prose.
    return parsed.prose if parsed.cells else ""


def _taken(run: RecordedRun) -> str:
    own, usages = efficiency_of(run), usage_by_model(run).values()
    turns = len([turn for turn in run.turns if turn.reply is not None])
    parts = [counted(turns, "turn"), counted(own.sent_query_count, "query")]
    if own.repeated_query_count:
        parts.append(f"{own.repeated_query_count:,} more answered before")
    children = len(list(run.walk())) - 1
    if children:
        parts.append(counted(children, "child run"))
    if own.notice_count:
        parts.append(counted(own.notice_count, "notice"))
    prompt_tokens = sum(usage.prompt_tokens for usage in usages)
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    return f"{', '.join(parts)}; {prompt_tokens:,} + {completion_tokens:,} tokens"


_PYTHON = Syntax("", "python", theme="ansi_dark", background_color="default")


def _highlighted(line: Text) -> Text:
    if line.style:
        return line  # says what was cut, or is a digest
    colored = _PYTHON.highlight(line.plain)
    colored.rstrip()
    colored.no_wrap, colored.overflow = line.no_wrap, line.overflow
    return colored
