"""How long a cell takes that does nothing: what the platform adds to each turn of a root model.

Without it the cost of walls, checkpoints and the broker would be felt and not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import (
    MS_PER_S,
    Ground,
    in_ms,
    open_peer_session,
    open_provider,
    open_session,
    time_cells,
)
from orchestrator.bench.peers.process import PeerSession
from orchestrator.bench.raw_grpc import RAW_GRPC, echo_times, open_raw_grpc
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import Sandbox

_SOURCE = "pass"
_CELLS_A_TURN = 40
_RESTED_CELLS_A_TURN = 10
_REST_S = 0.02  # a root model takes seconds between two cells
_WARM_UP_CELLS = 20
LARGE_CONTEXT_CHARS: Final = 10_000_000


async def _peer_cells(session: PeerSession, *, count: int) -> Sequence[float]:
    took_s, _ = await session.run(_SOURCE, count=count)
    return in_ms(took_s)


async def _rested_cells(sandbox: Sandbox) -> Sequence[float]:
    took_ms: list[float] = []
    for _ in range(_RESTED_CELLS_A_TURN):
        await asyncio.sleep(_REST_S)
        took_ms += await time_cells(sandbox, _SOURCE, count=1)
    return took_ms


async def _warmed_up(sandbox: Sandbox) -> Sandbox:
    await time_cells(sandbox, _SOURCE, count=_WARM_UP_CELLS)
    return sandbox


@asynccontextmanager
async def _open_cells(
    ground: Ground, *, context_chars: int, beside_none: bool
) -> AsyncIterator[Sequence[Contender]]:
    """Opens sandboxes with a context, one for each way, and each peer.

    Args:
        ground: Where.
        context_chars: Of the context.
        beside_none: Whether a sandbox without a context is measured beside them.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        provider = await enter(open_provider(ground, broker=BrokerIsolation.OWN_PROCESS))
        ours = await _warmed_up(await enter(open_session(provider, context_chars=context_chars)))
        contenders = [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="the broker in a process of its own, as by default",
                measure=partial(time_cells, ours, _SOURCE, count=_CELLS_A_TURN),
            )
        ]
        if beside_none:
            bare = await _warmed_up(await enter(open_session(provider)))
            contenders.append(
                Contender(
                    name="no context",
                    kind=Kind.FLOOR,
                    what="the same with an empty context",
                    measure=partial(time_cells, bare, _SOURCE, count=_CELLS_A_TURN),
                )
            )
        else:
            within = await enter(open_provider(ground, broker=BrokerIsolation.IN_PROCESS))
            beside = await _warmed_up(await enter(open_session(within)))
            contenders.append(
                Contender(
                    name="in_process",
                    kind=Kind.VARIANT,
                    what="ours with the broker in the orchestrator's process",
                    measure=partial(time_cells, beside, _SOURCE, count=_CELLS_A_TURN),
                )
            )
            raw = await enter(open_raw_grpc())
            contenders.append(
                Contender(
                    name=RAW_GRPC,
                    kind=Kind.FLOOR,
                    what="one echo of 100 bytes between two processes over a Unix socket",
                    lacks="no sandbox, no cell: the wire alone",
                    measure=partial(echo_times, raw, count=_CELLS_A_TURN),
                )
            )
            contenders.append(
                Contender(
                    name="rested",
                    kind=Kind.VARIANT,
                    what=f"ours, {_REST_S * MS_PER_S:g} ms after the cell before, whose checkpoint "
                    "is then made",
                    measure=partial(_rested_cells, ours),
                )
            )
        for ready in ground.peers:
            session = await enter(open_peer_session(ready, ground, context_chars=context_chars))
            await _peer_cells(session, count=min(_WARM_UP_CELLS, ready.peer.cells_a_turn))
            contenders.append(
                Contender(
                    name=ready.peer.name,
                    kind=Kind.PEER,
                    what=f"`pass` in {ready.peer.requirement}",
                    lacks=ready.peer.lacks,
                    measure=partial(_peer_cells, session, count=ready.peer.cells_a_turn),
                )
            )
        yield contenders


EMPTY_CELL: Final = Benchmark(
    name="empty-cell",
    title="empty cell, round trip",
    measures=(
        "`pass`, from the call of run_cell to its result, back to back; "
        f"after {_WARM_UP_CELLS} cells that do not count"
    ),
    unit="ms",
    goals=(Goal(against="rlm-harness", at_most=0.8), Goal(against="rlms", at_most=1 / 300)),
    open_contenders=partial(_open_cells, context_chars=0, beside_none=False),
    turn_count=25,
    quick_turn_count=5,
)
LARGE_CONTEXT_CELL: Final = Benchmark(
    name="empty-cell-10mb",
    title="empty cell with a context of 10 MB",
    measures=(
        "as empty-cell, with a text of 10,000,000 characters bound to `context`; peers are given "
        "it once, too, although some send it again with every cell"
    ),
    unit="ms",
    goals=(Goal(against="no context", at_most=1.1),),
    open_contenders=partial(_open_cells, context_chars=LARGE_CONTEXT_CHARS, beside_none=True),
    turn_count=15,
    quick_turn_count=4,
)
