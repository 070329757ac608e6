"""The events of a run while it goes on, and its result at the end.

Without it a program that wants to show a run would have to hand in a callback, and put what that is
told into a queue of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from orchestrator.engine.result import RunResult
from orchestrator.errors import InputError
from orchestrator.events import RunEvent
from orchestrator.ports import EventSink
from orchestrator.rlm.loop_thread import LoopThread

#: Runs a run that tells a sink of its events.
StartRun = Callable[[EventSink], Awaitable[RunResult]]


class AsyncRunStream:
    """An asynchronous iterator over the events of one run, pieces of its replies among them.

    Leaving it early (`aclose`, or the end of `async with`) ends the run and destroys its sandbox.
    """

    def __init__(self, start: StartRun) -> None:
        """Begins nothing: the run starts with the first event that is asked for."""
        self._start = start
        self._events: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._task: asyncio.Task[RunResult] | None = None

    @property
    def result(self) -> RunResult:
        """The result, once the last event has been read.

        Raises:
            InputError: The run is still going on, or was left early.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise InputError("the run has not ended: read its events to the last one first")
        return self._task.result()

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> RunEvent:
        """Returns the next event.

        Raises:
            StopAsyncIteration: The run has ended; `result` is there.
            RlmSandboxError: What the run raised.
        """
        if self._task is None:
            self._task = asyncio.ensure_future(self._start(self._events.put_nowait))
            self._task.add_done_callback(lambda _: self._events.put_nowait(None))
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)  # whoever asks once more is told the same
            self._task.result()
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Ends the run, if it is going on. Idempotent."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        """Returns itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the run, if it is going on."""
        await self.aclose()


class RunStream:
    """An iterator over the events of one run; see `AsyncRunStream`."""

    def __init__(self, start: StartRun, *, loop: LoopThread, owns_loop: bool) -> None:
        """Begins the run in `loop`, which is closed with the stream where it is its own."""
        self._loop = loop
        self._owns_loop = owns_loop
        self._events: queue.SimpleQueue[RunEvent | None] = queue.SimpleQueue()
        self._doing = loop.start(_run(start, self._events))
        self._doing.add_done_callback(_teller_of_end(self._events))
        self._has_ended = False
        # A stream that is dropped unread ends its run: nobody is there any more who wants it.
        weakref.finalize(self, _abandon, self._doing, loop if owns_loop else None)

    @property
    def result(self) -> RunResult:
        """The result, once the last event has been read.

        Raises:
            InputError: The run is still going on, or was left early.
        """
        if not self._has_ended or self._doing.cancelled():
            raise InputError("the run has not ended: read its events to the last one first")
        return self._doing.result()

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> RunEvent:
        """Returns the next event, and waits for it.

        Raises:
            StopIteration: The run has ended; `result` is there.
            RlmSandboxError: What the run raised.
        """
        if self._has_ended:
            raise StopIteration
        try:
            event = self._events.get()
        except BaseException:  # Ctrl-C: the run is not left to itself
            self.close()
            raise
        if event is None:
            self._has_ended = True
            self._close_loop()
            self._doing.result()
            raise StopIteration
        return event

    def close(self) -> None:
        """Ends the run, if it is going on, and destroys its sandbox. Idempotent."""
        if not self._doing.done():
            self._doing.cancel()
            self._loop.run_to_idle()
        self._close_loop()

    def _close_loop(self) -> None:
        if self._owns_loop:
            self._loop.close()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the run, if it is going on."""
        self.close()


# Functions, and not methods: what a run in the loop holds on to must not be the stream itself.
async def _run(start: StartRun, events: queue.SimpleQueue[RunEvent | None]) -> RunResult:
    return await start(events.put)


def _teller_of_end(events: queue.SimpleQueue[RunEvent | None]) -> Callable[[object], None]:
    return lambda _: events.put(None)


def _abandon(doing: concurrent.futures.Future[RunResult], loop: LoopThread | None) -> None:
    doing.cancel()
    if loop is not None:
        loop.abandon()
