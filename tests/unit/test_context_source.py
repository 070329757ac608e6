"""What a command line names: a context on standard input or in files, or a file that is a cell."""

import io
import json
from pathlib import Path

import pytest

from orchestrator.cli.context_source import (
    ContextShape,
    FoundContext,
    read_context,
    read_source,
)
from orchestrator.domain import ContextKind
from orchestrator.errors import InputError


def read(
    source: Path | str, *, shape: ContextShape | None = None, stdin: bytes = b""
) -> FoundContext:
    return read_context(
        str(source), encoding="utf-8", shape=shape, max_bytes=1000, stdin=io.BytesIO(stdin)
    )


def test_standard_input_is_read_to_its_end() -> None:
    """What fits is the context, as text where nothing else is asked for."""
    found = read("-", stdin=b"x" * 1000)

    assert (found.value.kind, found.value.data) == (ContextKind.TEXT, b"x" * 1000)


def test_endless_input_is_refused_once_it_is_too_large() -> None:
    """A pipe without an end is given up as soon as it holds more than could be used."""
    with pytest.raises(InputError, match="Standard input holds more than 1,000 bytes"):
        read("-", stdin=b"x" * 1001)


def test_empty_standard_input_is_refused() -> None:
    """A pipe that brought nothing is told by its name."""
    with pytest.raises(InputError, match="Standard input is empty"):
        read("-")


def test_standard_input_takes_each_shape() -> None:
    """A pipe can be JSON, and it can be one document."""
    assert read("-", shape=ContextShape.JSON, stdin=b"[1, 2]").value.kind is ContextKind.JSON
    document = read("-", shape=ContextShape.DOCUMENTS, stdin=b"text").value
    assert json.loads(document.data) == [{"name": "Standard input", "text": "text"}]


def test_file_and_folder_have_their_own_shapes(tmp_path: Path) -> None:
    """Where nothing is asked for, a file is its text and a folder its documents."""
    (tmp_path / "a.txt").write_text("text", "utf-8")

    assert read(tmp_path / "a.txt").value.kind is ContextKind.TEXT
    assert read(tmp_path).value.kind is ContextKind.DOCUMENTS


@pytest.mark.parametrize("data", [b"", b"\0", "é = 1\r\n".encode()])
def test_source_of_a_cell_is_taken_as_it_is(tmp_path: Path, data: bytes) -> None:
    """Whatever a file of UTF-8 holds, its cell is what says what is wrong with it."""
    (tmp_path / "cell.py").write_bytes(data)

    assert read_source(tmp_path / "cell.py", max_bytes=10) == data.decode()


@pytest.mark.parametrize("data", [b"caf\xe9", b"x" * 11])
def test_source_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    """What is not UTF-8, or larger than any cell, is refused before anything is started."""
    (tmp_path / "cell.py").write_bytes(data)

    with pytest.raises(InputError, match=r"0xe9 at offset 3|more than 10 bytes"):
        read_source(tmp_path / "cell.py", max_bytes=10)


def test_missing_source_is_named(tmp_path: Path) -> None:
    """The message has the path and the system's reason."""
    with pytest.raises(InputError, match=r"absent\.py cannot be read: No such file"):
        read_source(tmp_path / "absent.py", max_bytes=10)
