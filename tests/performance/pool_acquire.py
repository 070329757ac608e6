"""Measures how long a session waits for a sandbox: from a pool that refills, and without one.

Not a test: figures depend on the machine and on what else it does. In each round a sandbox is had
from the pool and one without, by turns. The pool is refilling whenever it is asked: a session ends
and the next one begins `--pause` later. Each session runs one cell, because a sandbox that nobody
can use is had soon.

`in the loop` is what a caller in the event loop waits; `from a thread` what one in another thread
does, who also waits for the loop to have time (`with RLM()` is used so). `late wake-ups` are how
late the event loop comes to what is due, while a pool refills and while nothing happens.

    python tests/performance/pool_acquire.py [--runtime runc|gvisor] [--rounds 40] [--pause 0.1]
        [--concurrent-starts N] > figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.broker_host import EchoQueries, until
from support.docker_sandboxes import open_provider
from support.runtimes import GVISOR, RUNC, tested_under

from orchestrator.domain import Outcome
from orchestrator.limits import PoolLimits, SandboxLimits
from orchestrator.ports import SandboxProvider
from orchestrator.sandbox.pool import SandboxPool

SIZE = 4
_TICK_S = 0.001


def summary(times_s: Sequence[float]) -> dict[str, float]:
    """Returns what matters of many times, in milliseconds."""
    ordered = sorted(times_s)
    return {
        "count": len(ordered),
        "p50 ms": round(1e3 * statistics.median(ordered), 3),
        "p99 ms": round(1e3 * ordered[min(round(0.99 * len(ordered)), len(ordered) - 1)], 3),
        "max ms": round(1e3 * ordered[-1], 3),
    }


async def acquire_s(provider: SandboxProvider, *, begun_s: float | None = None) -> float:
    """Has a sandbox, uses it for a cell, and returns how long the having took."""
    begun_s = time.perf_counter() if begun_s is None else begun_s
    async with provider.open(EchoQueries()) as sandbox:
        took_s = time.perf_counter() - begun_s
        result = await sandbox.run_cell("pass", timeout_s=60)
        assert result.outcome is Outcome.SUCCEEDED, result
    return took_s


async def acquire_from_thread_s(provider: SandboxProvider) -> float:
    """Likewise, asked for by another thread."""
    loop = asyncio.get_running_loop()

    def ask() -> float:
        work = acquire_s(provider, begun_s=time.perf_counter())
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    return await asyncio.to_thread(ask)


async def note_lateness(late_s: list[float]) -> None:
    """Notes how late each short sleep ends, until cancelled."""
    while True:
        begun_s = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        late_s.append(time.perf_counter() - begun_s - _TICK_S)


async def lateness_of(work_s: float) -> list[float]:
    """Returns how late wake-ups are for a while."""
    late_s: list[float] = []
    noting = asyncio.create_task(note_lateness(late_s))
    await asyncio.sleep(work_s)
    noting.cancel()
    return late_s


async def measure(rounds: int, pause_s: float, concurrent_starts: int | None) -> dict[str, object]:
    """Returns the figures of one runtime."""
    limits = PoolLimits(size=SIZE, concurrent_starts=concurrent_starts)
    times: dict[str, list[float]] = {"in the loop": [], "from a thread": [], "without a pool": []}
    late_s: list[float] = []
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(open_provider(sandbox=SandboxLimits()))
        pool = await stack.enter_async_context(open_provider(sandbox=SandboxLimits(), pool=limits))
        assert isinstance(pool, SandboxPool)
        await until(lambda: pool.figures.ready_count == SIZE)
        idle_s = await lateness_of(3)
        for number in range(rounds):
            noting = asyncio.create_task(note_lateness(late_s))
            for name, acquire in (
                ("in the loop", acquire_s),
                ("from a thread", acquire_from_thread_s),
            ):
                times[name].append(await acquire(pool))
                await asyncio.sleep(pause_s)
            noting.cancel()
            if number % 4 == 0:
                times["without a pool"].append(await acquire_s(bare))
            await until(lambda: pool.figures.ready_count >= 2)
        burst_s = await burst(pool)
        figures = repr(pool)
    return {
        **{name: summary(found) for name, found in times.items()},
        "late wake-ups, idle": summary(idle_s),
        "late wake-ups, refilling": summary(late_s),
        "a burst of 12, each": burst_s,
        "pool": figures,
    }


async def burst(pool: SandboxPool) -> dict[str, float]:
    """Has twelve at a time want one, and returns what they waited."""
    await until(lambda: pool.figures.ready_count == SIZE)
    return summary(await asyncio.gather(*(acquire_s(pool) for _ in range(12))))


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=[RUNC.setting, GVISOR.setting], default=RUNC.setting)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.1, help="Seconds between two sessions.")
    parser.add_argument("--concurrent-starts", type=int, help="As many as cores if left out.")
    arguments = parser.parse_args()
    with tested_under(GVISOR if arguments.runtime == GVISOR.setting else RUNC):
        work = measure(arguments.rounds, arguments.pause, arguments.concurrent_starts)
        figures = asyncio.run(work)
    json.dump(figures, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
