"""What a sandbox and a session hold while nothing happens.

Without it nobody could say how many idle sessions a host can keep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.bare_container import BareContainers, open_bare_containers
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.container_memory import memory_of, name_of
from orchestrator.bench.ground import Ground, open_provider, open_session, run_cell
from orchestrator.bench.our_processes import broker_processes, own_unique_bytes, unique_bytes
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.bench.whole_runs import open_run_sessions
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import SandboxProvider

_FLOOR = "bare python"
_SESSIONS = 8
_SESSIONS_BEFORE = 2  # what is imported and allocated once is there before anything is counted
_MB, _KB = 1e6, 1e3


async def _idle_sandbox(provider: SandboxProvider, endpoint: str) -> Sequence[float]:
    async with open_session(provider) as sandbox:
        await run_cell(sandbox, "pass")
        memory = await memory_of(endpoint, name_of(sandbox.sandbox_id))
        return [memory.unique_bytes / _MB]


async def _bare_python(containers: BareContainers, endpoint: str) -> Sequence[float]:
    def open_and_ask() -> float:
        with containers.running("print(flush=True); input()") as container_id:
            containers.wait_for_output(container_id)
            return asyncio.run(memory_of(endpoint, container_id)).unique_bytes / _MB

    return [await asyncio.to_thread(open_and_ask)]


@asynccontextmanager
async def _open_idle(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(open_provider(ground))
        containers = await stack.enter_async_context(open_bare_containers(ground))
        yield [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="worker, REPL process and its spares, after one cell, with an empty context",
                measure=partial(_idle_sandbox, provider, ground.endpoint),
            ),
            Contender(
                name=_FLOOR,
                kind=Kind.FLOOR,
                what="a container of the same image in which an interpreter waits for input",
                lacks="no worker, no wire, no spare processes",
                measure=partial(_bare_python, containers, ground.endpoint),
            ),
        ]


async def _each_session(
    ground: Ground, broker: BrokerIsolation, read_bytes: Callable[[], int]
) -> Sequence[float]:
    """Returns by how many KB each of some sessions lets a figure grow."""
    async with (
        open_run_sessions(ground, broker=broker) as open_one,
        AsyncExitStack() as stack,
    ):
        for _ in range(_SESSIONS_BEFORE):
            await stack.enter_async_context(open_one())
        before_bytes = read_bytes()
        for _ in range(_SESSIONS):
            await stack.enter_async_context(open_one())
        return [(read_bytes() - before_bytes) / _SESSIONS / _KB]


def _brokers_unique_bytes() -> int:
    return unique_bytes(broker_processes())


@asynccontextmanager
async def _open_sessions(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    own, within = BrokerIsolation.OWN_PROCESS, BrokerIsolation.IN_PROCESS
    yield [
        Contender(
            name="ours",
            kind=Kind.OURS,
            what="the orchestrator's process",
            measure=partial(_each_session, ground, own, own_unique_bytes),
        ),
        Contender(
            name="broker's process",
            kind=Kind.VARIANT,
            what="the process that serves the session's sandbox",
            measure=partial(_each_session, ground, own, _brokers_unique_bytes),
        ),
        Contender(
            name="in_process",
            kind=Kind.VARIANT,
            what="the orchestrator's process with the broker in it",
            measure=partial(_each_session, ground, within, own_unique_bytes),
        ),
    ]


IDLE_SANDBOX: Final = Benchmark(
    name="idle-memory",
    title="memory of an idle sandbox",
    measures=(
        "what the sandbox's control group is charged, files that could be read again left out, "
        "after one empty cell; a figure of a fresh sandbox in each turn"
    ),
    unit="MB",
    goals=(Goal(against=_FLOOR, at_most=2.0),),
    open_contenders=_open_idle,
    turn_count=5,
    quick_turn_count=2,
)
SESSION: Final = Benchmark(
    name="session-memory",
    title="memory on the host for each open session",
    measures=(
        f"by how much unique memory grows with each of {_SESSIONS} sessions, in each of which a "
        f"run of one turn has ended; after {_SESSIONS_BEFORE} that do not count"
    ),
    unit="KB",
    goals=(Goal(at_most=200.0),),
    open_contenders=_open_sessions,
    turn_count=3,
    quick_turn_count=1,
)
