"""How long the command takes to say what it can do.

Without it every user would pay for each import that some command needs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import Ground, in_ms
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind

_FLOOR = "python -c pass"
_HELP = ("-c", "from orchestrator.cli.main import main; main()", "--help")
_STARTS_A_TURN = 3


async def _time_starts(arguments: Sequence[str]) -> Sequence[float]:
    took_s = []
    for _ in range(_STARTS_A_TURN):
        begun_s = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise OSError(f"expected python {' '.join(arguments)} to end with 0")
        took_s.append(time.perf_counter() - begun_s)
    return in_ms(took_s)


@asynccontextmanager
async def _open(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    del ground
    contenders = [
        Contender(
            name="ours",
            kind=Kind.OURS,
            what="`rlm --help`, by this interpreter",
            measure=partial(_time_starts, _HELP),
        ),
        Contender(
            name=_FLOOR,
            kind=Kind.FLOOR,
            what="this interpreter with an empty program",
            measure=partial(_time_starts, ("-c", "pass")),
        ),
    ]
    for contender in contenders:
        await contender.measure()
    yield contenders


COMMAND_START: Final = Benchmark(
    name="command-start",
    title="start of the command",
    measures="`rlm --help`, from its start to its end; after some that do not count",
    unit="ms",
    goals=(Goal(against=_FLOOR, at_most=5.0),),
    open_contenders=_open,
    turn_count=8,
    quick_turn_count=4,
)
