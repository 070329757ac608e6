"""Keeps fresh sandboxes waiting, so that a session has one at once.

Without it each session would wait for a container to start; and many that come together would start
as many at a time, which makes all of them slower and the last one wait longest.
"""

import asyncio
import contextvars
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.errors import ProtocolViolationError, SandboxStartError
from orchestrator.limits import PoolLimits
from orchestrator.ports import QueryHandler
from orchestrator.run_to_end import run_to_end
from orchestrator.sandbox.launcher import LaunchedSandbox, SandboxLauncher
from orchestrator.sandbox.pool_figures import ExpectedWait, PoolFigures, StartTimes
from orchestrator.sandbox.pool_place import Place
from orchestrator.sandbox.pool_plan import (
    Caller,
    PoolRules,
    PoolState,
    ReadySandbox,
    backoff_s,
    expected_wait_s,
    plan,
)

_log = logging.getLogger(__name__)

#: A wait that is shorter is over before anybody has read of it.
_WORTH_SAYING_S = 1.0
#: From one line about waiting sandboxes that have ended to the next: they end together.
_QUIET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ticket:
    """A caller's claim on the next sandbox."""

    caller: Caller
    queries: QueryHandler
    came_s: float
    given: "asyncio.Future[Place]"


class SandboxPool:
    """A `SandboxProvider` that hands out sandboxes which are ready. Made by `open_pool`.

    `plan` decides, at each event; this does what it says, in the event loop's thread, without
    waiting for anything.
    """

    def __init__(
        self,
        launcher: SandboxLauncher,
        *,
        limits: PoolLimits,
        on_wait: Callable[[ExpectedWait], None],
    ) -> None:
        """Takes what starts sandboxes; starts nothing before `fill`."""
        self._launcher = launcher
        self._on_wait = on_wait
        self._rules = PoolRules(
            size=limits.size,
            concurrent_starts=limits.concurrent_starts or len(os.sched_getaffinity(0)),
            max_wait_age_s=limits.max_wait_age_s,
        )
        self._loop = asyncio.get_running_loop()
        # What is started in the course of a caller's call is not to carry the caller's variables.
        self._context = contextvars.copy_context()
        self._tasks: dict[int, asyncio.Task[str]] = {}  # of every place, until it is empty again
        self._starting: dict[int, Place] = {}
        self._ready: dict[int, Place] = {}
        self._in_use: dict[int, Place] = {}
        self._tickets: dict[int, _Ticket] = {}  # in the order in which they came
        self._last_number = 0
        self._start_times = StartTimes()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._failed_in_row = self._failed_count = 0
        self._retry_s = self._failing_since_s = self._say_end_again_s = 0.0
        self._last_error: Exception | None = None
        self._handed_out_count = self._destroyed_unused_count = 0
        self._wait_sum_s = self._wait_max_s = 0.0

    @property
    def figures(self) -> PoolFigures:
        """Its condition now."""
        return PoolFigures(
            ready_count=len(self._ready),
            starting_count=len(self._starting),
            waiting_count=len(self._callers()),
            in_use_count=len(self._in_use),
            handed_out_count=self._handed_out_count,
            failed_start_count=self._failed_count,
            destroyed_unused_count=self._destroyed_unused_count,
            acquire_wait_sum_s=self._wait_sum_s,
            acquire_wait_max_s=self._wait_max_s,
        )

    def __repr__(self) -> str:
        """States its condition in one line."""
        now = self.figures
        parts = [
            f"{now.ready_count} of {self._rules.size} ready",
            f"{now.starting_count} starting",
            f"{now.waiting_count} waiting",
            f"{now.in_use_count} in use",
        ]
        if self._failed_in_row:
            words = str(self._last_error).partition("\n")[0]
            parts.append(f"{self._failed_in_row} failed starts in a row: {words}")
        if self._is_closed:
            parts.append("closed")
        return f"<{type(self).__name__} {', '.join(parts)}>"

    @asynccontextmanager
    async def open(self, queries: QueryHandler) -> AsyncIterator[LaunchedSandbox]:
        """Yields a fresh sandbox whose queries `queries` answers; leaving the context destroys it.

        One that is ready is had at once; else callers have theirs in the order in which they came.

        Raises:
            SandboxStartError: Several in a row could not be started, and this is why the last one
                was not; or the pool is closed.
            ProtocolViolationError: Likewise, where that one broke the contract.
        """
        place = await self._acquire(queries)
        try:
            yield place.sandbox
        finally:
            place.leave()
            await run_to_end(self._emptied(place))

    def fill(self) -> None:
        """Begins to start what is to wait; nothing is waited for."""
        self._step()

    async def aclose(self) -> None:
        """Destroys every sandbox, those that sessions have as well. Idempotent.

        Whoever waits for one gets a `SandboxStartError`.
        """
        self._is_closed = True
        self._step()
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await run_to_end(asyncio.wait(tasks))

    async def _acquire(self, queries: QueryHandler) -> Place:
        if self._is_closed:
            raise self._refusal()
        number = self._next_number()
        ticket = _Ticket(
            caller=Caller(number=number, failed_count=self._failed_count),
            queries=queries,
            came_s=self._loop.time(),
            given=self._loop.create_future(),
        )
        self._tickets[number] = ticket
        self._step()
        if not ticket.given.done():
            self._say_wait()
        try:
            return await ticket.given
        except asyncio.CancelledError:
            self._tickets.pop(number, None)
            # It may have been given one, or an error, before it was told of the cancellation.
            if not ticket.given.cancelled() and ticket.given.exception() is None:
                place = ticket.given.result()
                place.leave()
                await run_to_end(self._emptied(place))
            raise

    async def _emptied(self, place: Place) -> None:
        """Waits until what was in a place is destroyed."""
        task = self._tasks.get(place.number)
        if task is not None:
            await asyncio.wait({task})

    def _step(self) -> None:
        """Does what is to be done now."""
        decision = plan(self._state(), self._rules)
        for number, caller in decision.hand_out:
            self._hand_out(self._ready.pop(number), self._tickets.pop(caller))
        for number in decision.destroy:
            self._destroyed_unused_count += 1
            self._ready.pop(number).leave()
        for caller in decision.refuse:
            self._tickets.pop(caller).given.set_exception(self._refusal())
        for _ in range(decision.start_count):
            self._start()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if decision.look_again_s is not None:
            self._alarm = self._loop.call_at(
                decision.look_again_s, self._step, context=self._context
            )

    def _state(self) -> PoolState:
        image_id = self._launcher.image_id
        return PoolState(
            now_s=self._loop.time(),
            image_id=image_id,
            ready=[
                ReadySandbox(number=number, ready_s=place.ready_s, image_id=place.sandbox.image_id)
                for number, place in self._ready.items()
            ],
            starting_count=len(self._starting),
            callers=self._callers(),
            failed_count=self._failed_count,
            failed_in_row=self._failed_in_row,
            retry_s=self._retry_s,
            is_closing=self._is_closed,
        )

    def _callers(self) -> list[Caller]:
        # One that was cancelled is gone, although it may not have been told yet.
        return [ticket.caller for ticket in self._tickets.values() if not ticket.given.done()]

    def _hand_out(self, place: Place, ticket: _Ticket) -> None:
        place.assign(ticket.queries)
        self._in_use[place.number] = place
        ticket.given.set_result(place)
        waited_s = self._loop.time() - ticket.came_s
        self._handed_out_count += 1
        self._wait_sum_s += waited_s
        self._wait_max_s = max(self._wait_max_s, waited_s)

    def _start(self) -> None:
        place = Place(self._next_number(), on_change=self._take_change)
        self._starting[place.number] = place
        task = self._loop.create_task(
            place.keep(self._launcher), name="rlm-pool-place", context=self._context
        )
        self._tasks[place.number] = task
        task.add_done_callback(lambda done: self._take_end(place, done), context=self._context)

    def _take_change(self, place: Place) -> None:
        """Takes a sandbox that has become ready, or of no use although nobody has it."""
        if self._starting.pop(place.number, None) is not None:
            self._ready[place.number] = place
            self._note_success(place)
        if not place.is_fit and self._ready.pop(place.number, None) is not None:
            self._destroyed_unused_count += 1
            # One that ends as soon as it waits is not to be replaced as fast as it can be.
            self._retry_s = self._loop.time() + backoff_s(1)
        self._step()

    def _take_end(self, place: Place, task: "asyncio.Task[str]") -> None:
        """Takes back a place that is empty again."""
        was_starting = self._starting.pop(place.number, None) is not None
        del self._tasks[place.number]
        self._ready.pop(place.number, None)
        self._in_use.pop(place.number, None)
        if task.cancelled():
            # By this, or by whoever ends the event loop: then nothing more may be started in it.
            self._is_closed = True
        elif (error := task.exception()) is not None:
            self._note_failure(error, was_starting=was_starting)
        elif why := task.result():
            self._say_end(why)
        self._step()

    def _note_success(self, place: Place) -> None:
        now_s = self._loop.time()
        self._start_times.add(now_s - place.begun_s)
        if self._failed_in_row:
            away_s = now_s - self._failing_since_s
            told = "sandboxes can be started again, after %d failed starts in %.1f s"
            _log.info(told, self._failed_in_row, away_s)
        self._failed_in_row, self._last_error = 0, None

    def _note_failure(self, error: BaseException, *, was_starting: bool) -> None:
        if not was_starting:
            _log.warning("a sandbox was not destroyed as it should be: %s", error)
            return
        now_s = self._loop.time()
        if not self._failed_in_row:
            self._failing_since_s = now_s
            _log.warning("no sandbox could be started; it is tried on, less often: %s", str(error))
        self._failed_in_row += 1
        self._failed_count += 1
        self._retry_s = now_s + backoff_s(self._failed_in_row)
        self._last_error = _without_frames(error)

    def _say_end(self, why: str) -> None:
        if self._loop.time() >= self._say_end_again_s:
            self._say_end_again_s = self._loop.time() + _QUIET_S
            _log.warning("a sandbox ended before anybody had it; fresh ones follow: %s", why)

    def _say_wait(self) -> None:
        """Tells the last caller how long it will take, where that is worth a line."""
        concurrent_starts = self._rules.concurrent_starts
        ahead_count = len(self._callers()) - 1
        start_s, expected_s = self._start_times.mean_s, None
        if start_s is not None:
            expected_s = expected_wait_s(
                ahead_count=ahead_count, concurrent_starts=concurrent_starts, start_s=start_s
            )
        if ahead_count >= concurrent_starts or (expected_s or 0.0) >= _WORTH_SAYING_S:
            self._on_wait(ExpectedWait(position=ahead_count + 1, expected_s=expected_s))

    def _refusal(self) -> Exception:
        if self._is_closed or self._last_error is None:
            return SandboxStartError("The pool of sandboxes is closed; open another one.")
        return _without_frames(self._last_error)  # one for each: whoever raises it adds to it

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


def _without_frames(error: BaseException) -> Exception:
    """Returns an error that says the same and keeps none of what led to it, sockets among that."""
    if isinstance(error, ProtocolViolationError):
        return ProtocolViolationError(error.rule)
    return SandboxStartError(str(error) or type(error).__name__)


def _say_in_log(wait: ExpectedWait) -> None:
    _log.info("%s", wait)


@asynccontextmanager
async def open_pool(
    launcher: SandboxLauncher,
    *,
    limits: PoolLimits,
    on_wait: Callable[[ExpectedWait], None] = _say_in_log,
) -> AsyncIterator[SandboxPool]:
    """Yields a pool that has begun to fill; leaving the context destroys every sandbox of it.

    Args:
        launcher: Starts sandboxes; open for longer than this context. It is told by its backend to
            let them wait for as long as `limits` says (`longest_wait_s`).
        limits: How many wait, and how long.
        on_wait: Told when a caller has to wait, by that caller's own call. Must not block and must
            not raise.
    """
    pool = SandboxPool(launcher, limits=limits, on_wait=on_wait)
    pool.fill()
    try:
        yield pool
    finally:
        await pool.aclose()
