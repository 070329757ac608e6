"""What happens in a run, as it happens: the words of progress displays and trajectories.

Without it the command line, the trajectory and a server would each hook into the loop in their own
way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.controls import Controls
from orchestrator.domain import (
    AnswerSource,
    CellId,
    CellResult,
    ContextKind,
    FinishReason,
    ModelReply,
    ModelUsage,
    OutputStream,
    QueryFailure,
    QueryId,
    RunId,
    Timings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run began. The context itself is never in an event: its size and digest are."""

    run_id: RunId
    question: str
    context_kind: ContextKind
    context_chars: int
    context_sha256_hex: str
    root_model: str
    sub_model: str
    profile: str
    is_scripted: bool  # no model is asked in this run


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxReady:
    """The sandbox is attached and the context bound.

    `controls` is None in a trajectory of a release that made no statement of them.
    """

    sandbox_id: str
    image_id: str
    runtime: str
    start_s: float
    controls: Controls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted:
    """The root model is being asked. Turns count from 1; 0 is the harness's own probe."""

    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyReceived:
    """The root model answered."""

    turn: int
    reply: ModelReply
    cell_count: int
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStarted:
    """A cell was handed to the sandbox."""

    turn: int
    cell_id: CellId
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPrinted:
    """A cell printed something. For live displays; not part of a trajectory. Untrusted text."""

    cell_id: CellId
    stream: OutputStream
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEnded:
    """A cell ended."""

    turn: int
    result: CellResult


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryStarted:
    """One prompt was admitted by the ledger and is on its way to the sub-model."""

    query_id: QueryId
    prompt_index: int
    cell_id: CellId
    prompt: str
    is_repeat: bool = False  # asked before in this run: nothing is sent, the answer is shared


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryEnded:
    """One prompt was answered or failed."""

    query_id: QueryId
    prompt_index: int
    reply: ModelReply | None
    failure: QueryFailure | None
    wall_s: float
    is_repeat: bool = False  # the reply then holds no tokens and no cost: they were paid once


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRefused:
    """A whole request, or the too large prompts of one, was refused and nothing dispatched."""

    query_id: QueryId
    cell_id: CellId
    prompt_count: int
    failure: QueryFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run ended, for whatever reason."""

    run_id: RunId
    finish_reason: FinishReason
    answer: str
    answer_source: AnswerSource
    failure: str  # for a reader; empty unless finish_reason names a failure
    usage: dict[str, ModelUsage]
    turn_count: int
    query_count: int
    timings: Timings


RunEvent: TypeAlias = (
    RunStarted
    | SandboxReady
    | TurnStarted
    | ReplyReceived
    | CellStarted
    | CellPrinted
    | CellEnded
    | QueryStarted
    | QueryEnded
    | QueryRefused
    | RunEnded
)
