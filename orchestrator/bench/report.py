"""What a run of the benchmarks found, as data.

Without it the table for a reader, the JSON for a program and the page of promises would each be
made from something else. `docs/benchmarks.md` describes each field of the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.bench.figures import Figures, Ratio, Statistic, compare, summarize_turns
from orchestrator.bench.turns import Contender, Kind
from orchestrator.domain import Json

#: Goes up when a reader of the old version could misread a report of the new one.
REPORT_VERSION: Final = 1

_DIGITS = 4  # of each figure; a fourth digit is noise already


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is promised of a row.

    Attributes:
        at_most: The largest ratio that keeps the promise; of a goal without a floor, the largest
            value in the unit of the row.
        against: The name of the contender that ours is compared with; empty for a value.
        statistic: What of the series is compared.
    """

    at_most: float
    against: str = ""
    statistic: Statistic = Statistic.MEDIAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One contender's figures, and how ours compares.

    Attributes:
        name: Names it.
        kind: What it is to the row.
        what: What was measured of it.
        lacks: What it does not do that ours does.
        figures: In the unit of the row.
        ratio: Ours over it; None of ours itself.
        statistic: What of the series was compared.
    """

    name: str
    kind: Kind
    what: str
    lacks: str
    figures: Figures
    ratio: Ratio | None
    statistic: Statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedGoal:
    """A promise and what came of it; `found` is None where its contender was not measured."""

    goal: Goal
    found: float | None

    @property
    def is_reached(self) -> bool | None:
        """Whether it was kept; None where that was not measured."""
        return None if self.found is None else self.found <= self.goal.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One benchmark's outcome.

    Attributes:
        name: As `--only` takes it.
        title: What it is called in tables.
        measures: What is measured, and how it was warmed up.
        unit: Of every figure.
        series: Ours first.
        goals: What is promised, judged.
        note: What a reader has to know beside.
        problem: Why nothing, or not all, was measured; empty where all was.
    """

    name: str
    title: str
    measures: str
    unit: str
    series: tuple[Series, ...] = ()
    goals: tuple[JudgedGoal, ...] = ()
    note: str = ""
    problem: str = ""

    @property
    def ours(self) -> Series | None:
        """The series that is promised; None where nothing was measured."""
        return next((one for one in self.series if one.kind is Kind.OURS), None)

    def named(self, name: str) -> Series | None:
        """Returns the series of that name, if there is one."""
        return next((one for one in self.series if one.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """One run of the benchmarks.

    Attributes:
        machine: What it ran on, and with what versions.
        rows: In the order they were measured.
        is_quick: Whether few turns were taken.
        peers: The peers that were measured, or why not, by name.
        took_s: How long all of it took.
    """

    machine: Mapping[str, Json]
    rows: tuple[Row, ...]
    is_quick: bool
    peers: Mapping[str, str]
    took_s: float

    @property
    def is_complete(self) -> bool:
        """Whether every row that was asked for was measured."""
        return bool(self.rows) and not any(row.problem for row in self.rows)

    def to_json(self) -> dict[str, Json]:
        """Returns the report; docs/benchmarks.md describes each field."""
        return {
            "version": REPORT_VERSION,
            "machine": dict(self.machine),
            "is_quick": self.is_quick,
            "peers": dict(self.peers),
            "rows": [_row_json(row) for row in self.rows],
            "took_s": round(self.took_s, 1),
        }


def judge(
    contenders: Sequence[Contender], goals: Sequence[Goal], *, statistic: Statistic
) -> tuple[tuple[Series, ...], tuple[JudgedGoal, ...]]:
    """Returns the series of measured contenders, and what came of the goals.

    Args:
        contenders: Each with its turns taken; exactly one is ours.
        goals: What is promised.
        statistic: What is compared where no goal says otherwise.
    """
    [ours] = [one for one in contenders if one.kind is Kind.OURS]
    compared = {goal.against: goal.statistic for goal in goals if goal.against}
    series = tuple(
        Series(
            name=one.name,
            kind=one.kind,
            what=one.what,
            lacks=one.lacks,
            figures=summarize_turns(one.turns),
            ratio=None
            if one is ours
            else compare(ours.turns, one.turns, compared.get(one.name, statistic)),
            statistic=compared.get(one.name, statistic),
        )
        for one in sorted(contenders, key=lambda one: list(Kind).index(one.kind))
    )
    return series, tuple(JudgedGoal(goal=goal, found=_found(series, goal)) for goal in goals)


def _found(series: Sequence[Series], goal: Goal) -> float | None:
    if not goal.against:
        [ours] = [one for one in series if one.kind is Kind.OURS]
        return ours.figures.of(goal.statistic)
    ratio = next((one.ratio for one in series if one.name == goal.against), None)
    return None if ratio is None else ratio.median


def _row_json(row: Row) -> Json:
    return {
        "name": row.name,
        "title": row.title,
        "measures": row.measures,
        "unit": row.unit,
        "series": [
            {
                "name": one.name,
                "kind": one.kind.value,
                "what": one.what,
                "lacks": one.lacks,
                "n": one.figures.count,
                **_rounded({each.value: one.figures.of(each) for each in Statistic}),
                "compared_by": one.statistic.value,
                "ours_over_it": None if one.ratio is None else _ratio_json(one.ratio),
            }
            for one in row.series
        ],
        "goals": [
            {
                "against": judged.goal.against or None,
                "statistic": judged.goal.statistic.value,
                "at_most": judged.goal.at_most,
                "found": None if judged.found is None else _significant(judged.found),
                "is_reached": judged.is_reached,
            }
            for judged in row.goals
        ],
        "note": row.note,
        "problem": row.problem,
    }


def _ratio_json(ratio: Ratio) -> Json:
    return {
        **_rounded({"median": ratio.median, "min": ratio.lowest, "max": ratio.highest}),
        "turns": ratio.turn_count,
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, Json]:
    return {name: _significant(value) for name, value in figures.items()}


def _significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
