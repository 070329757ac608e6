"""One sandbox of a pool, from its start to its end: who has it, and whether anybody may.

Without it a sandbox could be given to two sessions, and one that asks for something before it
belongs to anybody would find somebody to answer.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from orchestrator.domain import QueryAnswer, QueryFailure, QueryFailureReason, QueryRequest
from orchestrator.ports import QueryHandler
from orchestrator.sandbox.launcher import LaunchedSandbox, SandboxLauncher

_log = logging.getLogger(__name__)

# From the end of a stream to that of its container, with the word why: the launcher sees to it.
_LAST_WORDS_S = 5.0


class AssignedQueries:
    """A `QueryHandler` that hands on to a session's once there is one, and until then refuses."""

    def __init__(self, *, on_early: Callable[[], None]) -> None:
        """Belongs to nobody; `on_early` is told of a query that comes meanwhile."""
        self._handler: QueryHandler | None = None
        self._on_early = on_early

    def assign(self, handler: QueryHandler) -> None:
        """Hands on to `handler` from now on.

        Raises:
            RuntimeError: It belongs to somebody already.
        """
        if self._handler is not None:
            raise RuntimeError("a sandbox is assigned once; start another one")
        self._handler = handler

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        if self._handler is None:
            self._on_early()
            failure = QueryFailure(
                reason=QueryFailureReason.CANCELLED, message="no session has this sandbox yet"
            )
            return [failure] * len(request.prompts)
        return await self._handler.answer(request)


class Place:
    """Holds one sandbox: starts it, lets it wait, gives it to one session, destroys it.

    Everything but `keep` returns at once.
    """

    def __init__(self, number: int, *, on_change: Callable[["Place"], None]) -> None:
        """Makes an empty place, in the running event loop.

        Args:
            number: Names it.
            on_change: Called when its sandbox has become ready, or is of no use any more although
                nobody has it.
        """
        self.number = number
        self._on_change = on_change
        self._queries = AssignedQueries(on_early=self._note_early_query)
        self._sandbox: LaunchedSandbox | None = None
        self._is_assigned = False
        loop = asyncio.get_running_loop()
        self.begun_s = loop.time()
        self.ready_s = self.begun_s  # until it is known
        self._left: asyncio.Future[None] = loop.create_future()
        self._spoilt: asyncio.Future[None] = loop.create_future()
        self._early_query = ""

    @property
    def sandbox(self) -> LaunchedSandbox:
        """The sandbox, once it is ready."""
        if self._sandbox is None:
            raise RuntimeError("the sandbox of this place is not ready; see `on_change`")
        return self._sandbox

    @property
    def is_fit(self) -> bool:
        """Whether a session may have it."""
        ended = self._spoilt.done() or self._left.done()
        return self._sandbox is not None and not self._is_assigned and not ended

    def assign(self, queries: QueryHandler) -> None:
        """Gives the sandbox to the session whose handler `queries` is; its lifetime begins.

        Raises:
            RuntimeError: It is not fit, or somebody has it.
        """
        if not self.is_fit:
            raise RuntimeError("a sandbox is assigned once, while it is fit; start another one")
        self._queries.assign(queries)
        self._is_assigned = True
        self.sandbox.lifetime.begin_again()

    def leave(self) -> None:
        """Has the sandbox destroyed, whoever has it. Idempotent."""
        if not self._left.done():
            self._left.set_result(None)

    async def keep(self, launcher: SandboxLauncher) -> str:
        """Starts a sandbox, keeps it until it is left or of no use any more, and destroys it.

        Cancelling the call leaves it.

        Returns:
            Why it was of no use, for the operator; empty where it was left.

        Raises:
            SandboxStartError: As `SandboxLauncher.open`, and what else that raises.
        """
        async with launcher.open(self._queries) as sandbox:
            self._sandbox = sandbox
            self.ready_s = asyncio.get_running_loop().time()
            ending = asyncio.create_task(sandbox.wait_for_end())
            ending.add_done_callback(lambda _ending: self._spoil())
            try:
                self._on_change(self)
                # Not awaited themselves: a cancelled place must not cancel who waits for it.
                either = {self._left, self._spoilt}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                return "" if self._left.done() else await self._learn_why(sandbox)
            finally:
                self.leave()
                ending.cancel()

    async def _learn_why(self, sandbox: LaunchedSandbox) -> str:
        if self._early_query:
            return self._early_query
        await asyncio.wait({sandbox.end}, timeout=_LAST_WORDS_S)
        return sandbox.end.result() if sandbox.end.done() else "Its stream ended."

    def _note_early_query(self) -> None:
        # The broker lets no query through while no cell runs: this one came past its rules.
        self._early_query = "It asked for something before anybody had it."
        _log.error("a sandbox asked for something before it was assigned; it is destroyed")
        self._spoil()

    def _spoil(self) -> None:
        """Withdraws a sandbox that nobody has; one that somebody has tells them itself."""
        if self._is_assigned or self._left.done() or self._spoilt.done():
            return
        self._spoilt.set_result(None)
        if self._sandbox is not None:
            self._on_change(self)
