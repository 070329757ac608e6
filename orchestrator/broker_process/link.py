"""One end of the pair of sockets between the orchestrator and a broker's process.

Without it both ends would need their own idea of when to wait for the other, and one that does not
read could make the other hold any amount of bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import cast

from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import Frame, FrameReader, KindBounds, pack
from orchestrator.domain import Json

#: Above this `drained` waits: one piece of a context, so that the next is cut while one is sent.
_HIGH_WATER_BYTES = 2**20
#: Copying as much takes less than a system call more.
_COPIED_BYTES = 64 * 2**10


class Link(asyncio.BufferedProtocol):
    """Sends frames in order, and hands on those that come."""

    def __init__(
        self,
        *,
        bounds: KindBounds,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[FrameError | None], None],
    ) -> None:
        """Begins without a socket; `open_link` gives it one.

        Args:
            bounds: What is read.
            on_frame: Called with each frame; a `FrameError` it raises ends the link.
            on_end: Called once, when no frame will come any more: with the rule that was broken, or
                None where the other end has closed.
        """
        self._reader = FrameReader(bounds)
        self._on_frame = on_frame
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._broken: FrameError | None = None
        self._has_ended = False
        self._flowing: asyncio.Future[None] | None = None

    @property
    def waiting_bytes(self) -> int:
        """How much the other end has not taken yet, beyond what the kernel holds."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(
        self,
        kind: IntEnum,
        fields: Mapping[str, Json] | None = None,
        *,
        body: bytes | memoryview = b"",
    ) -> None:
        """Sends one frame, or nothing once the link has ended; never waits."""
        if self._has_ended or self._transport is None:
            return
        start = pack(kind, fields or {}, len(body))
        if len(body) <= _COPIED_BYTES:
            # One system call, and one time that the other end wakes up: a query's latency is made
            # of little else.
            self._transport.write(b"".join((start, body)))
        else:
            self._transport.write(start)
            self._transport.write(body)

    async def drained(self) -> None:
        """Returns when the other end has taken most of what was sent, or the link has ended."""
        while self._flowing is not None and not self._has_ended:
            await asyncio.wait({self._flowing})

    def close(self) -> None:
        """Ends the link at once, whatever is unsent. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        # What a stream socket has; but of another class where the caller's loop is another.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        del sizehint
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        try:
            for frame in self._reader.take(nbytes):
                if self._broken is None and not self._has_ended:
                    self._on_frame(frame)
        except FrameError as error:
            self._broken = error
            self.close()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`; half a link is none."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        del exc
        self._has_ended = True
        self.resume_writing()
        self._on_end(self._broken)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._flowing = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._flowing is not None:
            self._flowing.set_result(None)
            self._flowing = None


async def open_link(
    end: socket.socket,
    *,
    bounds: KindBounds,
    on_frame: Callable[[Frame], None],
    on_end: Callable[[FrameError | None], None],
) -> Link:
    """Returns a link over `end`, which it takes over; see `Link`."""
    end.settimeout(0)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(
        lambda: Link(bounds=bounds, on_frame=on_frame, on_end=on_end), sock=end
    )
    return link
