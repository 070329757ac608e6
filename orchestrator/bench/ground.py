"""What benchmarks are measured on: sandboxes as the settings make them, and the peers there are.

Without it each benchmark would open sandboxes in its own way, and one of them would be measured
without a wall that users have.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.app.parts import OpenSandboxes
from orchestrator.bench.peers.process import PeerSession, ReadyPeer, open_peer
from orchestrator.context import encode_context
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy, Outcome, QueryAnswer, QueryRequest, RunOffer
from orchestrator.errors import SandboxLostError
from orchestrator.limits import QueryLimits, SandboxLimits
from orchestrator.ports import QueryHandler, Sandbox, SandboxProvider
from orchestrator.settings import Settings

MS_PER_S = 1e3
_CELL_S = 300.0  # nothing that is measured takes as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What benchmarks are measured on.

    Attributes:
        settings: The user's own.
        open_sandboxes: Opens sandboxes of this host's engine.
        endpoint: Where the engine listens.
        image_id: The sandbox image.
        peers: Those that are installed.
        is_quick: Whether few turns are taken.
        say: Told in a sentence what is being done.
    """

    settings: Settings
    open_sandboxes: OpenSandboxes
    endpoint: str
    image_id: str
    peers: Sequence[ReadyPeer]
    is_quick: bool
    say: Callable[[str], None]


class EchoModel:
    """Answers each query with itself after `delay_s`: no model is asked by a benchmark."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        """Makes a handler of queries that answers at once, or so many seconds later."""
        self._delay_s = delay_s

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers all prompts of a request together."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return [f"echo: {prompt}" for prompt in request.prompts]


@asynccontextmanager
async def open_provider(
    ground: Ground,
    *,
    broker: BrokerIsolation | None = None,
    sandbox: SandboxLimits | None = None,
    concurrent_query_count: int | None = None,
    policy: LanguagePolicy | None = None,
) -> AsyncIterator[SandboxProvider]:
    """Yields sandboxes as the user's settings make them, but for what is given."""
    settings = ground.settings
    changes: dict[str, object] = {}
    if broker is not None:
        changes["broker"] = broker
    if sandbox is not None:
        changes["sandbox"] = sandbox
    if concurrent_query_count is not None:
        changes["query"] = QueryLimits(concurrent_queries=concurrent_query_count)
    if policy is not None:
        changes["policy"] = policy
    changed = settings.model_copy(update=changes)
    async with ground.open_sandboxes(changed, report=ground.say) as provider:
        yield provider


@asynccontextmanager
async def open_session(
    provider: SandboxProvider, *, queries: QueryHandler | None = None, context_chars: int = 0
) -> AsyncIterator[Sandbox]:
    """Yields a sandbox in which a run has begun, with a context of so many characters."""
    async with provider.open(queries or EchoModel()) as sandbox:
        await sandbox.begin_run(RunOffer())
        context = await asyncio.to_thread(encode_context, "x" * context_chars)
        await sandbox.bind_context("context", context)
        yield sandbox


async def run_cell(sandbox: Sandbox, source: str) -> str:
    """Runs a cell that has to succeed, and returns what it printed.

    Raises:
        SandboxLostError: It did not succeed; the message says how it ended.
    """
    result = await sandbox.run_cell(source, timeout_s=_CELL_S)
    if result.outcome is not Outcome.SUCCEEDED:
        why = f": {result.error.type_name}: {result.error.message}" if result.error else ""
        raise SandboxLostError(f"a cell of the benchmark ended as {result.outcome}{why}")
    return str(result.stdout)


async def time_cells(sandbox: Sandbox, source: str, *, count: int) -> list[float]:
    """Returns the milliseconds that each of `count` cells takes, as their caller sees it."""
    took_ms = []
    for _ in range(count):
        begun_s = time.perf_counter()
        await run_cell(sandbox, source)
        took_ms.append((time.perf_counter() - begun_s) * MS_PER_S)
    return took_ms


async def read_times(sandbox: Sandbox, source: str) -> list[float]:
    """Returns in milliseconds the seconds that a cell has measured itself and printed as a list."""
    return in_ms(json.loads(await run_cell(sandbox, source)))


def in_ms(seconds: Sequence[float]) -> list[float]:
    """Returns seconds as milliseconds."""
    return [each * MS_PER_S for each in seconds]


@asynccontextmanager
async def open_peer_session(
    ready: ReadyPeer, ground: Ground, *, context_chars: int = 0, delay_s: float = 0.0
) -> AsyncIterator[PeerSession]:
    """Yields a peer whose sandbox is open, with as much memory as ours.

    Raises:
        PeerFailedError: It could not be opened.
    """
    async with open_peer(ready) as session:
        await session.open(
            image=ready.image,
            memory_bytes=ground.settings.sandbox.memory_bytes,
            context_chars=context_chars,
            delay_s=delay_s,
        )
        yield session
