"""Reads single values out of a frame that may have been made by an attacker.

Without it a number where a text is expected would surface as a TypeError deep in the orchestrator,
and half a surrogate pair as an encoding error in whoever writes it to a file next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

_Member = TypeVar("_Member", bound=StrEnum)
_MAX_INTEGER = 2**63 - 1


class FrameError(Exception):
    """A frame breaks a rule; whoever sent it is not to be listened to any more."""


class Fields:
    """The fields of one frame's header."""

    def __init__(self, header: object) -> None:
        """Takes what JSON made of it.

        Raises:
            FrameError: It is no object.
        """
        if not isinstance(header, dict):
            raise FrameError("the header of a frame is an object")
        self._header = header

    def is_null(self, name: str) -> bool:
        """Whether the field is null or missing."""
        return self._header.get(name) is None

    def integer(self, name: str, *, least: int = 0, most: int = _MAX_INTEGER) -> int:
        """Returns a whole number within bounds.

        Raises:
            FrameError: It is missing, none, or out of bounds.
        """
        return checked_integer(self._header.get(name), name, least=least, most=most)

    def optional_integer(self, name: str) -> int | None:
        """Returns a whole number that is not negative, or None where the field is null.

        Raises:
            FrameError: It is neither.
        """
        return None if self.is_null(name) else self.integer(name)

    def number(self, name: str, *, most: float) -> float:
        """Returns a finite number that is not negative; one above `most` is cut to it.

        Raises:
            FrameError: It is missing, or none.
        """
        value = self._header.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FrameError(f"{name} is a number")
        # JSON in Python's words has NaN and Infinity. Compared before it is converted: an int can
        # be too large for a float.
        if not 0 <= value < math.inf:
            raise FrameError(f"{name} is finite and not negative")
        return float(min(value, most))

    def flag(self, name: str) -> bool:
        """Returns a truth value.

        Raises:
            FrameError: It is missing, or none.
        """
        value = self._header.get(name)
        if not isinstance(value, bool):
            raise FrameError(f"{name} is true or false")
        return value

    def text(self, name: str, *, max_chars: int) -> str:
        """Returns a text that UTF-8 can hold; a longer one is cut.

        Raises:
            FrameError: It is missing, or none.
        """
        value = self._header.get(name)
        if not isinstance(value, str):
            raise FrameError(f"{name} is text")
        return checked_text(value, name)[:max_chars]

    def member(self, name: str, kind: type[_Member]) -> _Member:
        """Returns one of a closed set of words.

        Raises:
            FrameError: It is missing, or none of them.
        """
        try:
            return kind(self.text(name, max_chars=100))
        except ValueError:
            raise FrameError(f"{name} is one of {', '.join(kind)}") from None

    def items(self, name: str, *, most: int) -> Sequence[object]:
        """Returns a list of at most `most` items, each unchecked.

        Raises:
            FrameError: It is missing, none, or longer.
        """
        value = self._header.get(name)
        if not isinstance(value, list):
            raise FrameError(f"{name} is a list")
        if len(value) > most:
            raise FrameError(f"{name} has at most {most:,} items, not {len(value):,}")
        return value

    def names(self, *, most: int) -> Sequence[str]:
        """Returns the names of the fields, at most `most`, each unchecked.

        Raises:
            FrameError: There are more.
        """
        if len(self._header) > most:
            raise FrameError(f"an object has at most {most:,} fields")
        return list(self._header)

    def fields(self, name: str) -> Fields:
        """Returns the fields of an object within.

        Raises:
            FrameError: It is missing, or none.
        """
        return Fields(self._header.get(name))


def checked_integer(value: object, name: str, *, least: int = 0, most: int = _MAX_INTEGER) -> int:
    """Returns a whole number within bounds.

    Raises:
        FrameError: It is none, or out of them.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise FrameError(f"{name} is a whole number")
    if not least <= value <= most:
        raise FrameError(f"{name} is from {least:,} to {most:,}")
    return value


def checked_text(value: str, name: str) -> str:
    """Returns a text that UTF-8 can hold.

    Raises:
        FrameError: It holds half a surrogate pair, which JSON can spell.
    """
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FrameError(f"{name} is text that UTF-8 can hold") from None
    return value


def split_texts(body: memoryview, sizes: Sequence[object], name: str) -> list[str]:
    """Returns the texts that lie in a body one after the other.

    Raises:
        FrameError: They are not the whole body, or not UTF-8.
    """
    texts = []
    start = 0
    for size in sizes:
        end = start + checked_integer(size, f"the size of {name}", most=len(body) - start)
        try:
            texts.append(str(body[start:end], "utf-8"))
        except UnicodeDecodeError:
            raise FrameError(f"{name} is UTF-8") from None
        start = end
    if start != len(body):
        raise FrameError(f"a body holds {name} and nothing else")
    return texts
