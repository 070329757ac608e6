"""One event, one line of JSON, and back.

Without it each reader of a trajectory would guess at types that the writer knew. They are read off
the event classes, so a field that is added there is written and read here.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, NewType, get_args, get_origin, get_type_hints

from orchestrator import events
from orchestrator.domain import CellError, Draft, ModelReply, Printed
from orchestrator.errors import InputError
from orchestrator.events import CellPrinted, CellStarted, QueryStarted, RunEnded, RunEvent

#: Goes up when a reader of the old version could misread a line of the new one.
TRAJECTORY_VERSION = 1

#: What users, models and cells wrote: left out on request. Sentences of our own stay.
_TEXT_FIELDS: Mapping[type, frozenset[str]] = {
    events.RunStarted: frozenset({"question"}),
    ModelReply: frozenset({"text"}),
    CellStarted: frozenset({"source"}),
    Printed: frozenset({"head", "tail"}),
    CellError: frozenset({"message", "traceback"}),
    Draft: frozenset({"content"}),
    QueryStarted: frozenset({"prompt"}),
    RunEnded: frozenset({"answer"}),
}

_EVENT_CLASSES = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", event_class.__name__).lower(): event_class
    for event_class in get_args(RunEvent)
    if event_class is not CellPrinted
}
_EVENT_NAMES = {event_class: name for name, event_class in _EVENT_CLASSES.items()}


def line_of(event: RunEvent, *, time: datetime, records_text: bool) -> str:
    """Returns an event as one line without its line feed.

    Args:
        event: Any but `CellPrinted`.
        time: When it happened.
        records_text: Whether texts are kept; else each is replaced by its digest and length.
    """
    record = {
        "version": TRAJECTORY_VERSION,
        "event": _EVENT_NAMES[type(event)],
        "time": time.isoformat(timespec="milliseconds"),
        "records_text": records_text,
        **_encoded_fields(event, records_text=records_text),
    }
    # Escaped to ASCII: whoever looks at the file in a terminal is not at the mercy of what a cell
    # printed, and half a surrogate pair survives the way to the file and back.
    return json.dumps(record, ensure_ascii=True)


def event_of(line: str) -> RunEvent:
    """Returns the event in a line.

    Raises:
        InputError: It is none, or of a version or a kind that this release does not know.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a line of JSON: {error}") from None
    if not isinstance(record, dict) or "version" not in record:
        raise InputError("not an event of a trajectory: it has no version")
    if record["version"] != TRAJECTORY_VERSION:
        raise InputError(
            f"trajectory version {record['version']!r:.20}; this release reads version "
            f"{TRAJECTORY_VERSION}: use the release that wrote it"
        )
    event_class = _EVENT_CLASSES.get(str(record.get("event")))
    if event_class is None:
        raise InputError(f"no event is called {record.get('event')!r:.60}")
    event: RunEvent = _decoded(record, event_class, where=str(record["event"]))
    return event


def _encoded_fields(value: Any, *, records_text: bool) -> dict[str, object]:  # noqa: ANN401 - any dataclass
    elided = frozenset() if records_text else _TEXT_FIELDS.get(type(value), frozenset())
    return {
        field.name: _elision(getattr(value, field.name))
        if field.name in elided
        else _encoded(getattr(value, field.name), records_text=records_text)
        for field in fields(value)
    }


def _encoded(value: object, *, records_text: bool) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _encoded_fields(value, records_text=records_text)
    if isinstance(value, tuple):
        return [_encoded(item, records_text=records_text) for item in value]
    if isinstance(value, frozenset):
        return [_encoded(item, records_text=records_text) for item in sorted(value)]
    if isinstance(value, dict):
        return {key: _encoded(item, records_text=records_text) for key, item in value.items()}
    return value


def _elision(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest} chars:{len(text)}" if text else ""


def _decoded(value: object, kind: Any, *, where: str) -> Any:  # noqa: ANN401 - types as values
    """Returns a JSON value as an instance of `kind`, one of the types that events are made of."""
    if isinstance(kind, NewType):
        return _decoded(value, kind.__supertype__, where=where)
    if get_origin(kind):
        return _decoded_generic(value, kind, where=where)
    if is_dataclass(kind):
        return _decoded_fields(_checked(value, dict, where=where), kind, where=where)
    if issubclass(kind, StrEnum):
        name = _checked(value, str, where=where)
        if name not in set(kind):
            raise InputError(f"{where} has an unknown value: {name!r:.60}")
        return kind(name)
    if kind is float and type(value) is int:
        return float(value)
    return _checked(value, kind, where=where)


def _decoded_generic(value: object, kind: Any, *, where: str) -> Any:  # noqa: ANN401 - likewise
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        items = _checked(value, list, where=where)
        return tuple(_decoded(item, arguments[0], where=where) for item in items)
    if origin is frozenset:
        items = _checked(value, list, where=where)
        return frozenset(_decoded(item, arguments[0], where=where) for item in items)
    if origin is dict:
        entries = _checked(value, dict, where=where).items()
        return {key: _decoded(item, arguments[1], where=where) for key, item in entries}
    # What is left is `X | None`.
    [kind] = [argument for argument in arguments if argument is not types.NoneType]
    return None if value is None else _decoded(value, kind, where=where)


def _decoded_fields(record: dict[str, object], kind: Any, *, where: str) -> Any:  # noqa: ANN401 - likewise
    values = {}
    for field in fields(kind):
        inner = f"{where}.{field.name}"
        if field.name in record:
            values[field.name] = _decoded(record[field.name], _hints(kind)[field.name], where=inner)
        elif not _has_default(field):
            raise InputError(f"{inner} is missing")
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _checked(value: object, kind: Any, *, where: str) -> Any:  # noqa: ANN401 - likewise
    # bool is an int to isinstance, and never one to a reader.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = type(value).__name__
        raise InputError(f"{where} is of type {found}, expected {kind.__name__}")
    return value
