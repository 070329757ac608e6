"""Frames between the worker and the REPL process.

Without it a cell that dies in mid-message would leave the worker guessing where the next one
starts. One frame is four bytes of length, one byte of kind, and the payload: a JSON object, or raw
bytes for a piece of a context. Nothing is ever pickled.

The worker treats what it reads here as hostile: sizes are bounded before anything is kept, and a
frame that cannot be read ends the REPL process.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from enum import IntEnum
from typing import Any, TypeAlias

_HEADER = struct.Struct(">IB")
_RECEIVE_BYTES = 256 * 1024
#: Descriptors one process may have in flight; each kind of frame carries one at most.
_MAX_DESCRIPTORS = 4
#: Largest frame the worker accepts: one batch of prompts (see `orchestrator` limits), with slack.
MAX_FRAME_BYTES = 48 * 2**20

JsonObject: TypeAlias = dict[str, Any]


class FrameKind(IntEnum):
    """What a frame is. The first group goes to the REPL process, the second comes from it."""

    CONFIGURE = 1
    CONTEXT_START = 2
    CONTEXT_DATA = 3  # raw bytes
    CONTEXT_END = 4
    RUN = 5
    REPLY = 6
    LEAVE_SPARE = 7
    RESUME = 8

    RESULT = 16
    QUERY = 17
    SPARE = 18  # carries one descriptor
    BOUND = 19  # the context that was sent last is a value now
    CONFINED = 20  # once, before anything else: what the process has given up


class ChannelClosedError(Exception):
    """The other end is gone."""


class BadFrameError(Exception):
    """The other end sent what is not a frame."""


class Frame:
    """One message."""

    __slots__ = ("kind", "payload")

    def __init__(self, kind: FrameKind, payload: bytes) -> None:
        """Keeps the parts as received."""
        self.kind = kind
        self.payload = payload

    def json(self, *, kind: FrameKind | None = None) -> JsonObject:
        """Reads the payload as a JSON object.

        Raises:
            BadFrameError: It is not one, or the frame is not of the `kind` asked for.
        """
        if kind is not None and self.kind is not kind:
            raise BadFrameError(f"{self.kind.name} where {kind.name} was due")
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise BadFrameError(f"{self.kind.name}: not JSON") from error
        if not isinstance(value, dict):
            raise BadFrameError(f"{self.kind.name}: not an object")
        return value


def encode(kind: FrameKind, payload: bytes | JsonObject) -> bytes:
    """Returns the bytes of one frame."""
    if isinstance(payload, dict):
        payload = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(
            # A name or a message of a cell may hold lone surrogates; they must not stop a result.
            errors="replace"
        )
    return _HEADER.pack(len(payload), kind) + payload


class FrameReader:
    """Cuts a byte stream into frames, and keeps the descriptors that came with it.

    Holds at most one frame and one receive buffer. Never blocks by itself: `receive` makes exactly
    one system call, so that an interrupt can only fall before or after it.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Reads from `connection`, which stays the caller's."""
        self._connection = connection
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self) -> None:
        """Takes what is there.

        Raises:
            ChannelClosedError: The other end is gone.
            BadFrameError: It sent more descriptors than any frame needs.
            BlockingIOError: Nothing is there, and the connection does not block.
        """
        try:
            data, ancillary, _, _ = self._connection.recvmsg(
                _RECEIVE_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
            )
        except BlockingIOError:
            raise
        except OSError as error:
            # Not ConnectionError alone: what a cell sent in place of a spare's channel may be a
            # socket that was never connected.
            raise ChannelClosedError from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                self._descriptors.extend(descriptors)
        if len(self._descriptors) > _MAX_DESCRIPTORS:
            raise BadFrameError("too many descriptors")
        if not data:
            raise ChannelClosedError
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Returns the next whole frame, or None until more has been received.

        Raises:
            BadFrameError: The length is over the limit or the kind is unknown.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        length, kind = _HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise BadFrameError(f"a frame of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[_HEADER.size : end])
        del self._buffer[:end]
        try:
            return Frame(FrameKind(kind), payload)
        except ValueError as error:
            raise BadFrameError(f"a frame of unknown kind {kind}") from error

    def close(self) -> None:
        """Closes the descriptors that nobody has taken; the connection stays the caller's."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def take_descriptor(self) -> int:
        """Returns the next descriptor that came with the stream; the caller owns it.

        Raises:
            BadFrameError: None has come.
        """
        if not self._descriptors:
            raise BadFrameError("a descriptor is missing")
        return self._descriptors.popleft()
