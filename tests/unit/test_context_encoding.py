from __future__ import annotations

import enum
import hashlib
import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context import encode_context
from orchestrator.domain import ContextKind
from orchestrator.errors import InputError

trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("context", "kind", "lengths"),
    [
        ("", ContextKind.TEXT, (0,)),
        ("größe", ContextKind.TEXT, (5,)),
        (["one", "three"], ContextKind.DOCUMENTS, (3, 5)),
        ([{"role": "user", "content": "Hi"}], ContextKind.MESSAGES, (2,)),
        ([{"role": "user", "content": ["Hi"]}], ContextKind.JSON, (35,)),
        (["one", 2], ContextKind.JSON, (3, 1)),
        ([], ContextKind.JSON, ()),
        ({"a": "text", "b": [1]}, ContextKind.JSON, (4, 3)),
        ({}, ContextKind.JSON, ()),
    ],
)
def test_kind_and_lengths(context: Any, kind: ContextKind, lengths: tuple[int, ...]) -> None:  # noqa: ANN401 - the test's subject
    """Each shape of a context has its kind, and its parts have their lengths."""
    encoded = encode_context(context)

    assert (encoded.kind, encoded.part_lengths) == (kind, lengths)
    assert encoded.total_chars == sum(lengths)


@settings(deadline=None)  # a busy machine is no failure
@given(context=st.lists(trees) | st.dictionaries(st.text(), trees))
def test_structure_arrives_as_it_is(context: Any) -> None:  # noqa: ANN401 - the test's subject
    """What a worker reads from the bytes equals what the caller gave."""
    encoded = encode_context(context)

    assert json.loads(encoded.data) == context
    assert encoded.sha256_hex == hashlib.sha256(encoded.data).hexdigest()
    assert encoded.resident_bytes >= sys.getsizeof(context)


@settings(deadline=None)  # a busy machine is no failure
@given(context=st.text())
def test_text_arrives_as_it_is(context: str) -> None:
    """Text crosses as UTF-8, byte for byte."""
    assert encode_context(context).data.decode() == context


def test_only_the_first_lengths_are_kept() -> None:
    """A list of a million parts has a hundred lengths and one true total."""
    encoded = encode_context(["ab"] * 1000)

    assert encoded.part_lengths == (2,) * 100
    assert encoded.total_chars == 2000


def test_resident_bytes_follow_the_value() -> None:
    """A text outside Latin takes what Python takes for it; a list takes the sum of its parts."""
    wide = "\u4e2d" * 100_000

    assert encode_context(wide).resident_bytes == sys.getsizeof(wide)
    assert encode_context([wide, "ascii"]).resident_bytes == (
        sys.getsizeof([wide, "ascii"]) + sys.getsizeof(wide) + sys.getsizeof("ascii")
    )


class Colour(enum.Enum):
    """Something JSON does not know."""

    RED = 1


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (b"bytes", "a str, a list or a dict, not a value of type bytes"),
        (None, "not a value of type NoneType"),
        (("a", "b"), "not a value of type tuple"),
        (["a", {"b": {1, 2}}], r"context\[1\]\['b'\] is a value of type set"),
        ([[Colour.RED]], r"context\[0\]\[0\] is a value of type Colour"),
        (["a", ("b",)], r"context\[1\] is a value of type tuple"),
        ({"x": math.nan}, r"context\['x'\] is nan"),
        ([-math.inf], r"context\[0\] is -inf"),
        ({1: "one"}, "context has the key 1, a value of type int"),
        ([{"a": {None: 1}}], r"context\[0\]\['a'\] has the key None"),
        ("ab\ud800c", "the context holds half a surrogate pair, U\\+D800, at index 2"),
        (["ok", "\udfff"], r"context\[1\] holds half a surrogate pair, U\+DFFF, at index 0"),
        ({"k\ud800": 1}, "context has a key that holds half a surrogate pair"),
        ([10**5000], r"context\[0\] is an integer of 16,610 bits"),
    ],
)
def test_unsendable_context_is_refused_with_its_place(context: Any, words: str) -> None:  # noqa: ANN401 - the test's subject
    """What JSON would lose or change is refused before a run, and the message says where it is."""
    with pytest.raises(InputError, match=words):
        encode_context(context)


def test_context_that_holds_itself_is_refused() -> None:
    """A loop is refused, not followed."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="nested deeper than 500, or holds itself"):
        encode_context(loop)


def test_deep_nesting_control() -> None:
    """Nesting up to the bound is taken, and a JSON reader takes it too."""
    deep: list[Any] = []
    for _ in range(499):
        deep = [deep]

    assert json.loads(encode_context(deep).data) == deep
