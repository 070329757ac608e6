"""What a sandbox and a session hold while nothing happens.

Without it nobody could say how many idle sessions a host can keep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from orchestrator.bench.bare_container import BareContainers, open_bare_containers
from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.container_memory import memory_of, name_of
from orchestrator.bench.ground import Ground, open_provider, open_session, run_cell
from orchestrator.bench.report import Goal
from orchestrator.bench.session_growth import measure_growth
from orchestrator.bench.turns import Contender, Kind
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import SandboxProvider
from orchestrator.settings import Settings

_FLOOR = "bare python"
_SESSIONS = 16
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


class _Sessions:
    """Sessions that are opened once a turn for two figures of it: of this process, of others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._brokers_kb = 0.0

    async def own_kb(self, broker: BrokerIsolation) -> Sequence[float]:
        """Returns by how many KB each session lets the orchestrator's process grow."""
        growth = await measure_growth(
            self._settings, broker, before_count=_SESSIONS_BEFORE, session_count=_SESSIONS
        )
        if broker is BrokerIsolation.OWN_PROCESS:
            self._brokers_kb = growth.broker_bytes / _KB
        return [growth.own_bytes / _KB]

    async def brokers_kb(self) -> Sequence[float]:
        """Returns how many KB the broker's process of each session has."""
        if not self._brokers_kb:
            await self.own_kb(BrokerIsolation.OWN_PROCESS)
        return [self._brokers_kb]


@asynccontextmanager
async def _open_sessions(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    sessions = _Sessions(ground.settings)
    yield [
        Contender(
            name="ours",
            kind=Kind.OURS,
            what="the orchestrator's process",
            measure=partial(sessions.own_kb, BrokerIsolation.OWN_PROCESS),
        ),
        Contender(
            name="broker's process",
            kind=Kind.VARIANT,
            what="the process that serves the session's sandbox",
            measure=sessions.brokers_kb,
        ),
        Contender(
            name="in_process",
            kind=Kind.VARIANT,
            what="the orchestrator's process with the broker in it",
            measure=partial(sessions.own_kb, BrokerIsolation.IN_PROCESS),
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
        f"run of one turn has ended, in a process that does nothing else; after {_SESSIONS_BEFORE} "
        "that do not count"
    ),
    unit="KB",
    goals=(Goal(at_most=200.0),),
    open_contenders=_open_sessions,
    turn_count=3,
    quick_turn_count=1,
)
