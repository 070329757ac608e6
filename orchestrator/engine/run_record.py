"""What happened in one run so far: its events, its draft, its times.

Without it the end of a run would be put together in as many ways as a run can end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.controls import Controls
from orchestrator.domain import AnswerSource, FinishReason, RunId, Timings
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.result import RunResult, total_cost_usd
from orchestrator.events import CellPrinted, RunEnded, RunEvent
from orchestrator.ports import EventSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a run ends, and with what."""

    finish_reason: FinishReason
    answer: str = ""
    answer_source: AnswerSource = AnswerSource.NONE
    failure: str = ""


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
        ledger: The run's account.
        draft: The last text of `answer["content"]` that was not empty. Kept on the host, so it
            outlives the sandbox.
        start_s: Seconds until the context was bound; 0 until it is.
        controls: Of the run's sandbox; None until it is attached.
        turn_count: Replies of the root model so far.
        root_model: Time spent waiting for the root model.
        cells: Time spent in cells.
    """

    run_id: RunId
    sink: EventSink
    ledger: Ledger
    draft: str = ""
    start_s: float = 0.0
    controls: Controls | None = None
    turn_count: int = 0
    root_model: Stopwatch = field(default_factory=Stopwatch)
    cells: Stopwatch = field(default_factory=Stopwatch)
    _events: list[RunEvent] = field(default_factory=list)

    def tell(self, event: RunEvent) -> None:
        """Passes an event on and keeps it, unless it is a piece of output."""
        if not isinstance(event, CellPrinted):
            self._events.append(event)
        self.sink(event)

    def ending_with_draft(self, finish_reason: FinishReason, *, failure: str = "") -> Ending:
        """Returns the ending whose answer is the draft, if there is one."""
        return Ending(
            finish_reason=finish_reason,
            answer=self.draft,
            answer_source=AnswerSource.DRAFT if self.draft else AnswerSource.NONE,
            failure=failure,
        )

    def end(self, ending: Ending) -> RunResult:
        """Tells of the end and returns the result. Called once."""
        usage = self.ledger.usage
        timings = Timings(
            total_s=self.ledger.elapsed_s,
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
                usage=usage,
                turn_count=self.turn_count,
                query_count=self.ledger.spent_query_count,
                timings=timings,
            )
        )
        return RunResult(
            run_id=self.run_id,
            answer=ending.answer,
            finish_reason=ending.finish_reason,
            answer_source=ending.answer_source,
            failure=ending.failure,
            usage=usage,
            cost_usd=total_cost_usd(usage),
            timings=timings,
            turn_count=self.turn_count,
            query_count=self.ledger.spent_query_count,
            controls=self.controls,
            trajectory=tuple(self._events),
        )
