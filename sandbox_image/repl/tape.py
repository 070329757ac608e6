"""Bounds what is kept of a cell's output. Without it one `print` could fill the worker's memory."""

from __future__ import annotations


class Tape:
    """Keeps both ends of a byte stream; too much input is never an error.

    The head is handed out at once, so that output can be shown while the cell runs; the tail is
    kept until the stream has ended.
    """

    def __init__(self, *, head_bytes: int, tail_bytes: int) -> None:
        """Makes an empty tape that keeps `head_bytes + tail_bytes` at most."""
        self._head_bytes = 0
        self._head_room = head_bytes
        self._tail_bytes = tail_bytes
        self._tail = bytearray()
        self._seen_bytes = 0

    def write(self, data: bytes) -> bytes:
        """Takes `data` and returns the part of it that still belongs to the head."""
        head = data[: self._head_room]
        self._head_room -= len(head)
        self._head_bytes += len(head)
        self._seen_bytes += len(data)
        self._tail += data[len(head) :]
        # Trimmed on every write, not once at the end: the limit is on what is held, and a cell that
        # never ends never reaches the end.
        del self._tail[: max(len(self._tail) - self._tail_bytes, 0)]
        return head

    def rewind(self) -> tuple[bytes, int, int]:
        """Returns the tail, the offset of its first byte in the stream, and the bytes dropped."""
        tail_offset_bytes = self._seen_bytes - len(self._tail)
        return bytes(self._tail), tail_offset_bytes, tail_offset_bytes - self._head_bytes

    @property
    def seen_bytes(self) -> int:
        """How much was written in all."""
        return self._seen_bytes
