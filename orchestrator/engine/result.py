"""What comes out of a run.

Without it a caller would get a text and not know how far to rely on it, nor what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chat import ModelUsage
from orchestrator.controls import Controls
from orchestrator.domain import AnswerSource, Efficiency, FinishReason, RunId, Timings
from orchestrator.events import RunEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. A limit that was reached is a result, not an error.

    Counts, usage and cost have those of its child runs in them.

    Attributes:
        answer: The answer; empty where `answer_source` is NONE.
        finish_reason: Why the run ended.
        answer_source: How far the answer can be relied on.
        failure: For a reader; empty unless `finish_reason` names a failure.
        limit: The limit that ended it, as the settings have its name; empty for none.
        usage: What each model was used for, by its name.
        cost_usd: Money for all of it; None where a model without a known price was used.
        turn_count: Replies of the root model that led to cells or to a remark.
        query_count: Queries that left for a provider.
        child_run_count: Child runs, at every depth.
        tool_call_count: Calls of the caller's functions.
        efficiency: How well it used what it spent.
        controls: Every control that was in force for the run's sandbox; `controls.to_json()` and
            `controls.sha256_hex` are what can be filed. None where no sandbox was attached.
        trajectory: Every event of the run and its child runs, but those of a moment.
        trajectory_path: Where the trajectory was written; None where it was not, or not whole.
    """

    run_id: RunId
    answer: str
    finish_reason: FinishReason
    answer_source: AnswerSource
    failure: str
    limit: str
    usage: dict[str, ModelUsage]
    cost_usd: float | None
    timings: Timings
    turn_count: int
    query_count: int
    child_run_count: int
    tool_call_count: int
    efficiency: Efficiency
    controls: Controls | None
    trajectory: tuple[RunEvent, ...]
    trajectory_path: Path | None = None

    def __str__(self) -> str:
        """Returns the answer."""
        return self.answer


def total_cost_usd(usage: Mapping[str, ModelUsage]) -> float | None:
    """Returns what all models cost together, or None where one has no known price.

    A sum that leaves out a model would be read as the whole.
    """
    total_usd = 0.0
    for model_usage in usage.values():
        if model_usage.cost_usd is None and model_usage.request_count:
            return None
        total_usd += (model_usage.cost_usd or 0.0) + model_usage.unanswered_usd
    return total_usd
