"""What many sessions at a time were found to get, as data, and what gave way first.

Without it "scales" would be a word. Pure: `scale` measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.bench.figures import Figures
from orchestrator.domain import Json

#: Goes up when a reader of the old version could misread a report of the new one.
SCALE_VERSION: Final = 1

_CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_FULL = 0.95  # of all cores: what else there was to do waited
_UNFAIR = 2.0
_BUSY_BEFORE = 0.25
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What so many sessions got, a part of them busy.

    Attributes:
        session_count: Sessions that were open.
        busy_count: Of these those that ran cells, each one after the other without a pause.
        window_s: For how long.
        cells: Cells that each busy session ended within the window.
        queries_per_cell: Queries that each cell asked.
        cell_ms: How long cells took; None where none was busy.
        cpu_share: Of all cores, what everything on the machine used.
        own_cpu_share: Of one core, what the orchestrator's process used.
        own_bytes: The orchestrator's unique memory.
        broker_bytes: That of the brokers' processes together.
        host_bytes: By how much the memory that the host has left was less than before the first.
    """

    session_count: int
    busy_count: int
    window_s: float
    cells: tuple[int, ...]
    queries_per_cell: int
    cell_ms: Figures | None
    cpu_share: float
    own_cpu_share: float
    own_bytes: int
    broker_bytes: int
    host_bytes: int

    @property
    def cells_per_s(self) -> float:
        """Cells of all sessions in a second."""
        return sum(self.cells) / self.window_s

    @property
    def queries_per_s(self) -> float:
        """Queries of all sessions in a second."""
        return self.cells_per_s * self.queries_per_cell

    @property
    def fairness(self) -> float | None:
        """What the session with the most cells had over the one with the fewest; 1 is even.

        None where fewer than two were busy, or one had none at all.
        """
        if len(self.cells) < 2 or not min(self.cells):  # noqa: PLR2004 - a share needs two
            return None
        return max(self.cells) / min(self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleReport:
    """One run of the curve.

    Attributes:
        machine: What it ran on.
        others_cpu_share: Of all cores, what was in use before the first session: by others.
        steps: In the order they were measured.
        open_s: How long all sessions took to open together.
        problem: Why the curve ended early; empty where it did not.
        took_s: How long all of it took.
    """

    machine: Mapping[str, Json]
    others_cpu_share: float
    steps: tuple[Step, ...]
    open_s: float
    problem: str
    took_s: float

    @property
    def is_complete(self) -> bool:
        """Whether every step was measured."""
        return bool(self.steps) and not self.problem

    @property
    def gave_way(self) -> tuple[str, ...]:
        """What was used up, in sentences, the first first."""
        return describe_what_gave_way(
            self.steps, others_cpu_share=self.others_cpu_share, problem=self.problem
        )

    def to_json(self) -> dict[str, Json]:
        """Returns the report; docs/benchmarks.md describes each field."""
        return {
            "version": SCALE_VERSION,
            "machine": dict(self.machine),
            "others_cpu_share": _significant(self.others_cpu_share),
            "steps": [_step_json(step) for step in self.steps],
            "open_s": _significant(self.open_s),
            "gave_way": list[Json](self.gave_way),
            "problem": self.problem,
            "took_s": round(self.took_s, 1),
        }


def plan_counts(session_count: int) -> tuple[int, ...]:
    """Returns at how many sessions the curve is measured: a fixed series, and the last one."""
    below = [count for count in _CURVE if count < session_count]
    return (*below, session_count)


def describe_what_gave_way(
    steps: Sequence[Step], *, others_cpu_share: float, problem: str
) -> tuple[str, ...]:
    """Returns in sentences what was used up, the first first.

    Args:
        steps: In order.
        others_cpu_share: Of all cores, what others used before the first session.
        problem: Why the curve ended early, if it did.
    """
    found: list[str] = []
    if others_cpu_share > _BUSY_BEFORE:
        found.append(
            f"Others used {others_cpu_share:.0%} of this machine's cores before the first session: "
            "what follows is about what was left."
        )
    full = next((step for step in steps if step.cpu_share >= _FULL), None)
    if full is not None:
        found.append(
            f"The machine's cores: {full.cpu_share:.0%} in use with {full.busy_count} busy "
            f"sessions of {full.session_count} open; more of them share about "
            f"{full.cells_per_s:,.0f} cells a second."
        )
    uneven = next((step for step in steps if (step.fairness or 1.0) > _UNFAIR), None)
    if uneven is not None:
        found.append(
            f"Even shares: with {uneven.busy_count} busy sessions one had {uneven.fairness:.1f} "
            "times the cells of another."
        )
    if problem:
        found.append(f"The curve ended early: {problem}")
    return tuple(found) or ("Nothing: every step had cores, memory and even shares to spare.",)


def _step_json(step: Step) -> Json:
    figures = step.cell_ms
    return {
        "sessions": step.session_count,
        "busy": step.busy_count,
        "window_s": _significant(step.window_s),
        "cells_per_s": _significant(step.cells_per_s),
        "queries_per_s": _significant(step.queries_per_s),
        "cell_ms": None
        if figures is None
        else {
            "n": figures.count,
            "median": _significant(figures.median),
            "p95": _significant(figures.p95),
            "p99": _significant(figures.p99),
            "max": _significant(figures.maximum),
        },
        "most_over_fewest_cells": None if step.fairness is None else _significant(step.fairness),
        "cpu_share": _significant(step.cpu_share),
        "own_cpu_share": _significant(step.own_cpu_share),
        "own_bytes": step.own_bytes,
        "broker_bytes": step.broker_bytes,
        "host_bytes": step.host_bytes,
    }


def _significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
