"""Measures several contenders by turns.

Without it one would be measured while the machine was quiet and the other while it was not, and
their ratio would be the machine's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

#: Measures once and returns the values of one turn, in the unit of the row.
Measure: TypeAlias = Callable[[], Awaitable[Sequence[float]]]


class Kind(StrEnum):
    """What stands in a row beside what is promised."""

    OURS = "ours"  # what is promised
    VARIANT = "variant"  # ours, otherwise configured or looked at from elsewhere
    FLOOR = "floor"  # the least that any such thing takes
    PEER = "peer"  # another project's


@dataclass(slots=True, kw_only=True)
class Contender:
    """One of those that are measured by turns.

    Attributes:
        name: Names it in the report.
        kind: What it is to the row.
        measure: Takes one turn.
        what: What is measured of it, in a sentence.
        lacks: What it does not do that ours does; empty where that says nothing.
        turns: What its turns have shown.
    """

    name: str
    kind: Kind
    measure: Measure
    what: str = ""
    lacks: str = ""
    turns: list[Sequence[float]] = field(default_factory=list)


async def take_turns(contenders: Sequence[Contender], *, count: int) -> None:
    """Has each contender take `count` turns, one after the other, each time another one first."""
    for number in range(count):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            contender.turns.append(await contender.measure())
