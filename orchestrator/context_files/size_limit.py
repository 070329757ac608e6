"""How much the files of a context may have together.

Without it a terabyte would be read before anybody found that no sandbox holds it.
"""

from __future__ import annotations

from typing import NoReturn

from orchestrator.errors import InputError


class SizeLimit:
    """Counts the bytes of text that are read for one context."""

    def __init__(self, name: str, *, max_bytes: int) -> None:
        """Begins with nothing read.

        Args:
            name: What is read, in a message.
            max_bytes: More than this fits no sandbox of the size that was asked for.
        """
        self.read_bytes = 0
        self._name = name
        self._max_bytes = max_bytes

    def expect(self, size_bytes: int, *, after_bytes: int = 0) -> None:
        """Refuses a file by its size, before all of it is read.

        Args:
            size_bytes: Of the file.
            after_bytes: What was read before it.

        Raises:
            InputError: It is too large.
        """
        total_bytes = after_bytes + size_bytes
        if total_bytes > self._max_bytes:
            self._refuse(f"{self._name} holds {total_bytes:,} bytes or more")

    def take(self, size_bytes: int) -> None:
        """Counts what has been read: a pipe may have no end, and a file may grow.

        Raises:
            InputError: It is too much.
        """
        self.read_bytes += size_bytes
        if self.read_bytes > self._max_bytes:
            self._refuse(f"{self._name} holds more than {self._max_bytes:,} bytes")

    def rewind(self, read_bytes: int) -> None:
        """Forgets what was read of a file that is left out."""
        self.read_bytes = read_bytes

    def _refuse(self, fact: str) -> NoReturn:
        raise InputError(
            f"{fact}; a sandbox of the memory asked for cannot hold more than "
            f"{self._max_bytes:,} whatever the text is. Give it more with --memory, or pass a "
            "smaller context."
        )
