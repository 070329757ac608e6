"""Documents on their way to the wire: names with their texts, each text a piece at a time.

Without it the largest file of a folder would be in memory four times while the folder is read.
"""

from __future__ import annotations

import io
import sys

from orchestrator.context.checks import text_problem
from orchestrator.context.parts import BETWEEN_PARTS, ENCODER, Lengths
from orchestrator.context.text import TextSize, ready
from orchestrator.domain import ContextKind, EncodedContext
from orchestrator.errors import InputError

#: What a document takes beside name and text: a dict, a slot in the list, and what is rounded up.
_DOCUMENT_BYTES = sys.getsizeof({"name": "", "text": ""}) + 32


class DocumentsEncoding:
    """A list of documents. One is open at a time: begun, and then ended or dropped."""

    def __init__(self) -> None:
        """Begins with an empty list."""
        self._data = io.BytesIO()
        self._data.write(b"[")
        self._lengths = Lengths()
        self._resident_bytes = sys.getsizeof([])
        self._count = 0
        self._start = self._data.tell()
        self._name_bytes = 0
        self._size = TextSize()

    def begin(self, name: str) -> None:
        """Begins a document."""
        self._start = self._data.tell()
        self._name_bytes = sys.getsizeof(name)
        self._size = TextSize()
        if self._count:
            self._data.write(BETWEEN_PARTS)
        self._write(f'{{"name": {ENCODER.encode(name)}, "text": "')

    def add(self, piece: str) -> None:
        """Adds the next piece of the open document's text.

        Raises:
            InputError: It holds half a surrogate pair.
        """
        if problem := text_problem(piece):
            raise InputError(f"the text {problem}")
        # JSON writes each character by itself, so that pieces of a text are pieces of its JSON.
        self._write(ENCODER.encode(piece)[1:-1])
        self._size = self._size.plus(piece)

    def end(self) -> None:
        """Ends the open document."""
        self._write('"}')
        self._count += 1
        self._lengths.add(self._size.chars)
        self._resident_bytes += _DOCUMENT_BYTES + self._name_bytes + self._size.resident_bytes

    def drop(self) -> None:
        """Forgets the open document."""
        self._data.truncate(self._start)
        self._data.seek(self._start)

    def encoded(self) -> EncodedContext:
        """Returns the whole; nothing can be added after."""
        self._data.write(b"]")
        return ready(
            ContextKind.DOCUMENTS,
            self._data,
            lengths=self._lengths.first,
            total_chars=self._lengths.total_chars,
            resident_bytes=self._resident_bytes,
        )

    def _write(self, text: str) -> None:
        self._data.write(text.encode())
