"""Finishing what must be finished, also when the caller is cancelled.

Without it a cancelled caller would leave a socket, a running cell or a paid query behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, however often the caller is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: The caller was cancelled; `work` has ended all the same.
    """
    task = asyncio.ensure_future(work)
    was_cancelled = False
    while not task.done():
        try:
            # wait(), unlike shield(), leaves the task's own error where it is.
            await asyncio.wait({task})
        except asyncio.CancelledError:
            was_cancelled = True
    if was_cancelled:
        if not task.cancelled():
            task.exception()  # marks it as seen: the cancellation is what the caller hears of
        raise asyncio.CancelledError
    return task.result()
