"""What the broker has to say, sent in order.

Without it two callers could write to one gRPC stream at once, which gRPC forbids, and a caller
cancelled in the middle of a write would leave the stream unusable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

Write: TypeAlias = Callable[[bytes], Coroutine[Any, Any, None]]


class Outbox:
    """Sends messages one after the other. What it holds is bounded by its only user's calls."""

    def __init__(self, write: Write) -> None:
        """Sends with `write`, which returns when the message has passed the flow control."""
        self._write = write
        self._waiting: deque[bytes] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False

    def post(self, raw: bytes) -> None:
        """Sends `raw` after what was posted before; returns at once."""
        if self._is_closed:
            return
        self._waiting.append(raw)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())

    async def flush(self) -> None:
        """Returns when all that was posted has been sent, or never will be."""
        if self._sender is not None:
            await asyncio.wait({self._sender})

    def close(self) -> None:
        """Drops what is waiting and sends nothing more. Idempotent."""
        self._is_closed = True
        self._waiting.clear()
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self) -> None:
        while self._waiting:
            await self._write(self._waiting.popleft())
