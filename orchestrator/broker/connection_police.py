"""Counts what a sandbox's client does to one HTTP/2 connection, and says which rule it breaks.

Without it a client could keep the gRPC server busy for ever with what HTTP/2 allows and no worker
sends (docs/adr/0013 has the figures). Pure: bytes and looks go in, nothing or an error comes out.
Frame headers, window updates and the five bytes before a message are all that is read.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.broker.control_police import ControlPolice
from orchestrator.broker.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    FrameHeader,
    FrameReader,
)
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.broker.stream_police import StreamPolice
from orchestrator.broker.token_bucket import TokenBucket
from orchestrator.errors import ProtocolViolationError

#: Lengths that RFC 9113, 6 fixes.
_FIXED_LENGTHS = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
#: Kinds that concern the connection, and name no stream.
_STREAMLESS = frozenset({SETTINGS, PING, GOAWAY})
_NAMES = {
    RST_STREAM: "RST_STREAM",
    PING: "PING",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    SETTINGS: "SETTINGS",
    GOAWAY: "GOAWAY",
}
#: Of a server's GOAWAY: the last stream it took and a code, then words.
_GOAWAY_FIXED_BYTES = 8
_GOAWAY_KEPT_BYTES = _GOAWAY_FIXED_BYTES + 120


class ConnectionPolice:
    """Hears both directions of one connection, each before it is passed on."""

    def __init__(self, rules: PeerRules, *, clock: Callable[[], float]) -> None:
        """Begins before the preface; `clock` counts seconds and never goes backwards."""
        now_s = clock()
        self._rules = rules
        self._clock = clock
        self._preface_bytes = 0
        self._is_greeted = False
        self._look_count = 0
        self._from_client = FrameReader()
        self._from_server = FrameReader()
        self._server_goaway = bytearray()
        self._inflow = TokenBucket(rules.inflow_bytes, now_s=now_s)
        self._streams = StreamPolice(rules, now_s=now_s)
        self._control = ControlPolice(rules, now_s=now_s)
        self._rule_of: dict[int, Callable[[FrameHeader, float], None]] = {
            DATA: self._streams.data,
            HEADERS: self._begin_stream,
            CONTINUATION: self._streams.continuation,
            RST_STREAM: self._streams.reset,
            SETTINGS: self._control.settings,
            PING: self._control.ping,
            GOAWAY: self._control.goaway,
            WINDOW_UPDATE: self._window_update,
        }

    @property
    def missing_preface_bytes(self) -> int:
        """How much of the preface is still to come; 0 once the client speaks HTTP/2."""
        return len(PREFACE) - self._preface_bytes

    def hear_client(self, data: memoryview) -> float:
        """Takes the client's next bytes, before they are passed on.

        Returns:
            For how many seconds no more is to be read, in fairness to other sandboxes.

        Raises:
            ProtocolViolationError: They break a rule. Nothing of them is to be passed on.
            ExcessError: They are more of something than any worker sends.
        """
        now_s = self._clock()
        size_bytes = len(data)
        if self.missing_preface_bytes:
            data = self._read_preface(data)
        for header, payload, is_first, is_last in self._from_client.read(data):
            if is_first:
                self._begin_frame(header, now_s)
            if header.kind == DATA:
                if payload:
                    self._streams.payload(header.stream_id, payload, now_s)
                if is_last:
                    self._streams.end_of_data(header)
            elif header.kind == WINDOW_UPDATE:
                self._control.increment(header, payload, is_last=is_last)
            if is_last and not self._streams.is_in_header_block:
                self._look_count = 0
        missing = self._inflow.take(size_bytes, now_s=now_s)
        return self._inflow.wait_s(missing) if missing else 0.0

    def hear_server(self, data: memoryview) -> None:
        """Takes the server's next bytes, which are trusted, and notes what follows from them.

        Raises:
            ExcessError: The client had more of its streams given up than any worker has.
            ProtocolViolationError: The server gives the connection up, because of the client.
        """
        for header, payload, is_first, is_last in self._from_server.read(data):
            if is_first:
                self._begin_server_frame(header)
            if header.kind == GOAWAY:
                self._server_goaway += payload[: _GOAWAY_KEPT_BYTES - len(self._server_goaway)]
                if is_last:
                    self._read_server_goaway()

    def server_hung_up(self) -> None:
        """Says what it means that the server closed a connection that nobody told it to close.

        Raises:
            ProtocolViolationError: The client had not said goodbye: gRPC does so where a client
                breaks HTTP/2.
        """
        if not self._control.has_said_goodbye:
            raise ProtocolViolationError("the bytes of a connection are HTTP/2: gRPC gave it up")

    def look(self) -> None:
        """Is to be called every `PeerRules.look_s` seconds, but while the client is held up.

        Raises:
            ProtocolViolationError: What was begun has not been finished for too many looks.
        """
        rules = self._rules
        if not self._is_greeted:
            self._look_count += 1
            if self._look_count > rules.preface_looks:
                raise ProtocolViolationError(
                    "a connection begins with HTTP/2's preface and settings: they had not come"
                    f" {rules.preface_looks * rules.look_s:g} s after it was made"
                )
            return
        if self._streams.is_in_header_block or not self._from_client.is_between_frames:
            self._look_count += 1
        messages = self._streams.unfinished_messages()
        for message in messages:
            message.look_count += 1
        if max([self._look_count, *(m.look_count for m in messages)]) > rules.unfinished_looks:
            raise ProtocolViolationError(
                "a frame, a header block or a message that was begun is finished within"
                f" {rules.unfinished_looks * rules.look_s:g} s"
            )

    def _read_preface(self, data: memoryview) -> memoryview:
        expected = PREFACE[self._preface_bytes : self._preface_bytes + len(data)]
        if data[: len(expected)] != expected:
            raise ProtocolViolationError("a connection begins with HTTP/2's preface")
        self._preface_bytes += len(expected)
        return data[len(expected) :]

    def _begin_frame(self, header: FrameHeader, now_s: float) -> None:
        kind, flags, stream_id, length = header
        if self._streams.is_in_header_block and kind != CONTINUATION:
            raise ProtocolViolationError("nothing comes between the frames of a header block")
        if not self._is_greeted:
            if kind != SETTINGS or flags & ACK:
                raise ProtocolViolationError("the first frame of a connection is its settings")
            self._is_greeted = True
        check = self._rule_of.get(kind)
        if check is None:
            raise ProtocolViolationError(f"gRPC's client sends no frames of kind {kind}")
        if length != _FIXED_LENGTHS.get(kind, length):
            raise ProtocolViolationError(
                f"a {_NAMES[kind]} frame has {_FIXED_LENGTHS[kind]} bytes, this one has {length:,}"
            )
        if stream_id and kind in _STREAMLESS:
            raise ProtocolViolationError(f"a {_NAMES[kind]} frame names no stream")
        check(header, now_s)

    def _begin_stream(self, header: FrameHeader, now_s: float) -> None:
        self._streams.headers(header, now_s)
        self._control.earn_window_updates()

    def _window_update(self, header: FrameHeader, now_s: float) -> None:
        del now_s
        if header.stream_id:
            self._streams.window_update(header)
        self._control.window_update()

    def _begin_server_frame(self, header: FrameHeader) -> None:
        kind = header.kind
        if kind in (DATA, HEADERS):
            self._control.content_of_server(header)
            if kind == DATA:
                self._streams.data_of_server()
            if header.flags & END_STREAM:
                self._streams.end_of_server(header)
        elif kind == RST_STREAM:
            self._streams.reset_of_server(header, self._clock())
        elif kind == SETTINGS:
            self._control.settings_of_server(header)
        elif kind == PING:
            self._control.ping_of_server(header)

    def _read_server_goaway(self) -> None:
        code = int.from_bytes(self._server_goaway[4:_GOAWAY_FIXED_BYTES])
        words = self._server_goaway[_GOAWAY_FIXED_BYTES:].decode("ascii", "replace")
        self._server_goaway.clear()
        if code:
            raise ProtocolViolationError(
                f"the bytes of a connection are HTTP/2: gRPC gave it up with error {code},"
                f" {''.join(c if c.isprintable() else '?' for c in words)!r}"
            )
