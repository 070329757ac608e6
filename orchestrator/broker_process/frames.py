"""How the orchestrator and a broker's process talk: small headers of JSON, and bytes beside them.

Without it what comes out of the process that parses hostile bytes would be parsed by the same kind
of parser again, now beside the keys. A frame is nine bytes (its kind, the size of its header, the
size of its body), a JSON object, and bytes. Each kind has bounds, and nothing is allocated for a
frame before it has been held against them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from orchestrator.broker_process.fields import Fields, FrameError
from orchestrator.domain import Json

_PREFIX = struct.Struct("=BII")
# Not ASCII only: its escapes would make a name six times as long, and its bound with it.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
#: Holds several small frames, and no large one.
_SCRATCH_BYTES = 64 * 2**10


class Told(IntEnum):
    """What the orchestrator says."""

    SET_UP = 1  # limits and walls; first, and once
    AWAIT_WORKER = 2
    BIND = 3  # the head of a context; its pieces follow
    PIECE = 4
    RUN = 5
    CANCEL = 6  # the call that is under way
    ANSWERS = 7
    PING = 8
    CLOSE = 9  # the last
    BEGIN_RUN = 10
    STOP = 11  # the cell that runs, whose result is wanted
    BIND_FILE = 12  # the head of a context that lies beside the socket


class Said(IntEnum):
    """What a broker's process says. Untrusted once it is listening."""

    LISTENING = 101  # first, and once
    ATTACHED = 102
    NOT_ATTACHED = 103
    PIECE_TAKEN = 104
    BOUND = 105
    OUTPUT = 106
    RESULT = 107
    CANCELLED = 108
    QUERY = 109
    QUERY_CANCELLED = 110
    ENDED = 111
    LOG = 112
    PONG = 113


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How large one kind of frame may be."""

    header_bytes: int
    body_bytes: int = 0


#: Every kind a reader takes; any other is refused.
KindBounds: TypeAlias = Mapping[int, Bounds]

#: What a broker's process takes. It trusts the orchestrator: these only bound mistakes.
TOLD_BOUNDS: Final[KindBounds] = dict.fromkeys(
    Told, Bounds(header_bytes=16 * 2**20, body_bytes=64 * 2**20)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as it was read: within its bounds, its fields unchecked."""

    kind: int
    fields: Fields
    body: memoryview


def pack(kind: IntEnum, fields: Mapping[str, Json], body_bytes: int) -> bytes:
    """Returns what comes before a frame's body."""
    header = _ENCODER.encode(fields).encode() if fields else b"{}"
    return _PREFIX.pack(kind, len(header), body_bytes) + header


class FrameReader:
    """Makes frames of bytes as they come. Reads into one buffer; copies large bodies never."""

    def __init__(self, bounds: KindBounds) -> None:
        """Begins between two frames."""
        self._bounds = bounds
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._scratch_end = 0
        # A frame that does not fit in the scratch buffer, once its size is known.
        self._large: bytearray | None = None
        self._large_end = 0

    def room(self) -> memoryview:
        """Returns where the next bytes are to be put; never empty."""
        if self._large is not None:
            return memoryview(self._large)[self._large_end :]
        return memoryview(self._scratch)[self._scratch_end :]

    def take(self, count: int) -> list[Frame]:
        """Takes note of `count` bytes put into `room`, and returns the frames they complete.

        Raises:
            FrameError: They are no frame, or one out of its bounds. Nothing more can be read.
        """
        if self._large is not None:
            self._large_end += count
            if self._large_end < len(self._large):
                return []
            whole, self._large = memoryview(self._large), None
            return [_read(whole)]
        self._scratch_end += count
        frames: list[Frame] = []
        start = 0
        while (size := self._size_at(start)) is not None:
            if start + size > self._scratch_end:
                break
            # A copy: the scratch buffer is written to again while the frame is still in use.
            frames.append(_read(memoryview(bytes(self._scratch[start : start + size]))))
            start += size
        rest = self._scratch[start : self._scratch_end]
        if size is not None and size > _SCRATCH_BYTES:
            self._large = bytearray(size)
            self._large[: len(rest)] = rest
            self._large_end = len(rest)
            self._scratch_end = 0
        else:
            self._scratch[: len(rest)] = rest
            self._scratch_end = len(rest)
        return frames

    def _size_at(self, start: int) -> int | None:
        """Returns the size of the frame that begins at `start`, if so much of it is there."""
        if self._scratch_end - start < _PREFIX.size:
            return None
        kind, header_bytes, body_bytes = _PREFIX.unpack_from(self._scratch, start)
        bounds = self._bounds.get(kind)
        if bounds is None:
            raise FrameError(f"a frame is of a kind that is known, not {kind}")
        if header_bytes > bounds.header_bytes or body_bytes > bounds.body_bytes:
            raise FrameError(
                f"a frame of kind {kind} has at most {bounds.header_bytes:,} and"
                f" {bounds.body_bytes:,} bytes, not {header_bytes:,} and {body_bytes:,}"
            )
        return _PREFIX.size + int(header_bytes) + int(body_bytes)


def _read(whole: memoryview) -> Frame:
    kind, header_bytes, _ = _PREFIX.unpack_from(whole)
    body_start = _PREFIX.size + header_bytes
    try:
        header = json.loads(bytes(whole[_PREFIX.size : body_start]))
    except (ValueError, RecursionError):
        raise FrameError(f"the header of a frame of kind {kind} is JSON") from None
    return Frame(kind=kind, fields=Fields(header), body=whole[body_start:])
