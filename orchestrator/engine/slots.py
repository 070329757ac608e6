"""How much of one run tree is under way at once.

Without it a batch of 256 prompts would be 256 connections, and eight child runs eight containers.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from orchestrator.limits import QueryLimits

#: Calls of the caller's functions under way at once; each synchronous one is a thread.
_CONCURRENT_TOOL_CALLS = 8


class Slots:
    """Turns to wait for; first come, first served. One for a whole run tree."""

    def __init__(self, limits: QueryLimits) -> None:
        """Begins with everything free."""
        self._limits = limits
        self._queries = asyncio.Semaphore(limits.concurrent_queries)
        self._tool_calls = asyncio.Semaphore(_CONCURRENT_TOOL_CALLS)
        # One for each depth: a child run that waits for its own children must not hold the place
        # they wait for.
        self._child_runs: dict[int, asyncio.Semaphore] = {}

    def query(self) -> AbstractAsyncContextManager[None]:
        """A turn for a prompt to a sub-model."""
        return self._queries

    def tool_call(self) -> AbstractAsyncContextManager[None]:
        """A turn for a call of one of the caller's functions."""
        return self._tool_calls

    def child_run(self, depth: int) -> AbstractAsyncContextManager[None]:
        """A turn for a child run at `depth`."""
        return self._child_runs.setdefault(
            depth, asyncio.Semaphore(self._limits.concurrent_child_runs)
        )
