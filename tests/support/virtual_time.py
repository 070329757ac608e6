"""An event loop whose clock jumps to whatever is due next.

Without it a schedule of timeouts, waits and retries would take as long as it says, and thousands of
them could not be tried.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


#: Real seconds for what threads do meanwhile, when nothing is due in virtual ones.
_THREADS_S = 5.0


class _JumpingSelector(selectors.BaseSelector):
    """Waits for threads alone: any other time that would be waited is added to the clock."""

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns what is ready now; jumps where nothing is."""
        ready = self._inner.select(0 if timeout is not None else _THREADS_S)
        if not ready and timeout is None:
            raise RuntimeError("the schedule waits for something that never happens")
        if not ready and timeout:
            self.now_s += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401 - the base class's
        """See `BaseSelector.register`."""
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401 - likewise
        """See `BaseSelector.unregister`."""
        return self._inner.unregister(fileobj)

    def close(self) -> None:
        """See `BaseSelector.close`."""
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See `BaseSelector.get_map`."""
        return self._inner.get_map()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        """Makes a loop in which nothing is due."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Returns the virtual time in seconds."""
        return self._jumping.now_s


def run_in_virtual_time(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs `work` to its end in an event loop of its own, in no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
