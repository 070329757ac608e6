"""The messages of one stream, as far as the five bytes before each announce them.

Without it gRPC itself would cut off a message that is too large or packed, and the host could not
tell an attack from a worker that went away.
"""

from __future__ import annotations

from orchestrator.broker.order import ExcessError
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.errors import ProtocolViolationError

#: One byte that says whether the message is packed, four of length (gRPC over HTTP/2).
_PREFIX_BYTES = 5


class MessageReader:
    """Reads one stream's DATA. Holds five bytes at most, and nothing of a message."""

    def __init__(self, rules: PeerRules) -> None:
        """Begins between messages."""
        self._rules = rules
        self._prefix = bytearray()
        self._missing_bytes = 0
        self._frame_count = 0
        self._frame_limit = 0
        #: At how many looks in a row the message that has begun was unfinished.
        self.look_count = 0

    @property
    def is_between_messages(self) -> bool:
        """Whether every message that was begun has come whole."""
        return not self._missing_bytes and not self._prefix

    def begin_frame(self) -> None:
        """Counts a frame that goes on with a message.

        Raises:
            ExcessError: It is one more than a message of that length comes in.
        """
        if self.is_between_messages:
            return
        self._frame_count += 1
        if self._frame_count > self._frame_limit:
            raise ExcessError(
                f"a message comes in few pieces: this one in more than {self._frame_limit:,}"
            )

    def read(self, payload: memoryview) -> int:
        """Reads the next bytes and returns how many messages began in them.

        Raises:
            ExcessError: A message is longer than any may be.
            ProtocolViolationError: A message is packed.
        """
        begun_count, position, end = 0, 0, len(payload)
        while position < end:
            if self._missing_bytes:
                taken = min(self._missing_bytes, end - position)
                self._missing_bytes -= taken
                position += taken
                continue
            if not self._prefix:
                begun_count += 1
                self._frame_count, self._frame_limit = 1, self._rules.message_frames
                self.look_count = 0
            missing = _PREFIX_BYTES - len(self._prefix)
            self._prefix += payload[position : position + missing]
            position += min(missing, end - position)
            if len(self._prefix) == _PREFIX_BYTES:
                self._begin_message(self._prefix[0], int.from_bytes(self._prefix[1:]))
                self._prefix.clear()
        return begun_count

    def _begin_message(self, packing: int, length: int) -> None:
        if packing:
            raise ProtocolViolationError("messages are not compressed")
        if length > self._rules.message_bytes:
            raise ExcessError(
                f"a message has at most {self._rules.message_bytes:,} bytes,"
                f" this one announces {length:,}"
            )
        self._missing_bytes = length
        self._frame_limit += length // self._rules.bytes_per_message_frame
