"""Text on its way to the wire, a piece at a time.

Without it a file of 400 MB would be in memory three times before anything has started: as it was
read, as text, and as it is sent.
"""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import dataclass

from orchestrator.context.checks import text_problem
from orchestrator.domain import ContextKind, EncodedContext
from orchestrator.errors import InputError

#: What CPython keeps beside the characters of a `str`: of ASCII alone, and of any other.
_ASCII_BYTES = sys.getsizeof("")
_WIDE_BYTES = sys.getsizeof("é") - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSize:
    """What a text takes as a `str`, which is as wide as its widest character.

    Attributes:
        chars: Its length.
        char_bytes: Of each character: 0 for ASCII, which has a form of its own; else 1, 2 or 4.
    """

    chars: int = 0
    char_bytes: int = 0

    def plus(self, piece: str) -> TextSize:
        """Returns the size of the text with a piece that was made just now at its end."""
        char_bytes = self.char_bytes
        if not piece.isascii():
            own_bytes = (sys.getsizeof(piece) - _WIDE_BYTES) // (len(piece) + 1)
            char_bytes = max(char_bytes, own_bytes)
        return TextSize(chars=self.chars + len(piece), char_bytes=char_bytes)

    @property
    def resident_bytes(self) -> int:
        """The memory of the whole as one `str`."""
        if not self.char_bytes:
            return _ASCII_BYTES + self.chars
        return _WIDE_BYTES + self.char_bytes * (self.chars + 1)


class TextEncoding:
    """One text."""

    def __init__(self) -> None:
        """Begins with an empty text."""
        self._data = io.BytesIO()
        self._size = TextSize()
        self._mark = (0, self._size)

    def add(self, piece: str) -> None:
        """Adds the next piece.

        Raises:
            InputError: It holds half a surrogate pair.
        """
        if problem := text_problem(piece):
            raise InputError(f"the context {problem}")
        self._data.write(piece.encode())
        self._size = self._size.plus(piece)

    def mark(self) -> None:
        """Remembers the end of the text so far."""
        self._mark = (self._data.tell(), self._size)

    def rewind(self) -> None:
        """Forgets what was added since the mark."""
        end, self._size = self._mark
        self._data.truncate(end)
        self._data.seek(end)

    def encoded(self) -> EncodedContext:
        """Returns the whole; nothing can be added after."""
        return ready(
            ContextKind.TEXT,
            self._data,
            lengths=[self._size.chars],
            total_chars=self._size.chars,
            resident_bytes=self._size.resident_bytes,
        )


def ready(
    kind: ContextKind,
    data: io.BytesIO,
    *,
    lengths: list[int],
    total_chars: int,
    resident_bytes: int,
) -> EncodedContext:
    """Returns a context whose bytes are all there; takes them over without a copy."""
    raw = data.getvalue()
    return EncodedContext(
        kind=kind,
        data=raw,
        part_lengths=tuple(lengths),
        total_chars=total_chars,
        sha256_hex=hashlib.sha256(raw).hexdigest(),
        resident_bytes=resident_bytes,
    )
