"""One file as a context: its text, what it says as JSON, or the one document of a list."""

import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.context_files import ContextShape, read_paths
from orchestrator.domain import ContextKind, EncodedContext
from orchestrator.errors import InputError

_MAX_BYTES = 1000
_MIB = 2**20


def read(
    path: Path,
    *,
    encoding: str = "utf-8",
    shape: ContextShape | None = None,
    max_bytes: int = _MAX_BYTES,
) -> EncodedContext:
    return read_paths(path, encoding=encoding, shape=shape, max_bytes=max_bytes).value


def text_of(path: Path, *, encoding: str = "utf-8") -> str:
    return read(path, encoding=encoding).data.decode()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "context.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_file_is_its_text(file: Callable[..., Path]) -> None:
    """A text arrives character by character, line ends included, and is measured."""
    encoded = read(file("naïve\r\nline\n".encode()))

    assert (encoded.kind, encoded.data.decode()) == (ContextKind.TEXT, "naïve\r\nline\n")
    assert (encoded.total_chars, encoded.part_lengths) == (12, (12,))


def test_byte_order_mark_is_dropped(file: Callable[..., Path]) -> None:
    """The mark that some editors put before UTF-8 is not part of the text."""
    assert text_of(file(b"\xef\xbb\xbftext")) == "text"


def test_not_utf8_is_refused_with_the_offset_of_the_first_bad_byte(
    file: Callable[..., Path],
) -> None:
    """Whoever passes Latin-1 reads where it shows, and which option takes it."""
    path = file(b"\xef\xbb\xbfcaf\xe9 au lait")

    with pytest.raises(InputError, match=r"0xe9 at offset 6 .*--encoding latin-1"):
        read(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * (_MIB - 1) + "é".encode() + b"\xe9 ", rf"0xe9 at offset {_MIB + 1:,} "),
        (b"x" * (2 * _MIB - 1) + b"\xc3", rf"0xc3 at offset {2 * _MIB - 1:,} \(unexpected end"),
        (b"x" * (_MIB - 1) + b"\xc3(", rf"0xc3 at offset {_MIB - 1:,} \(invalid continuation"),
    ],
    ids=["after-a-cut", "at-the-end", "in-a-cut"],
)
def test_offset_counts_from_the_beginning(
    file: Callable[..., Path], data: bytes, words: str
) -> None:
    """In a file that is read in pieces, and cuts a character in two, the offset is the file's."""
    with pytest.raises(InputError, match=words):
        read(file(data), max_bytes=10 * _MIB)


def test_character_that_a_piece_cuts_is_whole(file: Callable[..., Path]) -> None:
    """The control: a text whose characters lie across every place it is cut at is as it was."""
    text = "x" + "é中" * _MIB

    assert text_of_large(file(text.encode())) == text


def text_of_large(path: Path) -> str:
    return read(path, max_bytes=10 * _MIB).data.decode()


def test_named_encoding_is_taken(file: Callable[..., Path]) -> None:
    """The control: the same bytes are a text in the encoding they were written in."""
    assert text_of(file(b"caf\xe9"), encoding="latin-1") == "café"


def test_utf16_is_recognised(file: Callable[..., Path]) -> None:
    """A UTF-16 file is told apart from a binary one, and can be read when it is named."""
    path = file("text".encode("utf-16"))

    with pytest.raises(InputError, match="--encoding utf-16"):
        read(path)
    assert text_of(path, encoding="utf-16") == "text"


@pytest.mark.parametrize("data", [b"PK\x03\x04\0\0", b"\x7fELF\xff\0"])
def test_binary_is_refused(file: Callable[..., Path], data: bytes) -> None:
    """A file with a NUL is no text, whether or not the rest would decode."""
    with pytest.raises(InputError, match=f"is binary: there is a NUL at offset {data.index(0)}"):
        read(file(data))


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "base64", "\0"])
def test_encoding_that_is_none_is_refused(file: Callable[..., Path], encoding: str) -> None:
    """A name that Python does not know, or that turns bytes into bytes, is said to be wrong."""
    with pytest.raises(InputError, match="is not an encoding of text"):
        read(file(b"x"), encoding=encoding)


def test_encoding_that_names_no_byte_is_refused(file: Callable[..., Path]) -> None:
    """An encoding that says what is wrong without a place is an input error, not a defect."""
    with pytest.raises(InputError, match="is not undefined: undefined encoding"):
        read(file(b"text"), encoding="undefined")


def test_half_a_character_is_refused(file: Callable[..., Path]) -> None:
    """What an encoding lets through and UTF-8 has no form for does not come to be sent."""
    with pytest.raises(InputError, match=r"half a surrogate pair, U\+D800, at index 2"):
        read(file(rb"ab\ud800"), encoding="unicode_escape")


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("shape", [None, *ContextShape])
def test_empty_file_is_refused(
    file: Callable[..., Path], data: bytes, shape: ContextShape | None
) -> None:
    """A question over nothing costs nothing, whatever shape the nothing is to have."""
    with pytest.raises(InputError, match="is empty"):
        read(file(data), shape=shape)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The message has the path and what can be passed."""
    with pytest.raises(InputError, match=r"absent\.txt cannot be read: No such file"):
        read(tmp_path / "absent.txt")


@pytest.mark.parametrize(("name", "why"), [("x" * 5000, "too long"), ("a\0b", "a NUL")])
def test_name_that_is_no_path_is_refused(name: str, why: str) -> None:
    """A name that the system cannot take is an input error, not a defect."""
    with pytest.raises(InputError, match=f"is not a path: .*{why}"):
        read(Path(name))


def test_no_path_at_all_is_refused() -> None:
    """A program that found no file to pass is told so."""
    with pytest.raises(InputError, match="no path to read a context from"):
        read_paths([], max_bytes=1)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_forbidden_file_is_named(file: Callable[..., Path]) -> None:
    """A file of somebody else's is an input error with the system's reason."""
    path = file(b"x")
    path.chmod(0)

    with pytest.raises(InputError, match="Permission denied"):
        read(path)


def test_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A terabyte is refused from its size alone, with the figures and the option."""
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.truncate(2**40)

    with pytest.raises(InputError, match=r"1,099,511,627,776 bytes.*--memory"):
        read(path, max_bytes=2**30)


