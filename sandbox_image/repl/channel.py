"""Frames between the worker and the REPL process.

Without it a cell that dies in mid-message would leave the worker guessing where the next one
starts. One frame is four bytes of length, one byte of kind, and the payload: a JSON object, or raw
bytes for a piece of a context. Nothing is ever pickled.

The worker treats what it reads here as hostile: sizes are bounded before anything is kept, and a
frame that cannot be read ends the REPL process. A JSON text can take 24 times its size once it is
read (`[{},{},…]`), so what may be long, a prompt or an answer, follows the JSON as plain text, and
the JSON itself is short. Otherwise a cell could make the worker use up the sandbox's memory.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, TypeAlias

_HEADER = struct.Struct(">IB")
#: Asked for at first, and while more than that keeps coming. What is asked for is allocated: above
#: 128 KiB the C library maps memory for it each time, and gives it back (mallopt(3)).
_RECEIVE_BYTES = 16 * 1024
_MORE_BYTES = 256 * 1024
#: Descriptors one process may have in flight; each kind of frame carries one at most.
_MAX_DESCRIPTORS = 4
#: Largest frame of all: one batch of prompts, which `asking.py` holds to 32 MiB, with its head.
MAX_FRAME_BYTES = 34 * 2**20
#: Of it JSON. An honest process has at most half of it to say: of 200 variables 400 characters, and
#: of an error 6,000, of which each may be an escape of six bytes.
MAX_HEAD_BYTES = 2**20
#: From here on a payload is not copied out of what was received.
_LARGE_BYTES = 64 * 1024

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
    BEGIN_RUN = 9
    CONTEXT_FILE = 10  # carries one descriptor

    RESULT = 16
    QUERY = 17
    SPARE = 18  # carries one descriptor
    BOUND = 19  # the context that was sent last is a value now
    CONFINED = 20  # once, before anything else: what the process has given up


#: The fields of each that may be long: a text or a list of texts. They are sent after the JSON,
#: behind a NUL, which no JSON text holds; "sizes" says how many bytes each text has, and of a query
#: "prompt_count" how many of them are prompts.
_LONG_FIELDS: Final[Mapping[FrameKind, tuple[str, ...]]] = {
    FrameKind.RESULT: ("content",),
    FrameKind.QUERY: ("prompts", "contexts"),
}
#: What the worker takes from a REPL process, and how much of each. An answer fits a message of the
#: contract (4 MiB).
CLAIMS: Final[Mapping[FrameKind, int]] = {
    FrameKind.RESULT: MAX_HEAD_BYTES + 4 * 2**20,
    FrameKind.QUERY: MAX_FRAME_BYTES,
    FrameKind.SPARE: 4096,
    FrameKind.BOUND: 4096,
    FrameKind.CONFINED: 64 * 1024,
}
#: What a REPL process takes from the worker, which it can trust.
COMMANDS: Final[Mapping[FrameKind, int]] = {
    kind: 2**32 - 1 for kind in FrameKind if kind < FrameKind.RESULT
}


class ChannelClosedError(Exception):
    """The other end is gone."""


class BadFrameError(Exception):
    """The other end sent what is not a frame."""


class Frame:
    """One message."""

    __slots__ = ("kind", "payload")

    def __init__(self, kind: FrameKind, payload: bytes | bytearray) -> None:
        """Keeps the parts as received."""
        self.kind = kind
        self.payload = payload

    def json(self) -> JsonObject:
        """Reads a payload of the worker's: a JSON object."""
        return self._object(self.payload)

    def claim(self, *, kind: FrameKind | None = None) -> JsonObject:
        """Reads what a REPL process claims: a short JSON object, its long field put back into it.

        Raises:
            BadFrameError: It is not one, or the frame is not of the `kind` asked for.
        """
        if kind is not None and self.kind is not kind:
            raise BadFrameError(f"{self.kind.name} where {kind.name} was due")
        end = self.payload.find(b"\0", 0, MAX_HEAD_BYTES + 1)
        if end < 0 and len(self.payload) > MAX_HEAD_BYTES:
            raise BadFrameError(f"{self.kind.name}: JSON of more than {MAX_HEAD_BYTES:,} bytes")
        if end < 0:
            return self._object(self.payload)
        value = self._object(self.payload[:end])
        texts = self._texts(value.pop("sizes", None), start=end + 1)
        match self.kind:
            case FrameKind.QUERY:
                count = value.pop("prompt_count", None)
                if type(count) is not int or not 0 <= count <= len(texts):
                    raise BadFrameError(f"{self.kind.name}: {str(count)[:20]} prompts")
                value["prompts"], value["contexts"] = texts[:count], texts[count:]
            case FrameKind.RESULT if len(texts) == 1:
                value["content"] = texts[0]
            case _:
                raise BadFrameError(f"{self.kind.name}: {len(texts)} texts")
        return value

    def _object(self, raw: bytes | bytearray) -> JsonObject:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadFrameError(f"{self.kind.name}: not JSON") from error
        if not isinstance(value, dict):
            raise BadFrameError(f"{self.kind.name}: not an object")
        return value

    def _texts(self, sizes: object, *, start: int) -> list[str]:
        """Cuts the payload from `start` on into texts of so many bytes each."""
        texts = []
        with memoryview(self.payload) as view:
            for size in sizes if isinstance(sizes, list) else ():
                if type(size) is not int or not 0 <= size <= len(view) - start:
                    raise BadFrameError(f"{self.kind.name}: a text of {str(size)[:20]} bytes")
                try:
                    texts.append(str(view[start : start + size], "utf-8"))
                except UnicodeDecodeError as error:
                    raise BadFrameError(f"{self.kind.name}: a text that is none") from error
                start += size
            if start != len(view):
                raise BadFrameError(f"{self.kind.name}: bytes that belong to no text")
        return texts


