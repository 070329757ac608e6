"""Every benchmark there is, in the order they are shown.

Without it a row that was left out would not be missed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from orchestrator.bench.acquiring import WARM_ACQUIRE
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.cells import EMPTY_CELL, LARGE_CONTEXT_CELL
from orchestrator.bench.command_start import COMMAND_START
from orchestrator.bench.contexts import HAND_OVER, PEAK
from orchestrator.bench.memory import IDLE_SANDBOX, SESSION
from orchestrator.bench.neighbour import HOSTILE_NEIGHBOUR
from orchestrator.bench.queries import CELL_WITH_QUERY, QUERY
from orchestrator.bench.queries_at_once import ASYNCIO, BATCH, THREADS
from orchestrator.bench.starts import COLD_START
from orchestrator.bench.throughput import QUERY_CPU, QUERY_RATE
from orchestrator.errors import InputError

BENCHMARKS: Final = (
    EMPTY_CELL,
    LARGE_CONTEXT_CELL,
    QUERY,
    CELL_WITH_QUERY,
    THREADS,
    ASYNCIO,
    BATCH,
    QUERY_CPU,
    QUERY_RATE,
    COLD_START,
    WARM_ACQUIRE,
    HAND_OVER,
    PEAK,
    IDLE_SANDBOX,
    SESSION,
    HOSTILE_NEIGHBOUR,
    COMMAND_START,
)


def select(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """Returns the benchmarks of these names, in the catalogue's order; all where none is named.

    Raises:
        InputError: There is none of some name; the message lists those there are.
    """
    known = [benchmark.name for benchmark in BENCHMARKS]
    unknown = [name for name in names if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        raise InputError(
            f"There is no benchmark {unknown[0]!r}.{guess} There are: {', '.join(known)}."
        )
    return tuple(one for one in BENCHMARKS if not names or one.name in names)