def test_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    """`--context <(command)` works: a shell passes it as the path of a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"from a pipe",))
    writer.start()

    text = text_of(path)
    writer.join(timeout=10)

    assert text == "from a pipe"


@pytest.mark.parametrize("shape", [ContextShape.TEXT, ContextShape.DOCUMENTS])
def test_reading_holds_the_context_once(tmp_path: Path, shape: ContextShape) -> None:
    """A context of a gigabyte takes one while it is read, and not one more to be sent."""
    size_bytes = 20 * _MIB
    path = tmp_path / "large"
    path.write_bytes(b"0123456789abcde\n" * (size_bytes // 16))

    tracemalloc.start()
    encoded = read(path, shape=shape, max_bytes=size_bytes)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # The bytes grow by an eighth at a time, beside some pieces of 1 MiB on their way.
    assert peak_bytes < 1.125 * len(encoded.data) + 8 * _MIB


@pytest.mark.parametrize("data", ['["a", {"b": [1.5, null]}]', '{"a": 1}'])
def test_json_is_taken_as_what_it_says(file: Callable[..., Path], data: str) -> None:
    """With --as json, the context is the list or object."""
    assert json.loads(read(file(data.encode()), shape=ContextShape.JSON).data) == json.loads(data)


def test_json_string_is_a_text(file: Callable[..., Path]) -> None:
    """A string in JSON is a text, its escapes read."""
    encoded = read(file(rb'"a\nb"'), shape=ContextShape.JSON)

    assert (encoded.kind, encoded.data) == (ContextKind.TEXT, b"a\nb")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": ', r"is not JSON: .*line 1 column 7"),
        ("[1,\n 2\n 3]", r"is not JSON: .*line 3 column 2"),
        ("[NaN]", "NaN is not JSON"),
        ("42", "expected a JSON list, object or string, got int"),
        ("null", "expected a JSON list, object or string, got null"),
        ("[]", "is empty"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 10_000, "is not JSON"),
        ('{"a": 1}\n{"a": 2}', r"Extra data.*If it has one value a line, name it \.jsonl"),
        (r'["a", "\ud800"]', r"context\[1\] holds half a surrogate pair"),
    ],
)
def test_what_is_no_json_context_is_refused(
    file: Callable[..., Path], data: str, message: str
) -> None:
    """A value that cannot be a context, or cannot be read as JSON, is named before a run starts."""
    with pytest.raises(InputError, match=message):
        read(file(data.encode()), shape=ContextShape.JSON, max_bytes=10**6)


def test_json_file_is_text_unless_asked(file: Callable[..., Path]) -> None:
    """The control: nothing is parsed because of what it looks like."""
    assert text_of(file(b"[1]", "list.json")) == "[1]"
    assert text_of(file(b"1\n", "list.jsonl")) == "1\n"


@pytest.mark.parametrize("name", ["records.jsonl", "RECORDS.NDJSON"])
@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'"one"\r\n\r\n  \n"two"', ["one", "two"]),
        ('"a\u2028b"\n'.encode(), ["a\u2028b"]),
    ],
    ids=["records", "blank-lines", "other-line-ends"],
)
def test_json_lines_are_a_list(
    file: Callable[..., Path], name: str, data: bytes, records: list[Any]
) -> None:
    """A file of JSON Lines is the list of what its lines say; blank lines say nothing."""
    assert json.loads(read(file(data, name), shape=ContextShape.JSON).data) == records


def test_json_lines_are_read_across_pieces(file: Callable[..., Path]) -> None:
    """A line is whole wherever the file is cut while it is read."""
    records = [{"n": n, "text": "é" * 5000} for n in range(500)]
    data = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    path = file(data, "large.jsonl")

    encoded = read(path, shape=ContextShape.JSON, max_bytes=100 * _MIB)

    assert json.loads(encoded.data) == records


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}', r"line 2: .*got '\{\"a\":': Expecting value at column 7"),
        (b"1\n2\n[NaN]", r"line 3: .*NaN is not JSON"),
        (b"1\n1 2", r"line 2: .*Extra data at column 3"),
        (b"[" * 100_000, "line 1: expected one JSON value a line"),
        (b"\n \n", "is empty"),
    ],
)
def test_broken_line_is_named(file: Callable[..., Path], data: bytes, message: str) -> None:
    """Whoever has a million records reads which of them is broken, where, and what it holds."""
    with pytest.raises(InputError, match=message):
        read(file(data, "broken.jsonl"), shape=ContextShape.JSON, max_bytes=10**6)


def test_one_file_can_be_a_list_of_one_document(file: Callable[..., Path]) -> None:
    """As documents, a file has its name beside its text."""
    encoded = read(file('a "b"\n\\é\x01'.encode(), "notes.md"), shape=ContextShape.DOCUMENTS)

    assert encoded.kind is ContextKind.DOCUMENTS
    assert json.loads(encoded.data) == [{"name": "notes.md", "text": 'a "b"\n\\é\x01'}]
    assert encoded.part_lengths == (9,)
