"""Passes the bytes of one connection on, both ways, each after the police has heard them.

Without it a connection would have to end in our own HTTP/2 server, or go uninspected to gRPC's.
Works on bare sockets: what a reader does not take stays with the kernel and its writer, and never
more than one read is held for each direction.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

from orchestrator.broker.connection_police import ConnectionPolice
from orchestrator.broker.http2_frames import PREFACE
from orchestrator.errors import ProtocolViolationError

_log = logging.getLogger(__name__)

#: As much as a Unix socket holds by default (net.core.wmem_default), so one read empties it.
_READ_BYTES = 256 * 2**10

_shared = threading.local()


def _read_buffer() -> memoryview:
    """Returns the buffer that all relays of a thread read into.

    One for all, because a read is heard and passed on before anything else happens; what could not
    be passed on is copied. An idle connection so holds nothing.
    """
    if not hasattr(_shared, "buffer"):
        _shared.buffer = memoryview(bytearray(_READ_BYTES))
    buffer: memoryview = _shared.buffer
    return buffer


class Lane:
    """One direction of a connection."""

    def __init__(
        self,
        *,
        source: socket.socket,
        sink: socket.socket,
        hear: Callable[[memoryview], float],
        on_end: Callable[[], None],
        on_violation: Callable[[ProtocolViolationError], None],
    ) -> None:
        """Begins to read.

        Args:
            source: Where bytes come from; not closed here.
            sink: Where they go to; not closed here.
            hear: Takes them first; returns for how many seconds no more is to be read.
            on_end: Called when the source has closed, and all it sent has been passed on.
            on_violation: Called when `hear` raises; the bytes are not passed on.
        """
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._sink = sink
        self._hear = hear
        self._on_end = on_end
        self._on_violation = on_violation
        self._unsent = b""
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(source, self._read)

    @property
    def is_reading(self) -> bool:
        """Whether it is the source's own silence that keeps bytes from coming."""
        return not self._unsent and self._pause is None

    def stop(self) -> None:
        """Neither reads nor writes any more. Idempotent."""
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        if self._pause is not None:
            self._pause.cancel()

    def _read(self) -> None:
        data = _read_from(self._source, _READ_BYTES)
        if data is None:
            return
        if not data:
            self._on_end()
            return
        try:
            pause_s = self._hear(data)
        except ProtocolViolationError as violation:
            self._on_violation(violation)
            return
        sent_bytes = self._send(data)
        if sent_bytes < len(data):
            self._unsent = bytes(data[sent_bytes:])
            self._loop.add_writer(self._sink, self._flush)
        if pause_s:
            self._pause = self._loop.call_later(pause_s, self._end_pause)
        if not self.is_reading:
            self._loop.remove_reader(self._source)

    def _send(self, data: memoryview | bytes) -> int:
        """Returns how many bytes the kernel took."""
        try:
            return self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            # The sink has closed. Its other lane reads what it said last, and then its end.
            return len(data)

    def _flush(self) -> None:
        self._unsent = self._unsent[self._send(self._unsent) :]
        if not self._unsent:
            self._loop.remove_writer(self._sink)
            self._read_on()

    def _end_pause(self) -> None:
        self._pause = None
        self._read_on()

    def _read_on(self) -> None:
        if self.is_reading:
            self._loop.add_reader(self._source, self._read)


class Relay:
    """One connection: the sandbox's end, the server's end, and what passes between them."""

    def __init__(
        self,
        *,
        client: socket.socket,
        dial: Callable[[], socket.socket],
        police: ConnectionPolice,
        look_s: float,
        on_end: Callable[[Relay, ProtocolViolationError | None], None],
    ) -> None:
        """Takes over `client` and waits for its preface.

        Args:
            client: The sandbox's end; does not block.
            dial: Connects to the server, once the client has shown that it speaks HTTP/2.
            police: Hears both directions.
            look_s: How often the police looks.
            on_end: Called once, when both ends are closed, with the broken rule if one was. Not
                called after `close`.
        """
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._server: socket.socket | None = None
        self._dial = dial
        self._police = police
        self._look_s = look_s
        self._on_end = on_end
        self._lanes: list[Lane] = []
        self._loop.add_reader(client, self._read_preface)
        self._next_look = self._loop.call_later(look_s, self._look)

    def close(self) -> None:
        """Closes both ends at once. Idempotent."""
        self._next_look.cancel()
        self._loop.remove_reader(self._client)
        for lane in self._lanes:
            lane.stop()
        self._client.close()
        if self._server is not None:
            self._server.close()

    def _read_preface(self) -> None:
        """Reads what is missing of the preface, and not a byte more: nothing has to be kept."""
        data = _read_from(self._client, self._police.missing_preface_bytes)
        if data is None:
            return
        if not data:
            self._end()
            return
        try:
            self._police.hear_client(data)
            if not self._police.missing_preface_bytes:
                self._begin(self._dial())
        except ProtocolViolationError as violation:
            self._end(violation)
        except OSError:
            _log.exception("the server of a sandbox's socket could not be dialled")
            self._end()

    def _begin(self, server: socket.socket) -> None:
        self._server = server
        server.send(PREFACE)  # 24 bytes into an empty buffer: taken whole
        self._loop.remove_reader(self._client)
        self._lanes = [
            Lane(
                source=self._client,
                sink=server,
                hear=self._police.hear_client,
                on_end=self._end,
                on_violation=self._end,
            ),
            Lane(
                source=server,
                sink=self._client,
                hear=self._hear_server,
                on_end=self._end_of_server,
                on_violation=self._end,
            ),
        ]

    def _hear_server(self, data: memoryview) -> float:
        self._police.hear_server(data)
        return 0.0

    def _end_of_server(self) -> None:
        try:
            self._police.server_hung_up()
        except ProtocolViolationError as violation:
            self._end(violation)
        else:
            self._end()

    def _look(self) -> None:
        self._next_look = self._loop.call_later(self._look_s, self._look)
        if self._lanes and not self._lanes[0].is_reading:
            return  # the client is held up from this side
        try:
            self._police.look()
        except ProtocolViolationError as violation:
            self._end(violation)

    def _end(self, violation: ProtocolViolationError | None = None) -> None:
        self.close()
        self._on_end(self, violation)


def _read_from(source: socket.socket, size_bytes: int) -> memoryview | None:
    """Returns what has come, into the shared buffer; nothing at the end, None before there is any.

    A connection that was reset has ended.
    """
    buffer = _read_buffer()
    try:
        return buffer[: source.recv_into(buffer[:size_bytes])]
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return buffer[:0]
