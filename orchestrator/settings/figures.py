"""Numbers as operators write them, and which of them make sense.

Without it `memory_bytes = "2g"` would be a type error, and a limit of zero or of infinity would
stop everything, or nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic_core import PydanticCustomError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_STEPS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
#: Figures for which zero is a choice ("no queries at all"), not a mistake.
_MAY_BE_ZERO = frozenset(
    {
        *("queries", "child_runs", "tool_calls", "depth", "direct_chars", "requests"),
        *("max_retries", "temperature", "size"),
        *("prompt_usd", "cached_prompt_usd", "cache_write_usd", "completion_usd"),
    }
)

_Section = TypeVar("_Section")


def parse_size(text: str) -> int:
    """Returns the bytes that `text` names: `512m`, `2g`, `1.5 GiB`, `1048576`.

    Units are powers of 1024, as the Docker command line has them.

    Raises:
        ValueError: It is not a number with such a unit.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = "expected a size such as 512m, 2g or a number of bytes"
        raise ValueError(message)
    number, unit = match.groups()
    return int(float(number) * 2 ** _SIZE_STEPS[unit.lower()])


def read_sizes(value: object) -> object:
    """Turns `memory_bytes = "2g"` into a number before a section is checked."""
    if not isinstance(value, Mapping):
        return value
    read = dict(value)
    for key, item in value.items():
        if str(key).endswith("_bytes") and isinstance(item, str):
            try:
                read[key] = parse_size(item)
            except ValueError as error:
                raise unusable((str(key),), str(error), came=item) from None
    return read


def check_figures(section: _Section) -> _Section:
    """Refuses a number that would stop everything, or nothing, in a section or below it."""
    _check(section, ())
    return section


def unusable(path: tuple[str, ...], expected: str, *, came: object) -> PydanticCustomError:
    """Returns the error for a value that is of its kind and cannot be used all the same.

    Args:
        path: Where it is, below the section that is being checked.
        expected: What belongs there.
        came: What is there; shown to the operator.
    """
    # The text is part of the template's arguments: braces in it are no placeholders.
    details: dict[str, Any] = {"path": path, "expected": expected, "came": came}
    return PydanticCustomError("unusable", "{expected}", details)


def _check(value: object, path: tuple[str, ...]) -> None:
    if is_dataclass(value):
        for item in fields(value):
            _check(getattr(value, item.name), (*path, item.name))
    elif isinstance(value, Mapping):
        for name, below in value.items():
            if is_dataclass(below):
                _check(below, (*path, str(name)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        may_be_zero = path[-1] in _MAY_BE_ZERO
        if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
            expected = f"expected a number {'of zero or more' if may_be_zero else 'above zero'}"
            raise unusable(path, expected, came=value)
