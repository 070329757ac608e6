"""What a query takes beyond the model's own time: measured with one that answers at once.

Without it nobody would know what a cell pays that asks a thousand times.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.app import Orchestrator
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import (
    Ground,
    in_ms,
    open_peer_session,
    open_provider,
    open_session,
    read_times,
    time_cells,
)
from orchestrator.bench.peers.process import PeerSession
from orchestrator.bench.raw_grpc import RAW_GRPC, echo_times, open_raw_grpc
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind, Measure
from orchestrator.bench.whole_runs import open_instant_orchestrator
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import Sandbox

_QUERIES_A_TURN = 50
_CELLS_A_TURN = 20
_ONE_QUERY = 'answer_text = llm_query("x" * 100)'


def query_loop(count: int) -> str:
    """Returns a cell that asks `count` times, one after the other, and prints what each took."""
    return f"""
import time
took_s = []
for number in range({count}):
    prompt = f"{{number:0100}}"
    begun_s = time.perf_counter()
    llm_query(prompt)
    took_s.append(time.perf_counter() - begun_s)
print(took_s)
"""


async def _peer_loop(session: PeerSession, *, count: int) -> Sequence[float]:
    _, printed = await session.run(query_loop(count))
    return in_ms(json.loads(printed))


async def _peer_cells(session: PeerSession, *, count: int) -> Sequence[float]:
    took_s, _ = await session.run(_ONE_QUERY, count=count)
    return in_ms(took_s)


async def _loop_in_engine(orchestrator: Orchestrator) -> Sequence[float]:
    """Returns the times of a second cell in a fresh sandbox: the first one warms it up."""
    printed: list[str] = []
    await orchestrator.run_cells(
        [query_loop(_QUERIES_A_TURN), query_loop(2 * _QUERIES_A_TURN)],
        context=None,
        on_ended=lambda ended: printed.append(str(ended.result.stdout)),
    )
    # What the first cell asked is answered from memory; the second half of the second is not.
    return in_ms(json.loads(printed[1])[_QUERIES_A_TURN:])


def _loop_in(sandbox: Sandbox) -> Measure:
    return partial(read_times, sandbox, query_loop(_QUERIES_A_TURN))


def _cells_in(sandbox: Sandbox) -> Measure:
    return partial(time_cells, sandbox, _ONE_QUERY, count=_CELLS_A_TURN)


@asynccontextmanager
async def _open_queries(ground: Ground, *, in_one_cell: bool) -> AsyncIterator[Sequence[Contender]]:
    measure_in = _loop_in if in_one_cell else _cells_in
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        contenders = []
        for kind, broker, what in (
            (Kind.OURS, BrokerIsolation.OWN_PROCESS, "the broker in a process of its own"),
            (Kind.VARIANT, BrokerIsolation.IN_PROCESS, "the broker in the orchestrator's process"),
        ):
            provider = await enter(open_provider(ground, broker=broker))
            measure = measure_in(await enter(open_session(provider)))
            await measure()
            name = "ours" if kind is Kind.OURS else broker.value
            contenders.append(Contender(name=name, kind=kind, what=what, measure=measure))
        raw = await enter(open_raw_grpc())
        contenders.append(
            Contender(
                name=RAW_GRPC,
                kind=Kind.FLOOR,
                what="one echo of 100 bytes between two processes over a Unix socket",
                lacks="no sandbox, no cell: the wire alone",
                measure=partial(echo_times, raw, count=_QUERIES_A_TURN),
            )
        )
        if in_one_cell:
            orchestrator = await enter(
                open_instant_orchestrator(
                    ground.settings, ground.open_sandboxes, broker=BrokerIsolation.OWN_PROCESS
                )
            )
            contenders.append(
                Contender(
                    name="whole engine",
                    kind=Kind.VARIANT,
                    what="ours, answered through the engine's desk by a model that answers at "
                    "once: budget, ledger, estimates, repeats",
                    measure=partial(_loop_in_engine, orchestrator),
                )
            )
        for ready in ground.peers:
            session = await enter(open_peer_session(ready, ground))
            peer = ready.peer
            measure = (
                partial(_peer_loop, session, count=peer.queries_a_turn)
                if in_one_cell
                else partial(_peer_cells, session, count=min(_CELLS_A_TURN, peer.cells_a_turn))
            )
            await measure()
            contenders.append(
                Contender(
                    name=peer.name,
                    kind=Kind.PEER,
                    what=f"the same cell in {peer.requirement}",
                    lacks=peer.lacks,
                    measure=measure,
                )
            )
        yield contenders


_GOALS: Final = (Goal(against="rlm-harness", at_most=0.7),)
QUERY: Final = Benchmark(
    name="query",
    title="llm_query with an instant model, in a loop",
    measures=(
        "each of 50 calls of llm_query in one cell, by the cell's own clock, prompts of 100 "
        "characters, answered at once by the host; after one such cell that does not count"
    ),
    unit="ms",
    goals=_GOALS,
    open_contenders=partial(_open_queries, in_one_cell=True),
    turn_count=20,
    quick_turn_count=5,
    note=(
        "answered where the engine's desk would be, as peers answer where theirs would be; what "
        "the desk adds is a line of its own"
    ),
)
CELL_WITH_QUERY: Final = Benchmark(
    name="cell-with-query",
    title="cell with one llm_query, instant model",
    measures=("a cell that asks once, from the call of run_cell to its result; as query otherwise"),
    unit="ms",
    goals=_GOALS,
    open_contenders=partial(_open_queries, in_one_cell=False),
    turn_count=15,
    quick_turn_count=4,
)
