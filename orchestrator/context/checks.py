"""What a context may hold: text that can be sent, and what JSON holds as it is.

Without it JSON would change a context under way (a tuple into a list, a key that is 1 into "1"),
and the answer would be about something else than the caller asked about.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TypeAlias

from orchestrator.domain import Json
from orchestrator.errors import InputError

#: Half of what CPython's own JSON scanner takes before it gives up (`sys.getrecursionlimit()`).
_MAX_DEPTH = 500
#: Below the 4,300 digits that CPython converts (`sys.int_info.default_max_str_digits`).
_MAX_INT_BITS = 14_000
#: A longer way to the place of a mistake is cut in the message.
_MAX_PLACE_CHARS = 200
#: What an object takes beyond its size, on average: memory is given out by 16 bytes.
_ROUNDING_BYTES = 8
#: Keys that are told apart. More of them are no names of fields, and each is then its own.
_MAX_KEYS = 10_000

#: Where something is: the step to it, after those to what holds it. None is the context itself.
_Place: TypeAlias = "tuple[_Place | None, str | int]"
_Container: TypeAlias = "list[Json] | dict[str, Json]"


class PartChecks:
    """Refuses what JSON would change, and adds up the memory that the rest takes."""

    def __init__(self) -> None:
        """Begins with nothing; the parts of one list or dict are checked one by one."""
        #: What everything that was checked takes in a Python process, as measured in this one.
        self.resident_bytes = 0
        self._keys: set[str] = set()

    def check(self, part: Json, step: str | int) -> None:
        """Checks what the whole has at `step`.

        Raises:
            InputError: It would not arrive as it is; says what and where.
        """
        self.resident_bytes += sys.getsizeof(part) + _ROUNDING_BYTES
        if not isinstance(part, list | dict):
            _check_leaf(part, (None, step))
            return
        # A list, not recursion: a caller's nesting must not overflow our stack.
        waiting: list[tuple[_Container, _Place, int]] = [(part, (None, step), 1)]
        while waiting:
            holder, place, depth = waiting.pop()
            if depth > _MAX_DEPTH:
                raise InputError(
                    f"{_say(place)} is nested deeper than {_MAX_DEPTH}, or holds itself"
                )
            entries: Iterable[tuple[str | int, Json]] = enumerate(holder)
            if isinstance(holder, dict):
                for key in holder:
                    self.check_key(key, place)
                entries = holder.items()
            for inner_step, value in entries:
                self.resident_bytes += sys.getsizeof(value) + _ROUNDING_BYTES
                if isinstance(value, list | dict):
                    waiting.append((value, (place, inner_step), depth + 1))
                elif not (isinstance(value, str) and value.isascii()):
                    _check_leaf(value, (place, inner_step))

    def check_key(self, key: object, place: _Place | None = None) -> None:
        """Checks a key of the dict at `place`.

        Raises:
            InputError: It would not arrive as it is.
        """
        if key in self._keys:
            return  # the sandbox has one object for all that are equal, too
        if not isinstance(key, str):
            message = (
                f"{_say(place)} has the key {key!r}, {a_value(key)}; the keys of a context are str"
            )
            raise InputError(message)
        if problem := text_problem(key):
            raise InputError(f"{_say(place)} has a key that {problem}")
        self.resident_bytes += sys.getsizeof(key) + _ROUNDING_BYTES
        if len(self._keys) < _MAX_KEYS:
            self._keys.add(key)


def text_problem(text: str) -> str | None:
    """Returns why a text cannot be sent, or None where it can."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"holds half a surrogate pair, U+{ord(text[error.start]):04X}, at index {error.start};"
            " it is no character and cannot be sent: decode the source with errors='replace'"
        )
    return None


def a_value(value: object) -> str:
    """Returns what kind of thing something is, in the middle of a sentence."""
    return f"a value of type {type(value).__name__}"


def _check_leaf(value: object, place: _Place) -> None:
    if problem := _leaf_problem(value):
        raise InputError(f"{_say(place)} {problem}")


def _leaf_problem(value: object) -> str | None:
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value!r}, which JSON does not know; use None or text"
    if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
        return f"is an integer of {value.bit_length():,} bits, too long for JSON; use text"
    if value is None or isinstance(value, int | float):
        return None
    return f"is {a_value(value)}; a context holds what JSON holds"


def _say(place: _Place | None) -> str:
    """Returns where something is, as Python would be asked for it; a long way is cut."""
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step[:40]!r}]" if isinstance(step, str) else f"[{step}]")
    way = "".join(reversed(steps))
    return "context" + (way if len(way) <= _MAX_PLACE_CHARS else way[:_MAX_PLACE_CHARS] + "…")
