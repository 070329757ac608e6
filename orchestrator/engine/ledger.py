"""What a run may spend: reserved before anything is dispatched, settled after.

Without it concurrent queries would each see the whole remaining budget. That is how the reference
implementation spends 9 under a limit of 8 and reports 5.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from orchestrator.domain import ModelReply, ModelUsage, RunLimits
from orchestrator.errors import BudgetExhaustedError


class _Balance:
    """One limited quantity. Always: spent + reserved <= allowed."""

    def __init__(self, *, allowed: int) -> None:
        self.allowed = allowed
        self.spent = 0
        self.reserved = 0

    @property
    def left(self) -> int:
        return self.allowed - self.spent - self.reserved


class Reservation:
    """One query set aside: spent when it leaves for the provider, given back when it does not.

    `close` is the only way out, under an error and under cancellation alike; so what is reserved
    returns to zero whatever becomes of the query.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Made by `Ledger.reserve` only, which has already set the query aside."""
        self._ledger = ledger
        self._is_settled = False

    def spend(self) -> None:
        """Settles the query as spent: from here on the provider may bill it.

        Raises:
            ValueError: It has been settled before; the caller has a bug.
        """
        if self._is_settled:
            message = "a reserved query is settled once"
            raise ValueError(message)
        self._is_settled = True
        self._ledger.settle(is_spent=True)

    def close(self) -> None:
        """Gives the query back unless it was spent. Idempotent."""
        if not self._is_settled:
            self._is_settled = True
            self._ledger.settle(is_spent=False)


class Ledger:
    """The account of one run: queries and time are limited, tokens and money are counted.

    A new limit is one more balance, checked and set aside in `reserve` with the others.
    """

    def __init__(
        self, *, limits: RunLimits, read_clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Opens the account; time runs from here.

        Args:
            limits: What the run may spend.
            read_clock: Seconds of a clock that never goes back.
        """
        self._limits = limits
        self._read_clock = read_clock
        self._started_s = read_clock()
        self._queries = _Balance(allowed=limits.queries)
        self._was_refused = False
        self._usage: dict[str, ModelUsage] = {}
        self._slots = asyncio.Semaphore(limits.concurrent_queries)
        # One event loop runs a run, so its tasks cannot interleave between a check and the update
        # that follows. The lock makes that a property of this class rather than of its callers;
        # nothing is awaited under it.
        self._lock = threading.Lock()

    @property
    def spent_query_count(self) -> int:
        """Queries that left for a provider."""
        return self._queries.spent

    @property
    def reserved_query_count(self) -> int:
        """Queries set aside and not yet settled."""
        return self._queries.reserved

    @property
    def left_query_count(self) -> int:
        """Queries that may still be reserved."""
        return self._queries.left

    @property
    def elapsed_s(self) -> float:
        """Seconds since the account was opened."""
        return self._read_clock() - self._started_s

    @property
    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(self._limits.time_s - self.elapsed_s, 0.0)

    @property
    def is_exhausted(self) -> bool:
        """Whether every query was spent and one more was asked for."""
        return self._was_refused and self._queries.spent >= self._queries.allowed

    @property
    def usage(self) -> dict[str, ModelUsage]:
        """What each model was used for so far, by its name."""
        with self._lock:
            return dict(self._usage)

    def reserve(self, *, query_count: int) -> tuple[Reservation, ...]:
        """Sets queries aside, all of them or none.

        Returns:
            One reservation for each query; the caller closes each.

        Raises:
            BudgetExhaustedError: They cannot be afforded whole. Nothing was set aside; the text is
                made for the root model.
        """
        with self._lock:
            if not self.left_s:
                message = "the run's time is over; no more queries are answered"
                raise BudgetExhaustedError(
                    message, limit="time_s", used=self.elapsed_s, allowed=self._limits.time_s
                )
            if query_count > self._queries.left:
                self._was_refused |= not self._queries.left
                raise BudgetExhaustedError(
                    _refusal(asked_count=query_count, left_count=self._queries.left),
                    limit="queries",
                    used=self._queries.spent + self._queries.reserved,
                    allowed=self._queries.allowed,
                )
            self._queries.reserved += query_count
        return tuple(Reservation(self) for _ in range(query_count))

    def settle(self, *, is_spent: bool) -> None:
        """Turns one reserved query into a spent one or a free one; called by `Reservation`."""
        with self._lock:
            self._queries.reserved -= 1
            self._queries.spent += is_spent

    def record(self, model_name: str, reply: ModelReply) -> None:
        """Counts the tokens and the money of one reply, of whichever model."""
        with self._lock:
            self._usage[model_name] = self._usage.get(model_name, ModelUsage()).plus(reply)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Waits for a turn among the run's concurrent queries; first come, first served."""
        return self._slots


def _refusal(*, asked_count: int, left_count: int) -> str:
    prompts = "1 prompt" if asked_count == 1 else f"{asked_count} prompts"
    if not left_count:
        return f"{prompts} asked, no query left; finish with what you have"
    queries = "1 query" if left_count == 1 else f"{left_count} queries"
    return f"{prompts} asked, {queries} left; send fewer, longer prompts"
