"""Lists and dicts on their way to the wire, a part at a time.

Without it a list of records would be in memory as records, as JSON of each, as JSON of all and as
bytes; and the sandbox would have to hold all of the JSON before it could read any.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.context.checks import PartChecks
from orchestrator.context.text import ready
from orchestrator.domain import ContextKind, EncodedContext, Json

#: Lengths of more parts than these say nothing more to a root model.
MAX_PART_LENGTHS: Final = 100
#: Between two parts. JSON has no line end inside a text, so that the sandbox sees where it may read
#: what has come without reading it first.
BETWEEN_PARTS: Final = b",\n"
#: What a list takes for each item beside the item, and what a dict takes at most.
_ITEM_BYTES = 8
_MEMBER_BYTES = 104
#: As the broker cuts a context.
_PIECE_BYTES = 2**20

#: What a list's parts have that makes it of a kind; the last is what counts. A part may have more:
#: whoever has a date or an author beside each text shall not have to leave it out.
_KEYS: Final[Mapping[ContextKind, tuple[str, str]]] = {
    ContextKind.MESSAGES: ("role", "content"),
    ContextKind.DOCUMENTS: ("name", "text"),
}
#: What a list can be, the first that fits counts.
_KINDS: Final[Sequence[ContextKind]] = (
    ContextKind.TEXTS,
    ContextKind.MESSAGES,
    ContextKind.DOCUMENTS,
    ContextKind.JSON,
)
#: Writes what has been checked; `allow_nan=False` states the rule once more where it bites.
ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


@dataclass(slots=True)
class Lengths:
    """How long parts are: the first of them, and all together."""

    first: list[int] = field(default_factory=list)
    total_chars: int = 0

    def add(self, chars: int) -> None:
        """Adds the next part."""
        self.total_chars += chars
        if len(self.first) < MAX_PART_LENGTHS:
            self.first.append(chars)


class PartsEncoding:
    """One list, or one dict."""

    def __init__(self, *, is_dict: bool = False) -> None:
        """Begins with an empty one."""
        self._is_dict = is_dict
        self._data = io.BytesIO()
        self._data.write(b"{" if is_dict else b"[")
        self._checks = PartChecks()
        self._count = 0
        # Of each kind that the parts so far fit: what counts differs.
        kinds = (ContextKind.JSON,) if is_dict else _KINDS
        self._lengths = {kind: Lengths() for kind in kinds}

    def add(self, part: Json) -> None:
        """Adds the next part of a list.

        Raises:
            InputError: It, or something in it, would not arrive as it is; says what and where.
        """
        self._checks.check(part, self._count)
        self._add(part, label="")

    def add_member(self, key: str, part: Json) -> None:
        """Adds the next member of a dict.

        Raises:
            InputError: It, or something in it, would not arrive as it is; says what and where.
        """
        self._checks.check_key(key)
        self._checks.check(part, key)
        self._add(part, label=f"{ENCODER.encode(key)}: ")

    def _add(self, part: Json, *, label: str) -> None:
        dump = ENCODER.encode(part)
        if self._count:
            self._data.write(BETWEEN_PARTS)
        self._data.write(label.encode())
        self._data.write(dump.encode())
        self._count += 1
        self._measure(part, dump)

    def _measure(self, part: Json, dump: str) -> None:
        for kind in list(self._lengths):
            chars = _length(kind, part, dump)
            if chars is None:
                del self._lengths[kind]
            else:
                self._lengths[kind].add(chars)

    def encoded(self) -> EncodedContext:
        """Returns the whole; nothing can be added after."""
        self._data.write(b"}" if self._is_dict else b"]")
        # A list without parts is of no kind but JSON.
        kind = next(iter(self._lengths)) if self._count else ContextKind.JSON
        lengths = self._lengths[kind]
        whole_bytes = sys.getsizeof({"": None}) if self._is_dict else sys.getsizeof([])
        slots_bytes = (_MEMBER_BYTES if self._is_dict else _ITEM_BYTES) * self._count
        return ready(
            kind,
            self._data,
            lengths=lengths.first,
            total_chars=lengths.total_chars,
            resident_bytes=self._checks.resident_bytes + whole_bytes + slots_bytes,
        )


def _length(kind: ContextKind, part: Json, dump: str) -> int | None:
    """Returns how long a part of a context of some kind is; None if it makes it another kind."""
    match kind, part:
        case ((ContextKind.TEXTS | ContextKind.JSON), str(text)):
            return len(text)
        case ContextKind.JSON, _:
            return len(dump)
        case ((ContextKind.MESSAGES | ContextKind.DOCUMENTS), dict()):
            values = [part.get(key) for key in _KEYS[kind]]
            *_, counted = values
            is_of_kind = all(isinstance(value, str) for value in values)
            return len(counted) if is_of_kind and isinstance(counted, str) else None
        case _:
            return None


def longest_unread_bytes(data: bytes) -> int:
    """Returns how much of a list's or dict's JSON a sandbox holds at most before it can read it."""
    longest_bytes = start = 0
    for offset in range(0, len(data), _PIECE_BYTES):
        end = data.rfind(BETWEEN_PARTS, offset, offset + _PIECE_BYTES)
        if end >= 0:
            longest_bytes, start = max(longest_bytes, end - start), end
    return max(longest_bytes, len(data) - start)
