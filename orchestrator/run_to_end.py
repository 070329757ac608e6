"""Finishes what must not be left half done, although the caller was cancelled meanwhile.

Without it a Ctrl-C between "create the container" and "remember its id" would leave a container
that nobody destroys.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def run_to_end(work: Coroutine[Any, Any, _T] | asyncio.Future[_T]) -> _T:
    """Awaits `work` to its end even when cancelled meanwhile, and is cancelled only then.

    For work that is bounded by itself. Work that is handed over as a future goes on being the
    caller's: it may be awaited again.
    """
    future = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            # Not shield(): wait() neither cancels what it waits for nor raises its error.
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # marks it as seen: the cancellation is what the caller gets
    raise cancellation
