"""One event, one line of JSON, and back.

Without it each reader of a trajectory would guess at types that the writer knew. They are read off
the event classes, so a field that is added there is written and read here.
"""

from __future__ import annotations

import json
import re
import types
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

from orchestrator.errors import InputError
from orchestrator.events import LIVE_EVENTS, RunEvent
from orchestrator.trajectory.elision import TEXT_FIELDS, elided

#: Goes up when a reader of the old version could misread a line of the new one.
TRAJECTORY_VERSION = 2

#: What every line has beside the fields of its event.
_ENVELOPE = frozenset({"version", "event", "time", "records_text"})

_EVENT_CLASSES = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", event_class.__name__).lower(): event_class
    for event_class in get_args(RunEvent)
    if event_class not in LIVE_EVENTS
}
_EVENT_NAMES = {event_class: name for name, event_class in _EVENT_CLASSES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """One line of a trajectory.

    Attributes:
        event: What happened.
        time: When; None for an event that comes from a result and not from a file.
        records_text: Whether its texts are what was written, and not digests.
    """

    event: RunEvent
    time: datetime | None = None
    records_text: bool = True


def line_of(event: RunEvent, *, time: datetime, records_text: bool) -> str:
    """Returns an event as one line without its line feed.

    Args:
        event: Any but those of a moment.
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
    """Returns the event in a line; see `record_of`."""
    return record_of(line).event


def record_of(line: str) -> RecordedEvent:
    """Returns what a line holds.

    Raises:
        InputError: It is no event, or of a version, a kind or with a field that this release does
            not know.
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
        raise InputError(
            f"no event is called {record.get('event')!r:.60} in this release: use the one that "
            "wrote it"
        )
    event_fields = {name: value for name, value in record.items() if name not in _ENVELOPE}
    return RecordedEvent(
        event=_decoded(event_fields, event_class, where=str(record["event"])),
        time=_time_of(record.get("time")),
        records_text=_checked(record.get("records_text"), bool, where="records_text"),
    )


def _time_of(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(_checked(value, str, where="time"))
    except ValueError:
        raise InputError(f"time is no time as ISO 8601 has it: {value!r:.60}") from None
    if time.tzinfo is None:
        raise InputError(f"time has no offset from UTC: {value!r:.60}")
    return time


def _encoded_fields(value: Any, *, records_text: bool) -> dict[str, object]:  # noqa: ANN401 - any dataclass
    texts = frozenset() if records_text else TEXT_FIELDS.get(type(value), frozenset())
    return {
        field.name: elided(getattr(value, field.name))
        if field.name in texts
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
    if origin is Literal:
        text = _checked(value, str, where=where)
        if text not in arguments:
            raise InputError(f"{where} has an unknown value: {text!r:.60}")
        return text
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
    unknown = sorted(record.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise InputError(
            f"{where} has a field {unknown[0]!r:.60}, which this release does not know: use the "
            "one that wrote it"
        )
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
