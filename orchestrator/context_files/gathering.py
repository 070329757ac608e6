"""Puts the texts of files together, as documents or as one text.

Without it what is left out of a folder would depend on what becomes of the rest.
"""

from __future__ import annotations

from typing import Protocol

from orchestrator.context import TextEncoding
from orchestrator.domain import EncodedContext


class Gathering(Protocol):
    """What files are put into, one after the other: begun, and then ended or dropped."""

    def begin(self, name: str) -> None:
        """Begins a file."""

    def add(self, piece: str) -> None:
        """Adds the next piece of the file's text."""

    def end(self) -> None:
        """Ends the file."""

    def drop(self) -> None:
        """Forgets the file."""

    def encoded(self) -> EncodedContext:
        """Returns the whole; nothing can be added after."""


class JoinedText:
    """One text of many files, each under its name; a `Gathering`."""

    def __init__(self) -> None:
        """Begins with no file."""
        self._text = TextEncoding()
        self._last = ""

    def begin(self, name: str) -> None:
        """See `Gathering.begin`."""
        self._text.mark()
        self._last = ""
        self._text.add(f"===== {name} =====\n")

    def add(self, piece: str) -> None:
        """See `Gathering.add`."""
        self._text.add(piece)
        self._last = piece[-1:]

    def end(self) -> None:
        """See `Gathering.end`; the next name is on a line of its own."""
        if self._last != "\n":
            self._text.add("\n")

    def drop(self) -> None:
        """See `Gathering.drop`."""
        self._text.rewind()

    def encoded(self) -> EncodedContext:
        """See `Gathering.encoded`."""
        return self._text.encoded()
