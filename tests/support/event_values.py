"""Makes values of whatever types events are made of: random ones, and ones full of one text.

Read off the classes, so that a field that is added is tested without anybody thinking of it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from orchestrator.events import LIVE_EVENTS, RunEvent

#: Every event that a trajectory may hold.
RECORDED_EVENTS: tuple[type, ...] = tuple(
    kind for kind in get_args(RunEvent) if kind not in LIVE_EVENTS
)

# Half of surrogate pairs too: cells print them.
_TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
_LEAVES: dict[type, st.SearchStrategy[Any]] = {
    str: _TEXTS,
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    types.NoneType: st.none(),
}


def instances_of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 - types as values
    """Returns a strategy for any value of a type."""
    kind = kind.__supertype__ if isinstance(kind, NewType) else kind
    arguments = get_args(kind)
    makers: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        Literal: lambda: st.sampled_from(arguments),
        tuple: lambda: st.lists(instances_of(arguments[0]), max_size=2).map(tuple),
        frozenset: lambda: st.frozensets(instances_of(arguments[0]), max_size=2),
        dict: lambda: st.dictionaries(_TEXTS, instances_of(arguments[1]), max_size=2),
        Union: lambda: st.one_of(*(instances_of(argument) for argument in arguments)),
    }
    if (origin := _origin(kind)) in makers:
        return makers[origin]()
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        made = {field.name: instances_of(hints[field.name]) for field in fields(kind)}
        return st.builds(_constructor(kind), **made)
    return _LEAVES[kind] if kind in _LEAVES else st.sampled_from(list(kind))


def filled_with(text: str, kind: Any) -> Any:  # noqa: ANN401 - likewise
    """Returns a value of a type in which every text is `text` and nothing is left out."""
    kind = kind.__supertype__ if isinstance(kind, NewType) else kind
    arguments = get_args(kind)
    makers: dict[Any, Callable[[], Any]] = {
        Literal: lambda: arguments[0],
        tuple: lambda: (filled_with(text, arguments[0]),),
        frozenset: lambda: frozenset({filled_with(text, arguments[0])}),
        dict: lambda: {text: filled_with(text, arguments[1])},
        Union: lambda: filled_with(text, arguments[0]),
        str: lambda: text,
        int: lambda: 1,
        float: lambda: 0.5,
        bool: lambda: True,
    }
    if (origin := _origin(kind)) in makers:
        return makers[origin]()
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        made = {field.name: filled_with(text, hints[field.name]) for field in fields(kind)}
        return _constructor(kind)(**made)
    return next(iter(kind))


def classes_in(kind: Any) -> Iterator[type]:  # noqa: ANN401 - likewise
    """Yields a dataclass and every dataclass in its fields, each as often as it occurs."""
    if isinstance(kind, NewType):
        yield from classes_in(kind.__supertype__)
    for argument in get_args(kind):
        yield from classes_in(argument)
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in get_type_hints(kind).values():
            yield from classes_in(hint)


def _origin(kind: Any) -> Any:  # noqa: ANN401 - likewise
    origin = get_origin(kind)
    return Union if origin is types.UnionType else origin or kind


def _constructor(kind: Any) -> Callable[..., Any]:  # noqa: ANN401 - likewise
    constructor: Callable[..., Any] = kind
    return constructor
