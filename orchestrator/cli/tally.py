"""Adds up what a run has done so far, from its events alone.

Without it an interrupted run could not say what it had cost: there is no result yet, and the money
is spent all the same.
"""

import time
from dataclasses import dataclass, field

from orchestrator.chat import ModelReply
from orchestrator.domain import CellId, QueryId, QueryKind, RunId
from orchestrator.engine.prompts.figures import counted
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    QueryEnded,
    QueryStarted,
    ReplyPiece,
    ReplyReceived,
    RunEnded,
    RunEvent,
    RunStarted,
    TurnStarted,
)

_TAIL_BYTES = 2048  # more than the live display's lines hold
_TAIL_CHARS = 2048  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSeen:
    """A child run, as lines about it name it.

    Attributes:
        label: The query it answers, below those that its parents answer.
        root_model: Writes its cells.
    """

    label: str
    root_model: str


@dataclass(slots=True)
class Tally:
    """What has happened in a run up to now. Written by one thread, read by any.

    Turns and cells are those of the run itself; queries, tokens and money have its child runs in
    them.
    """

    started_s: float = field(default_factory=time.monotonic)
    is_scripted: bool = False
    root_model: str = ""
    turn: int = 0
    reply_tail: str = ""
    cell_id: CellId | None = None
    cell_source: str = ""
    output_tail: bytes = b""
    query_count: int = 0
    failed_query_count: int = 0
    open_child_count: int = 0
    child_count: int = 0
    children: dict[RunId, ChildSeen] = field(default_factory=dict)
    _open: set[tuple[RunId, QueryId, int]] = field(default_factory=set)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    has_unpriced: bool = False

    def add(self, event: RunEvent) -> None:
        """Takes one event into account; those that change no figure change nothing."""
        match event:
            case RunStarted(parent_run_id=None):
                self.is_scripted, self.root_model = event.is_scripted, event.root_model
            case RunStarted():
                self._add_child(event)
            case RunEnded():
                self.open_child_count -= event.run_id in self.children
            case ReplyReceived():
                self._add_reply(event.reply)
                self.reply_tail = ""
            case QueryStarted(is_repeat=False, kind=QueryKind.PLAIN):
                self.query_count += 1
                self._open.add((event.run_id, event.query_id, event.prompt_index))
            case QueryEnded() if self._is_open(event):
                self._open.remove((event.run_id, event.query_id, event.prompt_index))
                self.failed_query_count += event.failure is not None
                if event.reply is not None:
                    self._add_reply(event.reply)
            case _ if event.run_id not in self.children:
                self._take_step(event)
            case _:
                pass

    def _take_step(self, event: RunEvent) -> None:
        match event:
            case TurnStarted():
                self.turn, self.reply_tail = event.turn, ""
            case ReplyPiece():
                self.reply_tail = (self.reply_tail + event.text)[-_TAIL_CHARS:]
            case CellStarted():
                self.cell_id, self.cell_source = event.cell_id, event.source
                self.output_tail = b""
            case CellPrinted():
                self.output_tail = (self.output_tail + event.data)[-_TAIL_BYTES:]
            case CellEnded():
                self.cell_id = None
            case _:
                pass

    def _add_child(self, event: RunStarted) -> None:
        self.child_count += 1
        self.open_child_count += 1
        above = self.children.get(event.parent_run_id) if event.parent_run_id else None
        label = f"{event.parent_query_id}/{event.parent_prompt_index}"
        if above is not None:
            label = f"{above.label} > {label}"
        self.children[event.run_id] = ChildSeen(label=label, root_model=event.root_model)

    def _is_open(self, event: QueryEnded) -> bool:
        return (event.run_id, event.query_id, event.prompt_index) in self._open

    def _add_reply(self, reply: ModelReply) -> None:
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if reply.cost_usd is None:
            self.has_unpriced = True
        else:
            self.cost_usd = (self.cost_usd or 0.0) + reply.cost_usd

    @property
    def open_query_count(self) -> int:
        """Prompts to sub-models under way."""
        return len(self._open)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run was asked for."""
        return time.monotonic() - self.started_s

    def spent(self) -> str:
        """Returns what was spent, as one phrase."""
        tokens = f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"
        return f"{tokens}, {self._money()}"

    def summary(self) -> str:
        """Returns what was done and spent, as one phrase."""
        failed = f" ({self.failed_query_count:,} failed)" if self.failed_query_count else ""
        turns, queries = counted(self.turn, "turn"), counted(self.query_count, "query")
        children = f", {counted(self.child_count, 'child run')}" if self.child_count else ""
        return f"{turns}, {queries}{failed}{children}, {self.spent()}, {self.elapsed_s:.1f} s"

    def _money(self) -> str:
        if self.is_scripted:
            return "$0 (no model was asked)"
        if self.cost_usd is None:
            return "cost unknown" if self.has_unpriced else "$0"
        return f"${self.cost_usd:.4f}{' and what has no known price' if self.has_unpriced else ''}"
