"""How many queries one core of the orchestrator's carries, beside what gRPC alone would.

Without it nobody would know how many busy sandboxes a host can serve before its brokers, and not
their models, are what they wait for.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import Ground, open_provider, open_session, run_cell
from orchestrator.bench.our_processes import broker_cpu_s, own_cpu_s
from orchestrator.bench.raw_grpc import RAW_GRPC, RawGrpc, open_raw_grpc
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import Sandbox

_THREADS = 16
_QUERIES = 400
_PROMPT_CHARS = 100
_US_PER_S = 1e6
_SOURCE = f"""
import time
from concurrent.futures import ThreadPoolExecutor

def ask(number):
    return llm_query("x" * {_PROMPT_CHARS})

with ThreadPoolExecutor({_THREADS}) as threads:
    list(threads.map(ask, range({_THREADS})))
    begun_s = time.perf_counter()
    list(threads.map(ask, range({_QUERIES})))
    print(time.perf_counter() - begun_s)
"""


async def _cpu_of_ours(sandbox: Sandbox, *, read_cpu_s: Callable[[], float]) -> Sequence[float]:
    before_s = read_cpu_s()
    await run_cell(sandbox, _SOURCE)
    return [(read_cpu_s() - before_s) * _US_PER_S / (_QUERIES + _THREADS)]


async def _wall_of_ours(sandbox: Sandbox) -> Sequence[float]:
    return [json.loads(await run_cell(sandbox, _SOURCE)) * _US_PER_S / _QUERIES]


async def _cpu_of_grpc(raw: RawGrpc) -> Sequence[float]:
    asked = await raw.ask(_QUERIES, thread_count=_THREADS, prompt_chars=_PROMPT_CHARS)
    return [asked.server_cpu_s * _US_PER_S / (_QUERIES + _THREADS)]


async def _wall_of_grpc(raw: RawGrpc) -> Sequence[float]:
    asked = await raw.ask(_QUERIES, thread_count=_THREADS, prompt_chars=_PROMPT_CHARS)
    return [asked.wall_s * _US_PER_S / _QUERIES]


def _both_cpu_s() -> float:
    return own_cpu_s() + broker_cpu_s()


@asynccontextmanager
async def _open(ground: Ground, *, by_wall_clock: bool) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        raw = await enter(open_raw_grpc())
        # All threads' queries are to be under way, not to wait for each other at the broker.
        own = await enter(
            open_provider(
                ground, broker=BrokerIsolation.OWN_PROCESS, concurrent_query_count=_THREADS
            )
        )
        ours = await enter(open_session(own))
        within = await enter(
            open_provider(
                ground, broker=BrokerIsolation.IN_PROCESS, concurrent_query_count=_THREADS
            )
        )
        beside = await enter(open_session(within))
        if by_wall_clock:
            measures = (partial(_wall_of_ours, ours), partial(_wall_of_ours, beside))
            floor = partial(_wall_of_grpc, raw)
        else:
            measures = (
                partial(_cpu_of_ours, ours, read_cpu_s=_both_cpu_s),
                partial(_cpu_of_ours, beside, read_cpu_s=own_cpu_s),
            )
            floor = partial(_cpu_of_grpc, raw)
        contenders = [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="the orchestrator's process and the broker's together",
                measure=measures[0],
            ),
            Contender(
                name="in_process",
                kind=Kind.VARIANT,
                what="the orchestrator's process, with the broker in it",
                measure=measures[1],
            ),
            Contender(
                name=RAW_GRPC,
                kind=Kind.FLOOR,
                what="an asyncio server that echoes bytes over a Unix socket, its process alone",
                lacks="no order rules, no gate, no token, no limits, no sandbox at the other end",
                measure=floor,
            ),
        ]
        if not by_wall_clock:
            contenders.append(
                Contender(
                    name="orchestrator alone",
                    kind=Kind.VARIANT,
                    what="of ours what the orchestrator's own process uses",
                    measure=partial(_cpu_of_ours, ours, read_cpu_s=own_cpu_s),
                )
            )
        for contender in contenders:
            await contender.measure()
        yield contenders


_MEASURES = (
    f"{_QUERIES} queries of {_PROMPT_CHARS} characters from {_THREADS} threads of one cell, "
    "answered at once; after one such cell that does not count"
)
QUERY_CPU: Final = Benchmark(
    name="query-cpu",
    title="queries that one core of the orchestrator's carries, as processor time of each",
    measures=f"processor time on the host's side of the wall for each query: {_MEASURES}",
    unit="us",
    # As the goal has it, at least 0.7 times as many queries a second.
    goals=(Goal(against=RAW_GRPC, at_most=1 / 0.7),),
    open_contenders=partial(_open, by_wall_clock=False),
    turn_count=10,
    quick_turn_count=3,
    note="1,000,000 over the figure are the queries that one core carries in a second",
)
QUERY_RATE: Final = Benchmark(
    name="query-rate",
    title="queries from one sandbox, as wall-clock time of each",
    measures=f"wall-clock time over the number of queries: {_MEASURES}",
    unit="us",
    goals=(),
    open_contenders=partial(_open, by_wall_clock=True),
    turn_count=10,
    quick_turn_count=3,
    note="the sandbox has one core (`sandbox.cpu_count`), the raw client as many as there are",
)
