"""How long a sandbox takes from nothing to the first result, beside the engine's own time for that.

Without it nobody would know how much of a start is ours and how much is the engine's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.bare_container import BareContainers, open_bare_containers
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.ground import EchoModel, Ground, in_ms, open_provider, run_cell
from orchestrator.bench.peers.process import PeerSession, ReadyPeer, open_peer
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.domain import RunOffer
from orchestrator.ports import SandboxProvider

_FLOOR = "docker run"


async def _start_ours(provider: SandboxProvider) -> Sequence[float]:
    begun_s = time.perf_counter()
    async with provider.open(EchoModel()) as sandbox:
        await sandbox.begin_run(RunOffer())
        await run_cell(sandbox, "pass")
        return in_ms([time.perf_counter() - begun_s])


async def _run_bare(containers: BareContainers) -> Sequence[float]:
    return in_ms([await asyncio.to_thread(containers.time_run, "pass")])


async def _start_peer(session: PeerSession, ready: ReadyPeer, ground: Ground) -> Sequence[float]:
    opened_s = await session.open(
        image=ready.image, memory_bytes=ground.settings.sandbox.memory_bytes
    )
    [cell_s], _ = await session.run("pass")
    await session.close()
    return in_ms([opened_s + cell_s])


@asynccontextmanager
async def _open_starts(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        provider = await enter(open_provider(ground))
        containers = await enter(open_bare_containers(ground))
        contenders = [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="provider.open, begin_run, and the result of `pass`",
                measure=partial(_start_ours, provider),
            ),
            Contender(
                name=_FLOOR,
                kind=Kind.FLOOR,
                what="a container of the same image and runtime that runs `python -c pass`, "
                "created, started, waited for; with the engine's defaults but for the network, "
                "which it has none of, either",
                lacks="no walls beyond the engine's defaults, no worker, no session",
                measure=partial(_run_bare, containers),
            ),
        ]
        for ready in ground.peers:
            session = await enter(open_peer(ready))
            contenders.append(
                Contender(
                    name=ready.peer.name,
                    kind=Kind.PEER,
                    what=f"a session of {ready.peer.requirement} opened, and the result of `pass`",
                    lacks=ready.peer.lacks,
                    measure=partial(_start_peer, session, ready, ground),
                )
            )
        for contender in contenders:
            await contender.measure()
        yield contenders


COLD_START: Final = Benchmark(
    name="cold-start",
    title="cold start to the first cell's result",
    measures=(
        "from nothing but an open engine and nursery to the result of a first `pass`; removing the "
        "container is not in it; after one start that does not count"
    ),
    unit="ms",
    goals=(Goal(against=_FLOOR, at_most=1.3),),
    open_contenders=_open_starts,
    turn_count=12,
    quick_turn_count=3,
)