def encode(kind: FrameKind, payload: bytes | JsonObject) -> bytes:
    """Returns the bytes of one frame."""
    if isinstance(payload, bytes):
        return _HEADER.pack(len(payload), kind) + payload
    # A name or a message of a cell may hold lone surrogates; they must not stop a result.
    texts: list[bytes] = []
    if long_fields := _LONG_FIELDS.get(kind):
        payload = dict(payload)
        for field in long_fields:
            value = payload.pop(field)
            values = [value] if isinstance(value, str) else value
            texts += [text.encode(errors="replace") for text in values]
            if field == "prompts":
                payload["prompt_count"] = len(texts)
        payload["sizes"] = [len(text) for text in texts]
    head = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    if not long_fields:
        return _HEADER.pack(len(head), kind) + head
    size = len(head) + 1 + sum(len(text) for text in texts)
    return b"".join([_HEADER.pack(size, kind), head, b"\0", *texts])


class FrameReader:
    """Cuts a byte stream into frames, and keeps the descriptors that came with it.

    Holds at most one frame and one receive buffer. Never blocks by itself: `receive` makes exactly
    one system call, so that an interrupt can only fall before or after it.
    """

    def __init__(self, connection: socket.socket, *, most: Mapping[FrameKind, int]) -> None:
        """Reads from `connection`, which stays the caller's, at most so many bytes of each kind."""
        self._connection = connection
        self._most = most
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._wanted_bytes = _RECEIVE_BYTES

    def receive(self) -> None:
        """Takes what is there.

        Raises:
            ChannelClosedError: The other end is gone.
            BadFrameError: It sent more descriptors than any frame needs.
            BlockingIOError: Nothing is there, and the connection does not block.
        """
        try:
            data, ancillary, _, _ = self._connection.recvmsg(
                self._wanted_bytes, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
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
        is_full = len(data) == self._wanted_bytes
        self._wanted_bytes = _MORE_BYTES if is_full else _RECEIVE_BYTES

    def next_frame(self) -> Frame | None:
        """Returns the next whole frame, or None until more has been received.

        Raises:
            BadFrameError: Nobody sends this kind here, or not so much of it.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        length, kind = _HEADER.unpack_from(self._buffer)
        if kind not in self._most:
            raise BadFrameError(f"a frame of kind {kind}, which nobody sends here")
        if length > self._most[kind]:
            raise BadFrameError(f"a frame of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        return Frame(FrameKind(kind), self._take(end))

    def _take(self, end: int) -> bytes | bytearray:
        """Takes the payload of the frame that ends at `end` out of what was received."""
        payload: bytes | bytearray
        if end < _LARGE_BYTES:
            payload = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
        else:
            payload, self._buffer = self._buffer, self._buffer[end:]
            del payload[end:]
            del payload[: _HEADER.size]
        return payload

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
