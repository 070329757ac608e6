"""Turns measured values into the few figures that are shown, and two series into one ratio.

Without it each row would have statistics of its own, and a ratio of two medians that were taken
minutes apart would say more about the machine than about what is compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

#: The values of one contender, turn by turn.
Turns = Sequence[Sequence[float]]


class Statistic(StrEnum):
    """What of a series is compared."""

    MINIMUM = "min"
    MEDIAN = "median"
    P95 = "p95"
    P99 = "p99"
    MAXIMUM = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is shown of one series, in the unit of its row."""

    count: int
    minimum: float
    median: float
    p95: float
    p99: float
    maximum: float

    def of(self, statistic: Statistic) -> float:
        """Returns one of the figures."""
        return {
            Statistic.MINIMUM: self.minimum,
            Statistic.MEDIAN: self.median,
            Statistic.P95: self.p95,
            Statistic.P99: self.p99,
            Statistic.MAXIMUM: self.maximum,
        }[statistic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One series over another.

    Attributes:
        median: Of the ratios of all turns.
        lowest: The smallest of them: how far a turn can be from the median.
        highest: The largest.
        turn_count: How many turns there were.
    """

    median: float
    lowest: float
    highest: float
    turn_count: int


def percentile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which `share` of a sorted series lies, interpolated linearly.

    Args:
        ordered: At least one value, ascending.
        share: From 0 to 1.
    """
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(values: Sequence[float]) -> Figures:
    """Returns the figures of a series.

    Raises:
        ValueError: It is empty.
    """
    if not values:
        raise ValueError("expected at least one measured value, got none")
    ordered = sorted(values)
    return Figures(
        count=len(ordered),
        minimum=ordered[0],
        median=statistics.median(ordered),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        maximum=ordered[-1],
    )


def summarize_turns(turns: Turns) -> Figures:
    """Returns the figures of all turns together."""
    return summarize([value for turn in turns for value in turn])


def compare(ours: Turns, theirs: Turns, statistic: Statistic) -> Ratio:
    """Returns how many times theirs ours is.

    A turn's ratio is of its own two halves, which were measured one after the other: a load that
    comes and goes is in both. Tails are compared over all turns: one turn has too few values for
    its 99th percentile to be more than its largest.

    Args:
        ours: What is measured.
        theirs: What it is measured against, in as many turns.
        statistic: What of each turn is compared.

    Raises:
        ValueError: They have not the same number of turns, or none, or theirs is zero.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"expected as many turns of each, got {len(ours)} and {len(theirs)}")
    if statistic in {Statistic.MINIMUM, Statistic.MEDIAN}:
        pairs = list(zip(ours, theirs, strict=True))
        compared = [(_of(our, statistic), _of(their, statistic)) for our, their in pairs]
    else:
        compared = [(summarize_turns(ours).of(statistic), summarize_turns(theirs).of(statistic))]
    if not all(their for _, their in compared):
        raise ValueError("expected something to compare with, got a figure of zero")
    ratios = [our / their for our, their in compared]
    return Ratio(
        median=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        turn_count=len(ours),
    )


def _of(turn: Sequence[float], statistic: Statistic) -> float:
    return summarize(turn).of(statistic)
