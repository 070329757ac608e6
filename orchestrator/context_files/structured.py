"""JSON, and JSON Lines, as contexts; says in which line one is broken.

Without it a table of a million records would be text to a cell, which would parse it in each turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from orchestrator.context import PartsEncoding, encode_context
from orchestrator.domain import EncodedContext
from orchestrator.errors import InputError

#: Of a broken line so much is shown.
_SHOWN_CHARS = 60


def encoded_json(pieces: Iterable[str], *, name: str) -> EncodedContext | None:
    """Returns what one JSON document says as a context; None where it says nothing at all.

    Raises:
        InputError: It is not JSON, or no list, object or string.
    """
    value = _parsed(pieces, name)
    if not isinstance(value, str | list | dict):
        message = f"{name}: expected a JSON list, object or string, got {_kind(value)}."
        raise InputError(message)
    return encode_context(value) if value else None


def encoded_lines(pieces: Iterable[str], *, name: str) -> EncodedContext | None:
    """Returns a list of what the lines of a JSON Lines file say; None where there is none.

    Raises:
        InputError: A line is not JSON.
    """
    parts = PartsEncoding()
    is_empty = True
    for number, line in enumerate(_lines(pieces), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            shown = line.strip()[:_SHOWN_CHARS]
            raise InputError(
                f"{name}, line {number:,}: expected one JSON value a line, got {shown!r}: "
                f"{_reason(error)}. Pass --as text to ask about the file as it is."
            ) from None  # the cause holds the line
        parts.add(value)
        is_empty = False
    return None if is_empty else parts.encoded()


def _parsed(pieces: Iterable[str], name: str) -> Any:  # noqa: ANN401 - JSON
    text = ""
    for piece in pieces:
        text += piece  # in place: nothing else holds it
    if not text:
        return ""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        is_more = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        advice = "If it has one value a line, name it .jsonl. " if is_more else ""
        message = f"{name} is not JSON: {error}. {advice}Pass --as text to ask about it as it is."
        raise InputError(message) from None  # the cause holds the whole text


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Cuts at line feeds alone: JSON may hold every other line end within a text."""
    rest = ""
    for piece in pieces:
        first, *more = piece.split("\n")
        rest += first
        for line in more:
            yield rest
            rest = line
    yield rest


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno:,}"
    return str(error)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON (RFC 8259, section 6)"
    raise ValueError(message)
