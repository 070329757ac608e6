"""Whether many queries at a time take as long as one.

Without it a cell that asks sixty-four times might wait sixty-four times, and nobody would have
noticed while models were slow.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import (
    EchoModel,
    Ground,
    in_ms,
    open_peer_session,
    open_provider,
    open_session,
    run_cell,
)
from orchestrator.bench.peers.process import PeerSession
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.ports import Sandbox

_COUNT = 64
_MODEL_S = 0.3
_FLOOR = "one query"
#: Threads of the cell, and what the worker and its checkpoints have beside.
_PROCESS_COUNT = 160


def _timed(body: str, *, before: str = "") -> str:
    """Returns a cell that prints how long its body takes, as a list."""
    return (
        f"import time\n{before}\nbegun_s = time.perf_counter()\n{body}\n"
        "print([time.perf_counter() - begun_s])\n"
    )


_ONE: Final = _timed('llm_query("a question")')
_SOURCES: Final = {
    "threads": _timed(
        f"with ThreadPoolExecutor({_COUNT}) as threads:\n"
        f'    answers = list(threads.map(llm_query, [f"question {{n}}" for n in range({_COUNT})]))',
        before="from concurrent.futures import ThreadPoolExecutor",
    ),
    "asyncio": _timed(
        "answers = await asyncio.gather(\n"
        f'    *(llm_query_async(f"question {{n}}") for n in range({_COUNT}))\n)',
        before="import asyncio",
    ),
    "batch": _timed(f'answers = llm_query_batched([f"question {{n}}" for n in range({_COUNT})])'),
}
#: What each peer has, as its cells see it.
_PEERS_HAVE: Final = {"rlm-harness": ("threads",), "rlms": ("threads", "batch")}


async def _ask_ours(sandbox: Sandbox, source: str) -> Sequence[float]:
    return in_ms(json.loads(await run_cell(sandbox, source)))


async def _ask_peer(session: PeerSession, source: str) -> Sequence[float]:
    _, printed = await session.run(source)
    return in_ms(json.loads(printed))


@asynccontextmanager
async def _open(ground: Ground, *, way: str) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        limits = replace(ground.settings.sandbox, process_count=_PROCESS_COUNT)
        provider = await enter(open_provider(ground, sandbox=limits, concurrent_query_count=_COUNT))
        sandbox = await enter(open_session(provider, queries=EchoModel(delay_s=_MODEL_S)))
        contenders = [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what=f"{_COUNT} queries, by the cell's own clock",
                measure=partial(_ask_ours, sandbox, _SOURCES[way]),
            ),
            Contender(
                name=_FLOOR,
                kind=Kind.FLOOR,
                what="one llm_query in the same sandbox",
                measure=partial(_ask_ours, sandbox, _ONE),
            ),
        ]
        for ready in ground.peers:
            if way not in _PEERS_HAVE.get(ready.peer.name, ()):
                continue
            session = await enter(open_peer_session(ready, ground, delay_s=_MODEL_S))
            contenders.append(
                Contender(
                    name=ready.peer.name,
                    kind=Kind.PEER,
                    what=f"the same cell in {ready.peer.requirement}",
                    lacks=ready.peer.lacks,
                    measure=partial(_ask_peer, session, _SOURCES[way]),
                )
            )
        await contenders[0].measure()
        yield contenders


def _at_once(way: str, *, title: str) -> Benchmark:
    return Benchmark(
        name=f"queries-64-{way}",
        title=title,
        measures=(
            f"{_COUNT} queries to a model that takes {_MODEL_S} s, however many there are at once; "
            "after one such cell that does not count"
        ),
        unit="ms",
        goals=(Goal(against=_FLOOR, at_most=1.15),),
        open_contenders=partial(_open, way=way),
        turn_count=5,
        quick_turn_count=2,
        note=(
            f"with query.concurrent_queries = {_COUNT}, of which the default is 16, and room "
            f"for {_PROCESS_COUNT} processes and threads, of which it is 64"
        ),
    )


THREADS: Final = _at_once("threads", title="64 queries of 0.3 s from threads")
ASYNCIO: Final = _at_once("asyncio", title="64 queries of 0.3 s from asyncio")
BATCH: Final = _at_once("batch", title="64 queries of 0.3 s in a batch")
