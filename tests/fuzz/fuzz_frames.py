"""Frames between the worker and the REPL process, cut anywhere, from a process that lies.

Holds: however the bytes are cut on their way, the same frames come out, and then the same error;
nothing is raised but what is documented; a frame over the cap of its kind is refused from its first
five bytes; what comes out is what went in, and a long field is text.
"""

from __future__ import annotations

import socket
from typing import cast

from support.fuzz_data import FuzzData

from sandbox_image.repl.channel import (
    CLAIMS,
    BadFrameError,
    ChannelClosedError,
    Frame,
    FrameKind,
    FrameReader,
    encode,
)

_HEADER_BYTES = 5
TOKENS = (
    b"\0\0\0\2\x10{}",
    b"\0\0\0\0\x11",
    b"\2\xff\xff\xff\x10",
    b"\3\0\0\1\x10",
    b'{"a":',
    b"[[[",
    b'\0\0\0\x11\x10{"sizes":[2]}\0ab',
    b'\0\0\0\x13\x11{"sizes":[2,0]}\0ab',
)


class Pieces:
    """A connection that hands over what it was given, piece by piece, and then is closed."""

    def __init__(self, pieces: list[bytes]) -> None:
        """Takes the pieces; an empty one would be the end."""
        self._pieces = [piece for piece in pieces if piece]

    def recvmsg(
        self, _size: int, _ancillary_size: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        """Returns the next piece."""
        return (self._pieces.pop(0) if self._pieces else b""), [], 0, None


def read_all(pieces: list[bytes]) -> tuple[list[Frame], bool]:
    """Returns the frames, and whether what came then was no frame."""
    reader = FrameReader(cast("socket.socket", Pieces(pieces)), most=CLAIMS)
    frames: list[Frame] = []
    try:
        while True:
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
            reader.receive()
    except ChannelClosedError:
        return frames, False
    except BadFrameError:
        return frames, True


def TestOneInput(data: bytes) -> None:
    """Reads the same bytes whole and in pieces."""
    fuzz = FuzzData(data)
    cuts = [fuzz.integer(1, 40) for _ in range(fuzz.integer(0, 12))]
    stream = fuzz.rest()
    pieces, at = [], 0
    for size_bytes in cuts:
        pieces.append(stream[at : at + size_bytes])
        at += size_bytes
    frames, is_bad = read_all([stream])
    in_pieces, is_bad_in_pieces = read_all([*pieces, stream[at:]])
    assert [(f.kind, f.payload) for f in in_pieces] == [(f.kind, f.payload) for f in frames]
    assert is_bad == is_bad_in_pieces
    read = b"".join(encode(frame.kind, bytes(frame.payload)) for frame in frames)
    assert stream.startswith(read)
    rest = stream[len(read) :]
    length = int.from_bytes(rest[:4]) if len(rest) >= _HEADER_BYTES else 0
    # What is left is no whole frame: it is too short, or it is refused.
    assert is_bad or len(rest) < _HEADER_BYTES + length
    assert is_bad or len(rest) < _HEADER_BYTES or length <= CLAIMS[FrameKind(rest[4])]
    for frame in frames:
        assert len(frame.payload) <= CLAIMS[frame.kind]
        check_claim(frame)


def check_claim(frame: Frame) -> None:
    """Reads what the frame claims: an object, whose texts are as long as what was sent."""
    try:
        claim = frame.claim()
    except BadFrameError:
        return
    assert isinstance(claim, dict)
    if b"\0" in frame.payload:
        long_field = claim["prompts" if frame.kind is FrameKind.QUERY else "content"]
        texts = [long_field] if isinstance(long_field, str) else long_field
        end = frame.payload.index(b"\0")
        assert "".join(texts).encode() == frame.payload[end + 1 :]
