"""A trajectory as what it tells of: runs, their turns, cells, queries and child runs.

Without it every reader (a display, figures, exports, a replay) would put a flat list of events
together in its own way, and each would be surprised anew by a file whose process was killed. What
did not come to its end is None here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from orchestrator.chat import Message
from orchestrator.domain import RunId
from orchestrator.events import (
    CellEnded,
    CellStarted,
    Noticed,
    QueryEnded,
    QueryRefused,
    QueryStarted,
    ReplyReceived,
    RequestFailed,
    RunEnded,
    RunStarted,
    SandboxReady,
    TranscriptCompacted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedQuery:
    """One prompt, what came of it, and the child run that answered it, if one did."""

    started: QueryStarted
    ended: QueryEnded | None = None
    ended_at: datetime | None = None
    child_run: RecordedRun | None = None


#: What happens while a cell waits, or while the root model is waited for.
Step: TypeAlias = RecordedQuery | QueryRefused | RequestFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCell:
    """One cell and what it asked for, in order."""

    started: CellStarted
    ended: CellEnded | None = None
    steps: tuple[Step, ...] = ()

    @property
    def queries(self) -> tuple[RecordedQuery, ...]:
        """Its prompts that were admitted, in order."""
        return queries_in(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTurn:
    """One reply of the root model and the results of its cells.

    Attributes:
        number: From 1; 0 is the harness's own probe.
        started_at: When the root model was asked.
        messages: What it was sent beyond what it had been sent before; after a compaction the whole
            chat.
        compaction: That which came before this turn.
        failed_requests: What providers did not answer before the reply came.
        reply: None where none came.
        cells: In order.
        notices: What the root model was told about its ways, at the end of the turn.
    """

    number: int
    started_at: datetime | None = None
    messages: tuple[Message, ...] = ()
    compaction: TranscriptCompacted | None = None
    failed_requests: tuple[RequestFailed, ...] = ()
    reply: ReplyReceived | None = None
    cells: tuple[RecordedCell, ...] = ()
    notices: tuple[Noticed, ...] = ()

    @property
    def queries(self) -> tuple[RecordedQuery, ...]:
        """The prompts of all its cells."""
        return tuple(query for cell in self.cells for query in cell.queries)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One run.

    Attributes:
        records_text: Whether texts are what was written, and not digests.
        before_turns: What happened outside of any turn, such as a short context answered directly.
        turns: In order.
        after_turns: What the request for a last answer met with.
        last_at: When the last event of the run, or of a child run, was written.
    """

    started: RunStarted
    started_at: datetime | None = None
    records_text: bool = True
    ready: SandboxReady | None = None
    before_turns: tuple[Step, ...] = ()
    turns: tuple[RecordedTurn, ...] = ()
    after_turns: tuple[Step, ...] = ()
    ended: RunEnded | None = None
    last_at: datetime | None = None

    @property
    def run_id(self) -> RunId:
        """Its name."""
        return self.started.run_id

    @property
    def queries(self) -> tuple[RecordedQuery, ...]:
        """Its own prompts, those of its child runs left out."""
        in_turns = (query for turn in self.turns for query in turn.queries)
        return (*queries_in(self.before_turns), *in_turns, *queries_in(self.after_turns))

    @property
    def failed_requests(self) -> tuple[RequestFailed, ...]:
        """What providers did not answer, child runs left out."""
        in_cells = (step for turn in self.turns for cell in turn.cells for step in cell.steps)
        steps = (
            *self.before_turns,
            *(failed for turn in self.turns for failed in turn.failed_requests),
            *in_cells,
            *self.after_turns,
        )
        return tuple(step for step in steps if isinstance(step, RequestFailed))

    @property
    def child_runs(self) -> tuple[RecordedRun, ...]:
        """Those that its cells started, in order; their own children are in them."""
        return tuple(query.child_run for query in self.queries if query.child_run is not None)

    def walk(self) -> Iterator[RecordedRun]:
        """Yields the run and all below it, parents first."""
        yield self
        for child in self.child_runs:
            yield from child.walk()


def queries_in(steps: Sequence[Step]) -> tuple[RecordedQuery, ...]:
    """Returns what of some steps are prompts that were admitted."""
    return tuple(step for step in steps if isinstance(step, RecordedQuery))


def find_run(runs: Sequence[RecordedRun], run_id: str) -> tuple[RecordedRun, ...]:
    """Returns the runs, at any depth, whose name begins with `run_id`."""
    return tuple(run for top in runs for run in top.walk() if run.run_id.startswith(run_id))
