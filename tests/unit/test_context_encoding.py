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

from orchestrator.context import TextEncoding, encode_context, longest_unread_bytes
from orchestrator.domain import ContextKind
from orchestrator.errors import InputError

_MIB = 2**20

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
        (["one", "three"], ContextKind.TEXTS, (3, 5)),
        ([{"role": "user", "content": "Hi"}], ContextKind.MESSAGES, (2,)),
        ([{"role": "user", "content": ["Hi"]}], ContextKind.JSON, (35,)),
        ([{"name": "a", "text": "one"}, {"name": "b", "text": ""}], ContextKind.DOCUMENTS, (3, 0)),
        ([{"name": "a", "text": "one"}, "two"], ContextKind.JSON, (28, 3)),
        ([{"name": "a", "text": None}], ContextKind.JSON, (27,)),
        ([{"name": 1, "text": "one"}], ContextKind.JSON, (26,)),
        ([{"text": "one"}], ContextKind.JSON, (15,)),
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


@pytest.mark.parametrize(
    ("extra", "kind", "chars"),
    [
        ({"name": "a", "text": "one"}, ContextKind.DOCUMENTS, 3),
        ({"role": "user", "content": "Hi"}, ContextKind.MESSAGES, 2),
    ],
)
def test_further_keys_change_no_kind(extra: dict[str, Any], kind: ContextKind, chars: int) -> None:
    """A document with a date is a document: nobody shall have to leave the date out; it arrives."""
    context: list[Any] = [{**extra, "date": "2026-11-27", "tags": [1, 2]}]

    encoded = encode_context(context)

    assert (encoded.kind, encoded.part_lengths) == (kind, (chars,))
    assert json.loads(encoded.data) == context


def test_what_is_message_and_document_is_a_message() -> None:
    """A list that could be of two kinds is always of the same one."""
    both: dict[str, Any] = {"name": "a", "text": "one", "role": "user", "content": "Hi"}

    assert encode_context([both]).kind is ContextKind.MESSAGES


def test_what_is_ready_stays_as_it_is() -> None:
    """A context that was read from files is not encoded again."""
    encoded = encode_context("text")

    assert encode_context(encoded) is encoded


def test_parts_are_between_line_ends() -> None:
    """A sandbox may cut between two parts wherever it sees a comma before a line end."""
    assert encode_context(["a\n,\nb", {"c": ["d"]}, 1.0]).data.splitlines() == [
        b'["a\\n,\\nb",',
        b'{"c": ["d"]},',
        b"1.0]",
    ]
    assert encode_context({"a": ["b"], "c": "d"}).data == b'{"a": ["b"],\n"c": "d"}'


def test_resident_bytes_follow_the_value() -> None:
    """A text outside Latin takes what Python takes for it; a list takes what its parts do."""
    wide = "\u4e2d" * 100_000

    assert encode_context(wide).resident_bytes == sys.getsizeof(wide)
    of_parts = encode_context([wide, "ascii"]).resident_bytes
    assert 0 <= of_parts - sys.getsizeof(wide) - sys.getsizeof("ascii") < 200


def test_keys_that_repeat_count_once() -> None:
    """A million records of the same fields have their names once in memory, not a million times."""
    key = "k" * 10_000
    records: list[Any] = [{key: number} for number in range(100)]

    assert encode_context(records).resident_bytes < 2 * 10_000 + 100 * 500


@given(
    pieces=st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab") | st.text("aé")
    )
)
def test_text_in_pieces_is_measured_as_the_whole(pieces: list[str]) -> None:
    """However a text comes, its bytes, lengths and memory are those of the text as one value."""
    encoding = TextEncoding()
    for piece in pieces:
        encoding.add(piece)

    assert encoding.encoded() == encode_context("".join(pieces))


@pytest.mark.parametrize(
    "sizes",
    [
        [10, 10, 10],
        [1000] * 5000,
        [3 * _MIB, 10, 10],
        [10, 10, 3 * _MIB],
        [10, 3 * _MIB, 10, 10],
        [4 * _MIB],
    ],
)
def test_longest_wait_is_that_for_the_longest_part(sizes: list[int]) -> None:
    """Small parts are read a piece at a time; one larger than a piece is waited for."""
    data = encode_context(["x" * size for size in sizes]).data

    assert 0 <= longest_unread_bytes(data) - max(sizes) <= min(_MIB, len(data))


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
