"""Puts the events of a trajectory together to runs.

Without it a tree could be had only of a run that ended: here an event is put where it belongs as
it comes, and what is there can be read at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain import QueryId
from orchestrator.errors import InputError
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
from orchestrator.trajectory.lines import RecordedEvent
from orchestrator.trajectory.tree import (
    RecordedCell,
    RecordedQuery,
    RecordedRun,
    RecordedTurn,
    Step,
)

#: Far below what Python can recurse; a run tree has a handful of levels.
_MAX_LEVELS = 50


def runs_of(records: Iterable[RecordedEvent]) -> tuple[RecordedRun, ...]:
    """Returns the runs in a trajectory, in the order in which they began; child runs are in theirs.

    The trajectory may hold several runs, one after the other or at the same time, and may end
    anywhere. A child run whose parent is not in it stands on its own.

    Raises:
        InputError: An event belongs to a run, a cell or a query whose beginning is not there.
    """
    growing: dict[str, _GrowingRun] = {}
    roots: list[_GrowingRun] = []
    for record in records:
        event = record.event
        if not isinstance(event, RunStarted):
            if event.run_id not in growing:
                raise InputError(
                    f"an event of run {event.run_id!r:.60} comes before the run's beginning: the "
                    "trajectory lacks its first lines"
                )
            growing[event.run_id].take(record)
            continue
        if event.run_id in growing:
            raise InputError(f"run {event.run_id!r:.60} begins twice: its lines are there twice")
        parent = growing.get(event.parent_run_id or "")
        run = _GrowingRun(record, event, parent=parent)
        if run.level >= _MAX_LEVELS:
            raise InputError(f"runs are nested deeper than {_MAX_LEVELS}")
        growing[event.run_id] = run
        if parent is None or not parent.adopt(run):
            roots.append(run)
    return tuple(run.closed() for run in roots)


def records_of(events: Iterable[RunEvent]) -> Iterator[RecordedEvent]:
    """Yields events that come from a result as if they had been read, without their times."""
    for event in events:
        yield RecordedEvent(event=event)


@dataclass(slots=True)
class _GrowingQuery:
    started: QueryStarted
    ended: QueryEnded | None = None
    ended_at: datetime | None = None
    child_run: _GrowingRun | None = None

    def closed(self) -> RecordedQuery:
        return RecordedQuery(
            started=self.started,
            ended=self.ended,
            ended_at=self.ended_at,
            child_run=None if self.child_run is None else self.child_run.closed(),
        )


_GrowingSteps = list[_GrowingQuery | QueryRefused | RequestFailed]


@dataclass(slots=True)
class _GrowingCell:
    started: CellStarted
    ended: CellEnded | None = None
    steps: _GrowingSteps = field(default_factory=list)

    def closed(self) -> RecordedCell:
        return RecordedCell(started=self.started, ended=self.ended, steps=_closed(self.steps))


@dataclass(slots=True)
class _GrowingTurn:
    number: int
    compaction: TranscriptCompacted | None = None
    started: TurnStarted | None = None
    started_at: datetime | None = None
    failed_requests: list[RequestFailed] = field(default_factory=list)
    reply: ReplyReceived | None = None
    cells: list[_GrowingCell] = field(default_factory=list)
    notices: list[Noticed] = field(default_factory=list)

    def closed(self) -> RecordedTurn:
        return RecordedTurn(
            number=self.number,
            started_at=self.started_at,
            messages=() if self.started is None else self.started.messages,
            compaction=self.compaction,
            failed_requests=tuple(self.failed_requests),
            reply=self.reply,
            cells=tuple(cell.closed() for cell in self.cells),
            notices=tuple(self.notices),
        )


class _GrowingRun:
    """A run whose events are still coming."""

    def __init__(
        self, record: RecordedEvent, started: RunStarted, *, parent: _GrowingRun | None
    ) -> None:
        self.started = started
        self.level: int = 0 if parent is None else parent.level + 1
        self._parent = parent
        self._started_at = self._last_at = record.time
        self._records_text = record.records_text
        self._ready: SandboxReady | None = None
        self._ended: RunEnded | None = None
        self._turns: list[_GrowingTurn] = []
        self._cell: _GrowingCell | None = None
        self._queries: dict[tuple[QueryId, int], _GrowingQuery] = {}
        self._before: _GrowingSteps = []
        self._after: _GrowingSteps = []

    def adopt(self, child: _GrowingRun) -> bool:
        """Puts a child run under the query that it answers; returns whether there is one."""
        started = child.started
        query = self._queries.get((started.parent_query_id or QueryId(""), child.prompt_index))
        if query is None or query.child_run is not None:
            return False
        query.child_run = child
        return True

    @property
    def prompt_index(self) -> int:
        return self.started.parent_prompt_index

    def take(self, record: RecordedEvent) -> None:
        """Puts one more event where it belongs."""
        self._note_time(record.time)
        self._records_text = self._records_text and record.records_text
        match record.event:
            case SandboxReady() as event:
                self._ready = event
            case RunEnded() as event:
                self._ended = event
            case QueryStarted() | QueryEnded() | QueryRefused() | RequestFailed() as event:
                self._take_step(event, record.time)
            case CellStarted() | CellEnded() as event:
                self._take_cell(event)
            case TurnStarted() | ReplyReceived() | Noticed() | TranscriptCompacted() as event:
                self._take_turn(event, record.time)
            case RunStarted() | ReplyPiece() | CellPrinted():
                pass

    def _note_time(self, time: datetime | None) -> None:
        run: _GrowingRun | None = self
        while run is not None:
            run._last_at = time  # noqa: SLF001 - of its own class
            run = run._parent  # noqa: SLF001 - likewise

    def _take_turn(
        self,
        event: TurnStarted | ReplyReceived | Noticed | TranscriptCompacted,
        time: datetime | None,
    ) -> None:
        turn = self._turn(event.turn, is_beginning=isinstance(event, TurnStarted))
        match event:
            case TurnStarted():
                turn.started, turn.started_at = event, time
            case ReplyReceived():
                turn.reply = event
            case Noticed():
                turn.notices.append(event)
            case TranscriptCompacted():
                turn.compaction = event

    def _take_cell(self, event: CellStarted | CellEnded) -> None:
        if isinstance(event, CellStarted):
            self._cell = _GrowingCell(event)
            self._turn(event.turn).cells.append(self._cell)
            return
        cell, self._cell = self._cell, None
        if cell is None:
            raise InputError(
                f"cell {event.result.cell_id} of run {self.started.run_id!r:.60} ends without a "
                "beginning"
            )
        cell.ended = event

    def _take_step(
        self,
        event: QueryStarted | QueryEnded | QueryRefused | RequestFailed,
        time: datetime | None,
    ) -> None:
        if isinstance(event, QueryEnded):
            query = self._queries.get((event.query_id, event.prompt_index))
            if query is None:
                raise InputError(
                    f"query {event.query_id!r:.60} of run {self.started.run_id!r:.60} ends "
                    "without a beginning"
                )
            query.ended, query.ended_at = event, time
        elif isinstance(event, QueryStarted):
            query = _GrowingQuery(event)
            self._queries[event.query_id, event.prompt_index] = query
            self._steps.append(query)
        elif isinstance(event, RequestFailed) and self._is_root_model_waited_for:
            self._turns[-1].failed_requests.append(event)
        else:
            self._steps.append(event)

    @property
    def _steps(self) -> _GrowingSteps:
        """Where what is asked for now belongs."""
        if self._cell is not None:
            return self._cell.steps
        return self._after if self._turns else self._before

    @property
    def _is_root_model_waited_for(self) -> bool:
        return self._cell is None and bool(self._turns) and self._turns[-1].reply is None

    def _turn(self, number: int, *, is_beginning: bool = False) -> _GrowingTurn:
        """Returns the turn that is meant; the newest one where a number comes twice."""
        last = self._turns[-1] if self._turns else None
        is_new = last is None or last.number != number or (is_beginning and last.started)
        if last is None or is_new:
            last = _GrowingTurn(number)
            self._turns.append(last)
        return last

    def closed(self) -> RecordedRun:
        """Returns the run as it is now."""
        return RecordedRun(
            started=self.started,
            started_at=self._started_at,
            records_text=self._records_text,
            ready=self._ready,
            before_turns=_closed(self._before),
            turns=tuple(turn.closed() for turn in self._turns),
            after_turns=_closed(self._after),
            ended=self._ended,
            last_at=self._last_at,
        )


def _closed(steps: _GrowingSteps) -> tuple[Step, ...]:
    return tuple(step.closed() if isinstance(step, _GrowingQuery) else step for step in steps)
