"""One row of what is promised: what is measured, how often, against what.

Without it the command, the report and the page of promises would each have a list of rows of their
own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

from orchestrator.bench.figures import Statistic
from orchestrator.bench.ground import Ground
from orchestrator.bench.peers.process import PeerFailedError
from orchestrator.bench.report import Goal, Row, judge
from orchestrator.bench.turns import Contender, take_turns
from orchestrator.errors import RlmSandboxError

#: Yields the contenders of one row, warmed up.
OpenContenders: TypeAlias = Callable[[Ground], AbstractAsyncContextManager[Sequence[Contender]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One row.

    Attributes:
        name: As `--only` takes it.
        title: What it is called in tables.
        measures: What is measured and how it was warmed up, in sentences.
        unit: Of every figure.
        goals: What is promised.
        open_contenders: Opens what is measured.
        turn_count: Turns of each contender.
        quick_turn_count: Turns where the user is in a hurry.
        statistic: What is compared where no goal says otherwise.
        note: What a reader has to know beside.
    """

    name: str
    title: str
    measures: str
    unit: str
    goals: tuple[Goal, ...]
    open_contenders: OpenContenders
    turn_count: int
    quick_turn_count: int
    statistic: Statistic = Statistic.MEDIAN
    note: str = ""


async def run_benchmark(benchmark: Benchmark, ground: Ground) -> Row:
    """Measures a row. One that cannot be measured is a row that says why."""
    empty = Row(
        name=benchmark.name,
        title=benchmark.title,
        measures=benchmark.measures,
        unit=benchmark.unit,
        note=benchmark.note,
    )
    turn_count = benchmark.quick_turn_count if ground.is_quick else benchmark.turn_count
    try:
        async with benchmark.open_contenders(ground) as contenders:
            await take_turns(contenders, count=turn_count)
            series, goals = judge(contenders, benchmark.goals, statistic=benchmark.statistic)
    except (RlmSandboxError, PeerFailedError, OSError, ValueError) as error:
        return replace(empty, problem=str(error) or type(error).__name__)
    return replace(empty, series=series, goals=goals)
