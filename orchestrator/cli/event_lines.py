"""Puts each event of a run into one line for a reader.

Without it the panel and the plain lines would each word the same event, and one of them would let
a line feed in a cell's error pass for a line of its own.
"""

from typing import TypeAlias

from orchestrator.cli.sanitize import for_one_line
from orchestrator.cli.tally import Tally
from orchestrator.domain import CellResult, QueryKind
from orchestrator.engine.prompts.figures import counted
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    Noticed,
    QueryEnded,
    QueryRefused,
    QueryStarted,
    ReplyPiece,
    ReplyReceived,
    RequestFailed,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
    TranscriptCompacted,
    TurnStarted,
)

_RunStep: TypeAlias = RunStarted | SandboxReady | RunEnded
_TurnStep: TypeAlias = (
    TurnStarted | ReplyReceived | CellStarted | CellEnded | Noticed | TranscriptCompacted
)
_QueryStep: TypeAlias = QueryStarted | QueryEnded | QueryRefused | RequestFailed

_EXCERPT_CHARS = 120
_LINE_CHARS = 600  # room for what a provider or an engine says went wrong


def describe(event: RunEvent, tally: Tally) -> str | None:
    """Returns the event as one line, safe for a terminal.

    None for pieces of replies and of output: what they are pieces of has a line. What happens in a
    child run stands behind the query that it answers.

    Args:
        event: What happened.
        tally: The run's figures with the event counted.
    """
    if isinstance(event, ReplyPiece | CellPrinted):
        return None
    child = tally.children.get(event.run_id)
    line = _describe(event, tally)
    return for_one_line(f"{child.label} | {line}" if child else line, max_chars=_LINE_CHARS)


def _describe(event: _RunStep | _TurnStep | _QueryStep, tally: Tally) -> str:
    match event:
        case RunStarted() | SandboxReady() | RunEnded():
            return _describe_run(event, tally)
        case (
            TurnStarted()
            | ReplyReceived()
            | CellStarted()
            | CellEnded()
            | Noticed()
            | TranscriptCompacted()
        ):
            return _describe_turn(event, tally)
        case QueryStarted() | QueryEnded() | QueryRefused() | RequestFailed():
            return _describe_query(event, tally)


def _describe_run(event: _RunStep, tally: Tally) -> str:
    match event:
        case RunStarted():
            return (
                f"run {event.run_id}: {event.context_chars:,} characters of "
                f"{event.context_kind}, root model {event.root_model}, sub-model {event.sub_model}"
            )
        case SandboxReady():
            return (
                f"sandbox {event.sandbox_id} ready in {event.start_s:.2f} s "
                f"({event.runtime}, {event.image_id})"
            )
        case RunEnded():
            failure = f": {event.failure}" if event.failure else ""
            if event.run_id in tally.children:
                turns = counted(event.turn_count, "turn")
                return f"run ended ({event.finish_reason}{failure}): {turns}"
            return f"run ended ({event.finish_reason}{failure}): {tally.summary()}"


def _describe_turn(event: _TurnStep, tally: Tally) -> str:
    match event:
        case TurnStarted():
            child = tally.children.get(event.run_id)
            return f"turn {event.turn}: asking {child.root_model if child else tally.root_model}"
        case ReplyReceived():
            return (
                f"turn {event.turn}: {counted(event.cell_count, 'cell')} in the reply, "
                f"{event.wall_s:.1f} s; so far {tally.spent()}"
            )
        case CellStarted():
            source = for_one_line(event.source, max_chars=_EXCERPT_CHARS)
            return f"turn {event.turn}, cell {event.cell_id}: {source}"
        case CellEnded():
            return f"turn {event.turn}, {describe_result(event.result)}"
        case Noticed():
            return f"turn {event.turn}: the root model was told: {event.text}"
        case TranscriptCompacted():
            return (
                f"turn {event.turn}: {counted(event.turn_count, 'earlier turn')} shortened, "
                f"{event.before_chars:,} to {event.after_chars:,} characters"
            )


def _describe_query(event: _QueryStep, tally: Tally) -> str:
    match event:
        case QueryStarted():
            prompt = for_one_line(event.prompt, max_chars=_EXCERPT_CHARS)
            return f"{_asked(event)} {event.query_id}/{event.prompt_index}: {prompt}"
        case QueryEnded():
            what = "answered as before" if event.is_repeat else "answered"
            what = event.failure.message if event.failure else what
            return (
                f"query {event.query_id}/{event.prompt_index}: {what} in {event.wall_s:.1f} s; "
                f"{tally.open_query_count} open of {tally.query_count}"
            )
        case QueryRefused():
            return f"query {event.query_id}: {event.prompt_count} refused: {event.failure.message}"
        case RequestFailed():
            then = "given up" if event.wait_s is None else f"again in {event.wait_s:.1f} s"
            return f"{event.model} did not answer, {then}: {event.why}"


def _asked(event: QueryStarted) -> str:
    match event.kind:
        case QueryKind.PLAIN:
            return "query"
        case QueryKind.CHILD_RUN:
            return "child run"
        case QueryKind.TOOL:
            return f"call of {event.tool_name}"


def describe_result(result: CellResult) -> str:
    """Returns how a cell ended, as one phrase."""
    printed_bytes = result.stdout.total_bytes + result.stderr.total_bytes
    why = ""
    if result.error is not None:
        message = for_one_line(result.error.message, max_chars=_EXCERPT_CHARS)
        why = f" ({result.error.type_name}: {message})"
    return (
        f"cell {result.cell_id} {result.outcome}{why} in {result.usage.wall_s:.2f} s, "
        f"{printed_bytes:,} bytes printed, variables {result.state}"
    )
