"""A pool over the product's own launcher, whose containers and endpoints are a test's.

To be used in virtual time: a start takes its seconds there, and a wait of hours none.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.broker_host import EchoQueries
from support.fake_container import FakeBackend, FakeBroker, FakeContainer, FakeEndpoint
from support.virtual_time import run_in_virtual_time

from orchestrator.domain import SandboxId, Walls
from orchestrator.errors import SandboxError
from orchestrator.limits import PoolLimits, SandboxLimits
from orchestrator.ports import QueryHandler, UntilListening
from orchestrator.sandbox.launcher import LaunchedSandbox, SandboxLauncher
from orchestrator.sandbox.pool import SandboxPool, open_pool
from orchestrator.sandbox.pool_figures import ExpectedWait

START_S = 0.5


class SlowBackend(FakeBackend):
    """Starts containers in some virtual time, or fails to.

    Attributes:
        start_s: What a start takes, whether it fails or not.
        starting_count: Starts under way.
        most_starting: The most that were at a time.
        begun_s: When each start began.
        contexts: The variables of each start's call.
        errors: What the next starts fail with, in order, before `start_error`.
    """

    def __init__(self, diary: list[str]) -> None:
        """Begins with starts that succeed."""
        super().__init__(diary)
        self.start_s = START_S
        self.starting_count = self.most_starting = 0
        self.begun_s: list[float] = []
        self.contexts: list[contextvars.Context] = []
        self.errors: list[SandboxError] = []
        self.image = super().image_id

    @property
    def image_id(self) -> str:
        """See `ContainerBackend.image_id`; a test may change it."""
        return self.image

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> FakeContainer:
        """See `ContainerBackend.start`."""
        self.begun_s.append(asyncio.get_running_loop().time())
        self.contexts.append(contextvars.copy_context())
        self.starting_count += 1
        self.most_starting = max(self.most_starting, self.starting_count)
        try:
            await asyncio.sleep(self.start_s)
            if self.errors:
                raise self.errors.pop(0)
            return await super().start(
                sandbox_id=sandbox_id, socket_directory=socket_directory, listening=listening
            )
        finally:
            self.starting_count -= 1


class FreshBroker(FakeBroker):
    """Opens an endpoint for each sandbox, whose worker attaches at once.

    Attributes:
        endpoints: Every one, in the order in which they were opened.
        queries: Who answers what its sandbox asks, likewise.
        open_count: Those that are open.
    """

    def __init__(self, diary: list[str]) -> None:
        """Begins without endpoints."""
        super().__init__(diary, Path("/run/x"))
        self.endpoints: dict[SandboxId, FakeEndpoint] = {}
        self.queries: dict[SandboxId, QueryHandler] = {}
        self.open_count = 0

    @asynccontextmanager
    async def open(
        self, *, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AsyncIterator[FakeEndpoint]:
        """See `Broker.open`."""
        del promised_walls
        endpoint = FakeEndpoint(Path("/run/x"))
        endpoint.may_attach.set()
        self.endpoints[sandbox_id] = endpoint
        self.queries[sandbox_id] = queries
        self.open_count += 1
        try:
            yield endpoint
        finally:
            self.open_count -= 1


class PoolBench:
    """A pool and what it stands on.

    Attributes:
        pool: The pool, while it is open.
        told: What callers were told of their waits.
        had: What `used` had, in the order in which it was handed out.
    """

    def __init__(
        self,
        *,
        size: int = 2,
        concurrent_starts: int = 2,
        max_wait_age_s: float = 1800.0,
        sandbox: SandboxLimits | None = None,
    ) -> None:
        """Joins the parts; nothing is started."""
        self.limits = PoolLimits(
            size=size, concurrent_starts=concurrent_starts, max_wait_age_s=max_wait_age_s
        )
        self.backend = SlowBackend([])
        self.broker = FreshBroker([])
        self.launcher = SandboxLauncher(
            backend=self.backend, broker=self.broker, limits=sandbox or SandboxLimits()
        )
        self.told: list[ExpectedWait] = []
        self.had: list[Had] = []
        self.pool: SandboxPool

    @asynccontextmanager
    async def opened(self, *, is_full: bool = True) -> AsyncIterator[SandboxPool]:
        """Opens the pool, and waits until it is full; afterwards nothing of it may be left."""
        async with open_pool(
            self.launcher, limits=self.limits, on_wait=self.told.append
        ) as self.pool:
            if is_full:
                await self.filled()
            yield self.pool
        assert self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether no container, no endpoint and no start is left."""
        is_destroyed = all(container.is_destroyed for container in self.backend.containers)
        return is_destroyed and not self.broker.open_count and not self.backend.starting_count

    async def filled(self) -> None:
        """Waits, in virtual time, until as many wait as are to."""
        while self.pool.figures.ready_count < self.limits.size:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)

    async def used(self, hold_s: float = 0.0, *, queries: QueryHandler | None = None) -> Had:
        """Has a sandbox for so long, and says which, and how long it took."""
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        async with self.pool.open(queries or EchoQueries()) as sandbox:
            had = Had(sandbox, waited_s=loop.time() - came_s)
            self.had.append(had)
            await asyncio.sleep(hold_s)
        return had


class Had:
    """A sandbox that a session had, and how long it waited for it."""

    def __init__(self, sandbox: LaunchedSandbox, *, waited_s: float) -> None:
        """Made by `PoolBench.used`."""
        self.sandbox = sandbox
        self.waited_s = waited_s


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a test of a coroutine function, run in virtual time."""

    @functools.wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - the test's own
        async def whole() -> None:
            await test(*arguments, **keywords)

        run_in_virtual_time(whole())

    return run
