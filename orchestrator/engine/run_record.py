"""What happened in one run so far: its events, its draft, its times.

Without it the end of a run would be put together in as many ways as a run can end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from orchestrator.controls import Controls
from orchestrator.domain import AnswerSource, Efficiency, FinishReason, QueryKind, RunId, Timings
from orchestrator.engine.account import Account
from orchestrator.engine.result import RunResult, total_cost_usd
from orchestrator.events import (
    LIVE_EVENTS,
    Noticed,
    NoticeKind,
    QueryStarted,
    RunEnded,
    RunEvent,
)
from orchestrator.ports import EventSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a run ends, and with what."""

    finish_reason: FinishReason
    answer: str = ""
    answer_source: AnswerSource = AnswerSource.NONE
    failure: str = ""
    limit: str = ""


@dataclass(slots=True)
class Stopwatch:
    """Adds up the seconds of one kind of work, cancelled work included."""

    total_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time spent inside the context."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.total_s += time.monotonic() - started_s


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """Collects one run for its result.

    Attributes:
        run_id: The run.
        sink: Told of each event as it happens.
        account: What the run has spent.
        draft: The last text of `answer["content"]` that was not empty. Kept on the host, so it
            outlives the sandbox.
        start_s: Seconds until the context was bound; 0 until it is.
        controls: Of the run's sandbox; None until it is attached.
        turn_count: Replies of the root model so far.
        efficiency: Figures so far.
        root_model: Time spent waiting for the root model.
        cells: Time spent in cells.
    """

    run_id: RunId
    sink: EventSink
    account: Account
    draft: str = ""
    start_s: float = 0.0
    controls: Controls | None = None
    turn_count: int = 0
    efficiency: Efficiency = field(default_factory=Efficiency)
    root_model: Stopwatch = field(default_factory=Stopwatch)
    cells: Stopwatch = field(default_factory=Stopwatch)
    _started_s: float = field(default_factory=time.monotonic)
    _events: list[RunEvent] = field(default_factory=list)

    def tell(self, event: RunEvent) -> None:
        """Passes an event on and keeps it, unless it is one of a moment."""
        if not isinstance(event, LIVE_EVENTS):
            self._events.append(event)
        if event.run_id == self.run_id:
            self.efficiency = _counted(self.efficiency, event)
        self.sink(event)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started_s

    def ending_with_draft(
        self, finish_reason: FinishReason, *, failure: str = "", limit: str = ""
    ) -> Ending:
        """Returns the ending whose answer is the draft, if there is one."""
        return Ending(
            finish_reason=finish_reason,
            answer=self.draft,
            answer_source=AnswerSource.DRAFT if self.draft else AnswerSource.NONE,
            failure=failure,
            limit=limit,
        )

    def end(self, ending: Ending) -> RunResult:
        """Tells of the end and returns the result. Called once."""
        usage, spent = self.account.usage, self.account.spent
        timings = Timings(
            total_s=self.elapsed_s,
            start_s=self.start_s,
            root_model_s=self.root_model.total_s,
            cells_s=self.cells.total_s,
        )
        self.tell(
            RunEnded(
                run_id=self.run_id,
                finish_reason=ending.finish_reason,
                answer=ending.answer,
                answer_source=ending.answer_source,
                failure=ending.failure,
                limit=ending.limit,
                usage=usage,
                turn_count=self.turn_count,
                query_count=spent.queries,
                child_run_count=spent.child_runs,
                tool_call_count=spent.tool_calls,
                timings=timings,
                efficiency=self.efficiency,
            )
        )
        return RunResult(
            run_id=self.run_id,
            answer=ending.answer,
            finish_reason=ending.finish_reason,
            answer_source=ending.answer_source,
            failure=ending.failure,
            limit=ending.limit,
            usage=usage,
            cost_usd=total_cost_usd(usage),
            timings=timings,
            turn_count=self.turn_count,
            query_count=spent.queries,
            child_run_count=spent.child_runs,
            tool_call_count=spent.tool_calls,
            efficiency=self.efficiency,
            controls=self.controls,
            trajectory=tuple(self._events),
        )


def _counted(efficiency: Efficiency, event: RunEvent) -> Efficiency:
    """Returns the figures with one more event of the run in them."""
    match event:
        case QueryStarted(kind=QueryKind.TOOL):
            return efficiency
        case QueryStarted(is_repeat=True):
            count = efficiency.repeated_query_count + 1
            return replace(efficiency, repeated_query_count=count)
        case QueryStarted():
            sent = efficiency.sent_chars + len(event.prompt) + event.context_chars
            count = efficiency.sent_query_count + 1
            return replace(efficiency, sent_query_count=count, sent_chars=sent)
        case Noticed(kind=kind):
            turns = efficiency.repeated_turn_count + (kind is NoticeKind.REPEATED_CELLS)
            notices = efficiency.notice_count + 1
            return replace(efficiency, repeated_turn_count=turns, notice_count=notices)
        case _:
            return efficiency
