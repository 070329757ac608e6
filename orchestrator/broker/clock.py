"""The clock of one cell: wall time, less the time in which a query of the cell was open.

Without it a cell that waits for a slow model would be stopped for the model's slowness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class CellClock:
    """Calls back once when a cell's time is over; stands still while it is paused."""

    def __init__(self, *, timeout_s: float, expire: Callable[[], None]) -> None:
        """Starts the clock in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._expire = expire
        self._left_s = timeout_s
        self._resumed_at_s = 0.0
        self._pause_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._start()

    def pause(self) -> None:
        """Stands still until `resume` has been called as often as `pause`."""
        self._pause_count += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left_s -= self._loop.time() - self._resumed_at_s

    def resume(self) -> None:
        """Undoes one `pause`."""
        self._pause_count -= 1
        if self._pause_count == 0 and not self._is_stopped:
            self._start()

    def stop(self) -> None:
        """Never calls back again. Idempotent."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._resumed_at_s = self._loop.time()
        self._timer = self._loop.call_later(max(self._left_s, 0.0), self._expire)
