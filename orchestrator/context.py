"""A caller's context, checked and made ready for the wire.

Without it a context that cannot cross to a sandbox unchanged (a set, a NaN, half a surrogate pair)
would fail deep inside a started run, after money was spent.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from orchestrator.domain import Context, ContextKind, EncodedContext, Json
from orchestrator.errors import InputError

#: Lengths of more parts than these say nothing more to a root model.
_MAX_PART_LENGTHS = 100
#: Half of what CPython's own JSON scanner takes before it gives up (`sys.getrecursionlimit()`).
_MAX_DEPTH = 500
#: Below the 4,300 digits that CPython converts (`sys.int_info.default_max_str_digits`).
_MAX_INT_BITS = 14_000
#: A longer way to the place of a mistake is cut in the message.
_MAX_PLACE_CHARS = 200

_Container: TypeAlias = "list[Json] | dict[str, Json]"


def encode_context(context: Context) -> EncodedContext:
    """Checks a context and makes it ready for the wire.

    A `str` becomes TEXT; a list of `str` DOCUMENTS; a list of dicts with a `role` and a `content`
    that are both text MESSAGES; any other list or dict JSON. A part that is text counts its
    characters, a message those of its content, anything else those of its JSON form.

    Takes time in proportion to the size, so call it outside an event loop.

    Raises:
        InputError: The context, or something in it, would not arrive as it is; says what and where.
    """
    if isinstance(context, str):
        problem = _text_problem(context)
        if problem:
            raise InputError(f"the context {problem}")
        return _encoded(
            ContextKind.TEXT,
            context.encode(),
            [len(context)],
            resident_bytes=sys.getsizeof(context),
        )
    if not isinstance(context, list | dict):
        # mypy knows that a caller with types cannot get here; most callers have none.
        message = f"a context is a str, a list or a dict, not {_a(context)}"  # type: ignore[unreachable]  # see above
        raise InputError(message)
    resident_bytes = _check_tree(context)
    if isinstance(context, dict):
        values = list(context.values())
        dumps = [_dump(value) for value in values]
        pairs = (f"{_dump(key)}: {dump}" for key, dump in zip(context, dumps, strict=True))
        kind, document = ContextKind.JSON, "{" + ", ".join(pairs) + "}"
    else:
        values = context
        dumps = [_dump(value) for value in values]
        kind, document = _kind_of_list(context), "[" + ", ".join(dumps) + "]"
    lengths = [_part_length(kind, value, dump) for value, dump in zip(values, dumps, strict=True)]
    return _encoded(kind, document.encode(), lengths, resident_bytes=resident_bytes)


def _encoded(
    kind: ContextKind, data: bytes, lengths: list[int], *, resident_bytes: int
) -> EncodedContext:
    return EncodedContext(
        kind=kind,
        data=data,
        part_lengths=tuple(lengths[:_MAX_PART_LENGTHS]),
        total_chars=sum(lengths),
        sha256_hex=hashlib.sha256(data).hexdigest(),
        resident_bytes=resident_bytes,
    )


def _kind_of_list(items: Sequence[Json]) -> ContextKind:
    if items and all(isinstance(item, str) for item in items):
        return ContextKind.DOCUMENTS
    if items and all(
        isinstance(item, dict)
        and isinstance(item.get("role"), str)
        and isinstance(item.get("content"), str)
        for item in items
    ):
        return ContextKind.MESSAGES
    return ContextKind.JSON


def _part_length(kind: ContextKind, part: Json, dump: str) -> int:
    if kind is ContextKind.MESSAGES and isinstance(part, dict):
        part = part["content"]
    return len(part) if isinstance(part, str) else len(dump)


def _dump(value: Json) -> str:
    # Every value has been checked; `allow_nan=False` states the rule once more where it bites.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _check_tree(root: _Container) -> int:
    """Refuses what JSON would change, and returns the bytes the whole takes in this process."""
    path: list[str | int] = []
    resident_bytes = sys.getsizeof(root) + _check_keys(root, path)
    # Iterators on a list, not recursion: a caller's nesting must not overflow our stack.
    levels = [_entries(root)]
    while levels:
        for step, value in levels[-1]:
            resident_bytes += sys.getsizeof(value)
            if isinstance(value, list | dict):
                path.append(step)
                resident_bytes += _check_keys(value, path)
                levels.append(_entries(value))
                break
            problem = _leaf_problem(value)
            if problem:
                raise InputError(f"{_place([*path, step])} {problem}")
        else:
            levels.pop()
            del path[-1:]
    return resident_bytes


def _check_keys(value: _Container, path: list[str | int]) -> int:
    """Refuses a container that JSON would change, and returns the bytes its keys take."""
    if len(path) > _MAX_DEPTH:
        raise InputError(f"{_place(path)} is nested deeper than {_MAX_DEPTH}, or holds itself")
    if isinstance(value, list):
        return 0
    for key in value:
        problem = _key_problem(key)
        if problem:
            raise InputError(f"{_place(path)} {problem}")
    return sum(map(sys.getsizeof, value))


def _entries(value: _Container) -> Iterator[tuple[str | int, Json]]:
    return iter(value.items()) if isinstance(value, dict) else enumerate(value)


def _place(path: list[str | int]) -> str:
    """Returns where something is, as Python would be asked for it; a long way is cut."""
    steps = "".join(f"[{step[:40]!r}]" if isinstance(step, str) else f"[{step}]" for step in path)
    return "context" + (steps if len(steps) <= _MAX_PLACE_CHARS else steps[:_MAX_PLACE_CHARS] + "…")


def _key_problem(key: object) -> str | None:
    if not isinstance(key, str):
        return f"has the key {key!r}, {_a(key)}; the keys of a context are str"
    problem = _text_problem(key)
    return problem and f"has a key that {problem}"


def _leaf_problem(value: object) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value!r}, which JSON does not know; use None or text"
    if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
        return f"is an integer of {value.bit_length():,} bits, too long for JSON; use text"
    if value is None or isinstance(value, int | float):
        return None
    return f"is {_a(value)}; a context holds what JSON holds"


def _text_problem(text: str) -> str | None:
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


def _a(value: object) -> str:
    return f"a value of type {type(value).__name__}"
