"""How long a session waits for a sandbox of the warm pool, while the pool fills up again.

Without it a pool that is fast only as long as it has nothing else to do would be promised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.figures import Statistic
from orchestrator.bench.ground import EchoModel, Ground, in_ms
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.limits import PoolLimits
from orchestrator.ports import SandboxProvider

_SIZE = 4
#: From one session to the next: as long as a start takes, so that the pool is never idle or empty.
_PAUSE_S = 1.0
_COLD = "a start"


async def _acquire(provider: SandboxProvider, *, pause_s: float) -> Sequence[float]:
    await asyncio.sleep(pause_s)
    begun_s = time.perf_counter()
    async with provider.open(EchoModel()):
        return in_ms([time.perf_counter() - begun_s])


@asynccontextmanager
async def _open_acquiring(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    warm = ground.settings.model_copy(update={"pool": PoolLimits(size=_SIZE)})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pool = await enter(ground.open_sandboxes(warm, report=ground.say))
        bare = await enter(ground.open_sandboxes(ground.settings, report=ground.say))
        # Waits until there is one, which is then not measured.
        await _acquire(pool, pause_s=0.0)
        yield [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what=f"provider.open with a pool of {_SIZE}, which starts others meanwhile",
                measure=partial(_acquire, pool, pause_s=_PAUSE_S),
            ),
            Contender(
                name=_COLD,
                kind=Kind.VARIANT,
                what="provider.open without a pool",
                measure=partial(_acquire, bare, pause_s=0.0),
            ),
        ]


WARM_ACQUIRE: Final = Benchmark(
    name="warm-acquire",
    title="a sandbox of the warm pool",
    measures=(
        "from asking for a sandbox to having it, attached and its walls checked, one session a "
        "second while the pool fills up again; after the first"
    ),
    unit="ms",
    goals=(
        Goal(at_most=2.0),
        Goal(at_most=10.0, statistic=Statistic.P99),
    ),
    open_contenders=_open_acquiring,
    turn_count=40,
    quick_turn_count=4,
)
