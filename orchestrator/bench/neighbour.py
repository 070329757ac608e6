"""What a sandbox that floods everything it can costs the sandbox beside it.

Without it "each sandbox is apart" would be said of walls alone, and not of time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final

from orchestrator.attacks.floods import FLOOD_ATTACKS
from orchestrator.attacks.prelude import probing_cell
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.figures import Statistic
from orchestrator.bench.ground import (
    MS_PER_S,
    EchoModel,
    Ground,
    open_provider,
    open_session,
    run_cell,
)
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.domain import LanguagePolicy
from orchestrator.errors import SandboxError
from orchestrator.ports import Sandbox, SandboxProvider

_FLOOR = "idle neighbour"
_WINDOW_S = 2.0
_SOURCE = 'answer_text = llm_query("x" * 100)'
#: Everything at once that needs no crash: queries from many threads, output, memory, computing.
_FLOOD_OF_QUERIES = """
import os, threading

def ask():
    while True:
        try:
            llm_query("x" * 100_000)
        except Exception:
            pass

def shout():
    block = b"a" * 65536
    while True:
        os.write(1, block)

for _ in range(12):
    threading.Thread(target=ask, daemon=True).start()
threading.Thread(target=shout, daemon=True).start()
while True:
    pass
"""
_BUSY = "while True:\n    pass"


def _floods(memory_bytes: int) -> Iterator[str]:
    """Yields the cells of an attacker, one for each turn, over and over."""
    scene = {"memory_bytes": memory_bytes}
    floods = [
        probing_cell(attack.source, scene, is_apart=False)
        for attack in FLOOD_ATTACKS
        if attack.attack_id != "crash"  # is over at once, and no flood
    ]
    return itertools.cycle([_FLOOD_OF_QUERIES, *floods])


async def _beside(
    victim: Sandbox, provider: SandboxProvider, sources: Iterator[str] | None
) -> Sequence[float]:
    """Returns how long the victim's cells take while the next source runs in a fresh sandbox."""
    async with provider.open(EchoModel()) as neighbour:
        running: asyncio.Task[object] | None = None
        if sources is not None:
            running = asyncio.create_task(
                neighbour.run_cell(next(sources), timeout_s=2 * _WINDOW_S)
            )
        try:
            return await _for_a_while(victim)
        finally:
            if running is not None:
                running.cancel()
                with suppress(asyncio.CancelledError, SandboxError):
                    await running


async def _for_a_while(victim: Sandbox) -> Sequence[float]:
    took_ms = []
    end_s = time.perf_counter() + _WINDOW_S
    while (begun_s := time.perf_counter()) < end_s:
        await run_cell(victim, _SOURCE)
        took_ms.append((time.perf_counter() - begun_s) * MS_PER_S)
    return took_ms


@asynccontextmanager
async def _open(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        # A guard rail of the language is not what is to keep an attacker from flooding.
        provider = await stack.enter_async_context(
            open_provider(ground, policy=LanguagePolicy.OPEN)
        )
        victim = await stack.enter_async_context(open_session(provider))
        await _for_a_while(victim)
        beside = partial(_beside, victim, provider)
        floods = _floods(ground.settings.sandbox.memory_bytes)
        yield [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="beside a sandbox that floods, another way each turn",
                measure=partial(beside, floods),
            ),
            Contender(
                name="busy neighbour",
                kind=Kind.VARIANT,
                what="beside a sandbox that only computes",
                measure=partial(beside, itertools.repeat(_BUSY)),
            ),
            Contender(
                name=_FLOOR,
                kind=Kind.FLOOR,
                what="beside a sandbox that does nothing",
                measure=partial(beside, None),
            ),
        ]


HOSTILE_NEIGHBOUR: Final = Benchmark(
    name="hostile-neighbour",
    title="a cell with a query, beside a hostile sandbox",
    measures=(
        f"a cell that asks once, over and over for {_WINDOW_S:g} s, while another sandbox floods: "
        "queries of 100 KB from 12 threads with output and computing, then one after the other "
        "the floods of the attack battery (processes, threads, memory, files, output, descriptors)"
    ),
    unit="ms",
    goals=(Goal(against=_FLOOR, at_most=2.0, statistic=Statistic.P99),),
    open_contenders=_open,
    turn_count=9,
    quick_turn_count=2,
    statistic=Statistic.P99,
    note=(
        "a sandbox has one core of its own (`sandbox.cpu_count`): on a host of two the victim, "
        "the orchestrator and the engine share the other one, and a neighbour that only computes "
        "shows how much of it that is; floods of the socket itself, below the worker, are "
        "measured by tests/performance"
    ),
)
