"""The rules of frames that concern a whole connection: settings, pings, windows, goodbyes.

Without it a client could have the server answer frames that cost the client nothing
(CVE-2019-9512, CVE-2019-9515), or turn windows for ever (CVE-2019-9511).
"""

from __future__ import annotations

from orchestrator.broker.http2_frames import ACK, DATA, FrameHeader
from orchestrator.broker.order import ExcessError
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.broker.token_bucket import TokenBucket
from orchestrator.errors import ProtocolViolationError

#: A connection's window at first, and at most (RFC 9113, 6.9).
_FIRST_WINDOW_BYTES = 2**16 - 1
_MAX_WINDOW_BYTES = 2**31 - 1


class ControlPolice:
    """Follows what both sides say about the connection itself."""

    def __init__(self, rules: PeerRules, *, now_s: float) -> None:
        """Begins with nothing said."""
        self._rules = rules
        self._unanswered_settings = 0
        self._unanswered_pings = 0
        self._window_updates_left = rules.window_updates
        self._window_bytes = _FIRST_WINDOW_BYTES
        self._increment = bytearray()
        self._goaway_count = 0
        self._settings = TokenBucket(rules.settings, now_s=now_s)
        self._pings = TokenBucket(rules.pings, now_s=now_s)

    @property
    def has_said_goodbye(self) -> bool:
        """Whether the client has announced that it will close the connection."""
        return self._goaway_count > 0

    def settings(self, header: FrameHeader, now_s: float) -> None:
        """Takes a SETTINGS frame."""
        if header.flags & ACK:
            self._unanswered_settings -= 1
            if self._unanswered_settings < 0 or header.length:
                raise ProtocolViolationError("settings are acknowledged once, and without a word")
            return
        if header.length > self._rules.settings_bytes or header.length % 6:
            raise ExcessError(
                f"a SETTINGS frame has at most {self._rules.settings_bytes} bytes, six a setting:"
                f" this one has {header.length:,}"
            )
        if self._settings.take(1, now_s=now_s):
            raise ExcessError(f"too many SETTINGS frames: {self._settings.allowance}")

    def ping(self, header: FrameHeader, now_s: float) -> None:
        """Takes a PING frame."""
        if header.flags & ACK:
            self._unanswered_pings -= 1
            if self._unanswered_pings < 0:
                raise ProtocolViolationError("a PING is answered once")
        elif self._pings.take(1, now_s=now_s):
            raise ExcessError(f"too many PING frames: {self._pings.allowance}")

    def window_update(self) -> None:
        """Takes a WINDOW_UPDATE frame."""
        self._window_updates_left -= 1
        if self._window_updates_left < 0:
            raise ExcessError(
                f"at most {self._rules.window_updates_per_frame} WINDOW_UPDATE frames come for each"
                f" stream and each frame of the server, and {self._rules.window_updates} before"
            )

    def increment(self, header: FrameHeader, payload: memoryview, *, is_last: bool) -> None:
        """Takes the four bytes of a WINDOW_UPDATE frame, as they come."""
        self._increment += payload
        if not is_last:
            return
        room_bytes = int.from_bytes(self._increment) & _MAX_WINDOW_BYTES
        self._increment.clear()
        if not room_bytes:
            raise ProtocolViolationError("a WINDOW_UPDATE frame makes room for a byte at least")
        if not header.stream_id:
            self._window_bytes += room_bytes
            if self._window_bytes > _MAX_WINDOW_BYTES:
                raise ProtocolViolationError(
                    f"a window has at most {_MAX_WINDOW_BYTES:,} bytes, not {self._window_bytes:,}"
                )

    def goaway(self, header: FrameHeader, now_s: float) -> None:
        """Takes a GOAWAY frame."""
        del now_s
        self._goaway_count += 1
        if self._goaway_count > self._rules.goaways or header.length > self._rules.goaway_bytes:
            raise ExcessError(
                f"a client says goodbye at most {self._rules.goaways} times, in at most"
                f" {self._rules.goaway_bytes:,} bytes"
            )

    def settings_of_server(self, header: FrameHeader) -> None:
        """Notes a SETTINGS frame that the client is to acknowledge."""
        self._unanswered_settings += not header.flags & ACK

    def ping_of_server(self, header: FrameHeader) -> None:
        """Notes a PING frame that the client is to answer."""
        self._unanswered_pings += not header.flags & ACK

    def content_of_server(self, header: FrameHeader) -> None:
        """Notes a frame that the client makes room for again."""
        if header.kind == DATA:
            self._window_bytes -= header.length
        self.earn_window_updates()

    def earn_window_updates(self) -> None:
        """Notes that the client has a reason to make room: for an answer that may come, or came."""
        self._window_updates_left += self._rules.window_updates_per_frame
