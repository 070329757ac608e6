"""The whole way of a context: checked, encoded, cut anywhere, and put together where cells are."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.context import encode_context, longest_unread_bytes
from orchestrator.domain import ContextKind, EncodedContext
from sandbox_image.repl.contexts import ContextAssembly

_MIB = 2**20

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text('a\n,[]{}"\\é中😀')
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
trees = st.recursive(
    leaves, lambda child: st.lists(child) | st.dictionaries(texts, child), max_leaves=20
)
documents = st.lists(
    st.fixed_dictionaries({"name": texts, "text": texts}, optional={"date": leaves}), min_size=1
)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), min_size=1)
contexts = (
    texts | st.lists(texts) | documents | messages | st.lists(trees) | st.dictionaries(texts, trees)
)
#: Sizes of the pieces a context is cut into, over and over.
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Yields pieces of some sizes, the sizes beginning anew while something is left."""
    listed, at = list(sizes), 0
    while at < len(data) or at == 0:
        for size in listed:
            yield data[at : at + size]
            at += size


def assembled(data: bytes, sizes: Iterable[int], *, kind: ContextKind) -> Any:  # noqa: ANN401 - any context
    """Puts a context together as a sandbox does."""
    assembly = ContextAssembly(kind.value)
    for piece in cut(data, sizes):
        assembly.write(piece)
    return assembly.value()


@settings(deadline=None)  # a busy machine is no failure
@given(context=contexts, sizes=cuts)
def test_context_arrives_as_it_was(context: Any, sizes: list[int]) -> None:  # noqa: ANN401 - the test's subject
    """Whatever a caller passes, however it is cut, a cell finds an equal value of equal types."""
    encoded = encode_context(context)

    arrived = assembled(encoded.data, sizes, kind=encoded.kind)

    # As text, in which 1, 1.0, True and "1" are four things, and a dict has an order.
    assert repr(arrived) == repr(context)


@settings(deadline=None)
@given(context=contexts, sizes=cuts)
def test_kind_says_what_a_cell_finds(context: Any, sizes: list[int]) -> None:  # noqa: ANN401 - the test's subject
    """What a root model is told of a context is true of the value that arrives, part by part."""
    encoded = encode_context(context)
    arrived = assembled(encoded.data, sizes, kind=encoded.kind)

    lengths = list(encoded.part_lengths)
    match encoded.kind:
        case ContextKind.TEXT:
            lengths = [len(arrived)]
        case ContextKind.TEXTS:
            lengths = [len(text) for text in arrived]
        case ContextKind.MESSAGES:
            lengths = [len(message["content"]) for message in arrived]
            assert all(isinstance(message["role"], str) for message in arrived)
        case ContextKind.DOCUMENTS:
            lengths = [len(document["text"]) for document in arrived]
            assert all(isinstance(document["name"], str) for document in arrived)
    assert list(encoded.part_lengths) == lengths[:100]
    assert encoded.total_chars >= sum(encoded.part_lengths)


@settings(deadline=None)
@given(
    document=st.lists(trees) | st.dictionaries(texts, trees) | trees,
    indent=st.none() | st.integers(0, 2),
    between=st.sampled_from([", ", ",\n", " ,\n"]),
    around=st.sampled_from(["", " ", "\n"]),
    sizes=cuts,
)
def test_json_of_others_arrives_too(
    document: Any,  # noqa: ANN401 - the test's subject
    indent: int | None,
    between: str,
    around: str,
    sizes: list[int],
) -> None:
    """A document with line ends inside its parts, as a cell may send one, is read all the same."""
    text = json.dumps(document, indent=indent, separators=(between, ": "), ensure_ascii=False)

    arrived = assembled(f"{around}{text}{around}".encode(), sizes, kind=ContextKind.JSON)

    assert repr(arrived) == repr(document)


@settings(deadline=None)
@given(text=st.text('[]{},:\n "1'), sizes=cuts)
def test_what_is_no_json_is_none_in_pieces(text: str, sizes: list[int]) -> None:
    """Reading part by part takes nothing that reading the whole would refuse."""
    try:
        whole = repr(json.loads(text))
    except ValueError:
        with pytest.raises(ValueError, match=r"line \d|no part beside it"):
            assembled(text.encode(), sizes, kind=ContextKind.JSON)
    else:
        assert repr(assembled(text.encode(), sizes, kind=ContextKind.JSON)) == whole


@pytest.mark.parametrize("data", [b"[1,\n]", b"[,\n1]", b"[1,\n,\n2]", b'{"a": 1,\n}', b"[1,\n2}"])
def test_comma_without_a_part_is_no_json(data: bytes) -> None:
    """A cut at a comma does not make the comma right."""
    with pytest.raises(ValueError, match=r"line \d|no part beside it"):
        assembled(data, [100], kind=ContextKind.JSON)


def test_text_that_is_cut_off_does_not_arrive() -> None:
    """Half a character at the end is an error, not a text that is shorter by one."""
    with pytest.raises(UnicodeDecodeError):
        assembled("é".encode()[:1], [1], kind=ContextKind.TEXT)


def peak_of_assembly(encoded: EncodedContext) -> int:
    """Returns the memory that putting a context together takes beside its pieces, in bytes."""
    pieces = list(cut(encoded.data, [_MIB]))
    # A traced interpreter never appends to a text in place, and nobody traces one in a sandbox.
    tracer = sys.gettrace()
    sys.settrace(None)
    tracemalloc.start()
    try:
        assembly = ContextAssembly(encoded.kind.value)
        for piece in pieces:
            assembly.write(piece)
        assert assembly.value()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)


@pytest.mark.parametrize("fill", ["x", "é", "中", "😀"])
def test_text_is_held_once(fill: str) -> None:
    """While a text comes, there are the text and a piece of it, however wide its characters are."""
    encoded = encode_context(fill * (16 * _MIB))

    # A piece as bytes, and as text with four bytes for each character.
    assert peak_of_assembly(encoded) < encoded.resident_bytes + 6 * _MIB


@pytest.mark.parametrize("fill", ["x", "😀"])
def test_parts_are_held_once(fill: str) -> None:
    """While a list comes, there are its parts and a piece of it, never the JSON of the whole."""
    documents: list[Any] = [{"name": f"{n}", "text": fill * 4000} for n in range(4000)]
    encoded = encode_context(documents)

    # A piece as text, once more as what is parsed, and the parts that it makes.
    assert peak_of_assembly(encoded) < encoded.resident_bytes + 16 * _MIB


def test_part_that_is_large_is_held_twice_and_no_other() -> None:
    """A document is waited for as text, of its own width, while those before it are values."""
    documents: list[Any] = [
        {"name": "small", "text": "😀"},
        {"name": "large", "text": "x" * (32 * _MIB)},
        {"name": "small", "text": "😀"},
        {"name": "large", "text": "y" * (32 * _MIB)},
    ]
    encoded = encode_context(documents)
    waiting_bytes = longest_unread_bytes(encoded.data)

    assert peak_of_assembly(encoded) < encoded.resident_bytes + waiting_bytes + 16 * _MIB
