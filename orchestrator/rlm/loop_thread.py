"""An event loop in a thread of its own, for callers that have none.

Without it a program without an event loop could neither read a run's events while it goes on, nor
ask two questions from two threads over the same connections.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines for other threads. Closed once, by whoever made it."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close this ends all the same, and its sandboxes with
        # the connections that it held.
        self._thread = threading.Thread(
            target=_serve, args=(self._loop,), name="rlm-loop", daemon=True
        )
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Begins `work` and returns what will come of it; cancelling that cancels the work."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Runs `work` and waits for its end.

        An interrupt (Ctrl-C) while it waits cancels the work, and is raised once that has ended:
        nothing is left running.
        """
        doing = self.start(work)
        try:
            return doing.result()
        except BaseException:
            if not doing.done():
                doing.cancel()
                # Cancelled here, still ending there: its containers are destroyed meanwhile.
                self.run_to_idle()
            raise

    def run_to_idle(self) -> None:
        """Waits until every task of the loop has ended; to be called when all are to end."""
        with contextlib.suppress(concurrent.futures.CancelledError):
            asyncio.run_coroutine_threadsafe(_wait_for_cancelled(), self._loop).result()

    def close(self) -> None:
        """Ends the loop and its thread. Idempotent."""
        if not self._thread.is_alive():
            return
        self.abandon()
        self._thread.join()

    def abandon(self) -> None:
        """Cancels whatever still runs in the loop, and ends it without anybody waiting for that."""
        with contextlib.suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Runs a loop until it is stopped, then everything that is left in it to its end."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


async def _wait_for_cancelled() -> None:
    """Waits for tasks that have been told to end."""
    own = asyncio.current_task()
    ending = {task for task in asyncio.all_tasks() if task is not own and task.cancelling()}
    if ending:
        await asyncio.wait(ending)
