"""Adds up what a run has done so far, from its events alone.

Without it an interrupted run could not say what it had cost: there is no result yet, and the money
is spent all the same.
"""

import time
from dataclasses import dataclass, field

from orchestrator.domain import CellId, ModelReply
from orchestrator.engine.prompts.figures import counted
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    QueryEnded,
    QueryStarted,
    ReplyReceived,
    RunEvent,
    RunStarted,
    TurnStarted,
)

_TAIL_BYTES = 2048  # more than the live display's lines hold


@dataclass(slots=True)
class Tally:
    """What has happened in a run up to now. Written by one thread, read by any."""

    started_s: float = field(default_factory=time.monotonic)
    is_scripted: bool = False
    root_model: str = ""
    turn: int = 0
    cell_id: CellId | None = None
    cell_source: str = ""
    output_tail: bytes = b""
    open_query_count: int = 0
    query_count: int = 0
    failed_query_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    has_unpriced: bool = False

    def add(self, event: RunEvent) -> None:
        """Takes one event into account; those that change no figure change nothing."""
        match event:
            case RunStarted():
                self.is_scripted, self.root_model = event.is_scripted, event.root_model
            case TurnStarted():
                self.turn = event.turn
            case ReplyReceived():
                self._add_reply(event.reply)
            case CellStarted():
                self.cell_id, self.cell_source = event.cell_id, event.source
                self.output_tail = b""
            case CellPrinted():
                self.output_tail = (self.output_tail + event.data)[-_TAIL_BYTES:]
            case CellEnded():
                self.cell_id = None
            case QueryStarted(is_repeat=False):
                self.query_count += 1
                self.open_query_count += 1
            case QueryEnded(is_repeat=False):
                self.open_query_count -= 1
                self.failed_query_count += event.failure is not None
                if event.reply is not None:
                    self._add_reply(event.reply)
            case _:
                pass

    def _add_reply(self, reply: ModelReply) -> None:
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if reply.cost_usd is None:
            self.has_unpriced = True
        else:
            self.cost_usd = (self.cost_usd or 0.0) + reply.cost_usd

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
        return f"{turns}, {queries}{failed}, {self.spent()}, {self.elapsed_s:.1f} s"

    def _money(self) -> str:
        if self.is_scripted:
            return "$0 (no model was asked)"
        if self.cost_usd is None:
            return "cost unknown" if self.has_unpriced else "$0"
        return f"${self.cost_usd:.4f}{' and what has no known price' if self.has_unpriced else ''}"
