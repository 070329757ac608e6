"""What happens in a run, as it happens: the words of progress displays, streams and trajectories.

Without it the command line, the trajectory and a server would each hook into the loop in their own
way. The events of child runs come among those of their parent; `run_id` tells whose each one is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from orchestrator.chat import Message, ModelReply, ModelUsage
from orchestrator.controls import Controls
from orchestrator.domain import (
    AnswerSource,
    CellId,
    CellResult,
    ContextKind,
    Efficiency,
    FinishReason,
    OutputStream,
    QueryFailure,
    QueryId,
    QueryKind,
    RunId,
    Timings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run began. The context itself is never in an event: its size and digest are.

    Attributes:
        parent_run_id: Of the run whose cell started this one; None for a run of a caller's.
        parent_query_id: The query that it answers, of that run; None likewise.
        parent_prompt_index: Which prompt of that query.
        depth: 0 for a run of a caller's, 1 for its child runs, and so on.
        session_run: 1 for the first run of a session, and for a run that is no session's.
        sub_model: The model that cells ask where they name none.
        prompt_version: Of the texts the root model is sent.
        tool_names: Functions of the caller's that cells may call.
        turn_limit: Turns that the run may take.
        depth_limit: Levels of child runs that it may have below it.
        is_scripted: No model is asked in this run.
    """

    run_id: RunId
    question: str
    context_kind: ContextKind
    context_chars: int
    context_sha256_hex: str
    root_model: str
    sub_model: str
    profile: str
    is_scripted: bool
    parent_run_id: RunId | None = None
    parent_query_id: QueryId | None = None
    parent_prompt_index: int = 0
    depth: int = 0
    session_run: int = 1
    prompt_version: int = 0
    tool_names: tuple[str, ...] = ()
    turn_limit: int = 0
    depth_limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxReady:
    """The sandbox is attached and the context bound."""

    run_id: RunId
    sandbox_id: str
    image_id: str
    runtime: str
    start_s: float
    controls: Controls


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """The root model is being asked. Turns count from 1; 0 is the harness's own probe.

    Attributes:
        turn: Its number; a last request for an answer, when a limit was reached, has the number
            after that of the last turn.
        messages: What it is sent beyond the messages of the turns before; the reply to the one
            before is among them. Where the context is its own question, what is quoted of it is
            replaced by its digest.
    """

    run_id: RunId
    turn: int
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPiece:
    """A piece of the root model's reply. For live displays; not part of a trajectory."""

    run_id: RunId
    turn: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyReceived:
    """The root model answered."""

    run_id: RunId
    turn: int
    reply: ModelReply
    cell_count: int
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted:
    """A cell was handed to the sandbox."""

    run_id: RunId
    turn: int
    cell_id: CellId
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPrinted:
    """A cell printed something. For live displays; not part of a trajectory. Untrusted text."""

    run_id: RunId
    cell_id: CellId
    stream: OutputStream
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnded:
    """A cell ended."""

    run_id: RunId
    turn: int
    result: CellResult


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStarted:
    """One prompt was admitted by the ledger and is on its way to whoever answers it.

    Attributes:
        kind: Who that is.
        model: The model's name; empty for a tool.
        tool_name: The function that is called; empty for anything else.
        context_chars: Length of the context a child run is given beside the prompt.
        json_schema: What the answer has to fit, as JSON; empty for any text.
        is_repeat: Asked before in this run: nothing is sent, the answer is shared.
    """

    run_id: RunId
    query_id: QueryId
    prompt_index: int
    cell_id: CellId
    prompt: str
    kind: QueryKind = QueryKind.PLAIN
    model: str = ""
    tool_name: str = ""
    context_chars: int = 0
    json_schema: str = ""
    is_repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryEnded:
    """One prompt was answered or failed.

    Attributes:
        reply: Holds no tokens and no cost where another event has them: for a repeat, which was
            paid for once, and for a child run, whose own events say what it took.
        notice: What the cell was told about the answer; empty for nothing.
    """

    run_id: RunId
    query_id: QueryId
    prompt_index: int
    reply: ModelReply | None
    failure: QueryFailure | None
    wall_s: float
    is_repeat: bool = False
    notice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRefused:
    """A whole request, or the too large prompts of one, was refused and nothing dispatched."""

    run_id: RunId
    query_id: QueryId
    cell_id: CellId
    prompt_count: int
    failure: QueryFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed:
    """A provider did not answer one request.

    Attributes:
        model: Whom it was sent to.
        why: What came instead, in the operator's words.
        wait_s: In how many seconds it is asked again; None where it is not.
        charged_usd: What the failed request is taken to cost, because it may be billed.
    """

    run_id: RunId
    model: str
    why: str
    wait_s: float | None
    charged_usd: float = 0.0


class NoticeKind(StrEnum):
    """What the engine remarks on, of its own accord, to a root model."""

    REPEATED_CELLS = "repeated_cells"  # the same cells, with the same outcome
    REPEATED_QUERIES = "repeated_queries"  # prompts that had been answered before
    VERIFYING = "verifying"  # turn after turn around a draft that no longer changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """The root model was told that it goes round in circles."""

    run_id: RunId
    turn: int
    kind: NoticeKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptCompacted:
    """Earlier turns were shortened, because the root model's window filled up.

    Attributes:
        turn: Before which one.
        turn_count: How many turns were shortened.
        before_chars: Length of all messages before.
        after_chars: And after.
    """

    run_id: RunId
    turn: int
    turn_count: int
    before_chars: int
    after_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run ended, for whatever reason. Counts and usage have its child runs in them.

    Attributes:
        failure: For a reader; empty unless `finish_reason` names a failure.
        limit: The limit that ended it, as the settings have its name; empty for none.
    """

    run_id: RunId
    finish_reason: FinishReason
    answer: str
    answer_source: AnswerSource
    failure: str
    usage: dict[str, ModelUsage]
    turn_count: int
    query_count: int
    timings: Timings
    limit: str = ""
    child_run_count: int = 0
    tool_call_count: int = 0
    efficiency: Efficiency = field(default_factory=Efficiency)


RunEvent: TypeAlias = (
    RunStarted
    | SandboxReady
    | TurnStarted
    | ReplyPiece
    | ReplyReceived
    | CellStarted
    | CellPrinted
    | CellEnded
    | QueryStarted
    | QueryEnded
    | QueryRefused
    | RequestFailed
    | Noticed
    | TranscriptCompacted
    | RunEnded
)

#: Events of a moment: a live display shows them, a trajectory leaves them out.
LIVE_EVENTS = (ReplyPiece, CellPrinted)
