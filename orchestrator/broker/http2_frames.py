"""Cuts a byte stream into HTTP/2 frames, without keeping what is in them.

Without it nobody could count what a peer sends: a frame may come in a thousand pieces, and a piece
may hold a thousand frames. Only the nine bytes before each payload are looked at (RFC 9113, 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, TypeAlias

#: What a client says before its first frame (RFC 9113, 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEADER = Struct(">BHBBL")  # 24 bits of length, kind, flags, stream
_HEADER_BYTES = _HEADER.size
_STREAM_ID_MASK = 0x7FFFFFFF  # the bit above is reserved, and ignored when received


#: The kinds of frames there are (RFC 9113, 6). Plain numbers: a peer may send any, and a member of
#: an enumeration takes as long to look up as a frame header to read.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
#: Flags, whose meaning depends on the kind.
END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4


class FrameHeader(NamedTuple):
    """What stands before a payload."""

    kind: int
    flags: int
    stream_id: int
    length: int


#: A piece of one frame, as much of it as has come at once: the frame's header, the same for all of
#: its pieces; the next bytes of its payload, valid until the next call only; whether the header has
#: just been completed; whether this ends the frame.
Fragment: TypeAlias = tuple[FrameHeader, memoryview, bool, bool]


class FrameReader:
    """Reads one direction of a connection. Holds nine bytes at most, whatever comes."""

    def __init__(self) -> None:
        """Begins before a frame."""
        self._partial = bytearray()
        self._header: FrameHeader | None = None
        self._missing_bytes = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether every frame that was begun has come whole."""
        return self._header is None and not self._partial

    def read(self, data: memoryview) -> Iterator[Fragment]:
        """Yields what `data` holds of frames. To be read to its end before the next call."""
        position, end = 0, len(data)
        while position < end:
            header, is_first = self._header, False
            if header is None:
                if self._partial or end - position < _HEADER_BYTES:
                    missing = _HEADER_BYTES - len(self._partial)
                    self._partial += data[position : position + missing]
                    position = min(position + missing, end)
                    if len(self._partial) < _HEADER_BYTES:
                        return
                    header = _read_header(self._partial, 0)
                    self._partial.clear()
                else:
                    header = _read_header(data, position)
                    position += _HEADER_BYTES
                self._missing_bytes, is_first = header.length, True
            stop = min(position + self._missing_bytes, end)
            self._missing_bytes -= stop - position
            is_last = not self._missing_bytes
            self._header = None if is_last else header
            yield header, data[position:stop], is_first, is_last
            position = stop


def _read_header(data: memoryview | bytearray, at: int) -> FrameHeader:
    high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
    return FrameHeader(kind, flags, stream_id & _STREAM_ID_MASK, high << 16 | low)
