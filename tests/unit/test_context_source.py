import io
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.context_source import ContextShape, ReadContext, read_context, read_source
from orchestrator.errors import InputError

_MAX_BYTES = 1000


def read(
    source: Path | str,
    *,
    encoding: str = "utf-8",
    shape: ContextShape = ContextShape.TEXT,
    max_bytes: int = _MAX_BYTES,
    stdin: bytes = b"",
) -> ReadContext:
    return read_context(
        str(source), encoding=encoding, shape=shape, max_bytes=max_bytes, stdin=io.BytesIO(stdin)
    )


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "context.txt"
        path.write_bytes(data)
        return path

    return write


def test_file_is_its_text(file: Callable[[bytes], Path]) -> None:
    """A text arrives character by character, line ends included."""
    assert read(file("naïve\r\nline\n".encode())).value == "naïve\r\nline\n"


def test_byte_order_mark_is_dropped(file: Callable[[bytes], Path]) -> None:
    """The mark that some editors put before UTF-8 is not part of the text."""
    assert read(file(b"\xef\xbb\xbftext")).value == "text"


def test_not_utf8_is_refused_with_the_offset_of_the_first_bad_byte(
    file: Callable[[bytes], Path],
) -> None:
    """Whoever passes Latin-1 reads where it shows, and which option takes it."""
    path = file(b"\xef\xbb\xbfcaf\xe9 au lait")

    with pytest.raises(InputError, match=r"0xe9 at offset 6 .*--encoding latin-1"):
        read(path)


def test_named_encoding_is_taken(file: Callable[[bytes], Path]) -> None:
    """The control: the same bytes are a text in the encoding they were written in."""
    assert read(file(b"caf\xe9"), encoding="latin-1").value == "café"


def test_utf16_is_recognised(file: Callable[[bytes], Path]) -> None:
    """A UTF-16 file is told apart from a binary one, and can be read when it is named."""
    path = file("text".encode("utf-16"))

    with pytest.raises(InputError, match="--encoding utf-16"):
        read(path)
    assert read(path, encoding="utf-16").value == "text"


@pytest.mark.parametrize("data", [b"PK\x03\x04\0\0", b"\x7fELF\xff\0"])
def test_binary_is_refused(file: Callable[[bytes], Path], data: bytes) -> None:
    """A file with a NUL is no text, whether or not the rest would decode."""
    with pytest.raises(InputError, match=f"is binary: there is a NUL at offset {data.index(0)}"):
        read(file(data))


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "base64", "\0"])
def test_encoding_that_is_none_is_refused(file: Callable[[bytes], Path], encoding: str) -> None:
    """A name that Python does not know, or that turns bytes into bytes, is said to be wrong."""
    with pytest.raises(InputError, match="is not an encoding of text"):
        read(file(b"x"), encoding=encoding)


def test_empty_file_is_refused(file: Callable[[bytes], Path]) -> None:
    """A question over nothing costs nothing."""
    with pytest.raises(InputError, match="is empty"):
        read(file(b""))


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The message has the path and what can be passed."""
    with pytest.raises(InputError, match=r"absent\.txt cannot be read: No such file"):
        read(tmp_path / "absent.txt")


def test_name_that_is_no_path_is_refused() -> None:
    """A name that the system cannot take is an input error, not a defect."""
    with pytest.raises(InputError, match="too long"):
        read("x" * 5000)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_forbidden_file_is_named(file: Callable[[bytes], Path]) -> None:
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


def test_endless_input_is_refused_once_it_is_too_large() -> None:
    """A pipe without an end is given up as soon as it holds more than could be used."""
    with pytest.raises(InputError, match="standard input holds more than 1,000 bytes"):
        read("-", stdin=b"x" * 1001)


def test_standard_input_is_read_to_its_end() -> None:
    """The control: what fits is the context."""
    assert read("-", stdin=b"x" * 1000).value == "x" * 1000


def test_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    """`--context <(command)` works: a shell passes it as the path of a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"from a pipe",))
    writer.start()

    found = read(path)
    writer.join(timeout=10)

    assert found.value == "from a pipe"


def test_reading_holds_the_bytes_and_the_text_once_each(tmp_path: Path) -> None:
    """A context of a gigabyte does not take five while it is read."""
    size_bytes = 20 * 2**20
    path = tmp_path / "large"
    path.write_bytes(b"x" * size_bytes)

    tracemalloc.start()
    read(path, max_bytes=size_bytes)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # A bytearray grows by an eighth at a time, and moves while it grows.
    assert peak_bytes < 2.5 * size_bytes


@pytest.mark.parametrize("data", ['["a", {"b": [1.5, null]}]', '{"a": 1}', '"text"'])
def test_json_is_taken_as_what_it_says(file: Callable[[bytes], Path], data: str) -> None:
    """With --as json, the context is the list, object or string."""
    found = read(file(data.encode()), shape=ContextShape.JSON).value

    assert found == eval(data, {"null": None})  # noqa: S307 - the literals above


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": ', "is not JSON"),
        ("[NaN]", "NaN is not JSON"),
        ("42", "expected a JSON list, object or string, got int"),
        ("[]", "is empty"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 10_000, "is not JSON"),
    ],
)
def test_what_is_no_context_is_refused(
    file: Callable[[bytes], Path], data: str, message: str
) -> None:
    """A value that cannot be a context, or cannot be read as JSON, is named before a run starts."""
    with pytest.raises(InputError, match=message):
        read(file(data.encode()), shape=ContextShape.JSON, max_bytes=10**6)


def test_json_file_is_text_unless_asked(file: Callable[[bytes], Path]) -> None:
    """The control: nothing is parsed because of what it looks like."""
    assert read(file(b"[1]")).value == "[1]"


def test_folder_is_its_text_files_in_order_under_their_names(tmp_path: Path) -> None:
    """Files are joined by whole path, each under its name, each ending its last line."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b/inner.txt").write_text("inner", "utf-8")
    (tmp_path / "a.txt").write_text("first\n", "utf-8")
    (tmp_path / "c.txt").write_text("last\n", "utf-8")

    assert read(tmp_path).value == (
        "===== a.txt =====\nfirst\n===== b/inner.txt =====\ninner\n===== c.txt =====\nlast\n"
    )


def test_folder_says_what_it_left_out(tmp_path: Path) -> None:
    """Binary files, links that leave the folder and pipes are counted aloud, never silent."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("key", "utf-8")
    (folder / "a.txt").write_text("text", "utf-8")
    (folder / "a.bin").write_bytes(b"\0\0")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")

    found = read(folder)

    assert found.value == "===== a.txt =====\ntext\n"
    assert "key" not in found.value
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 files, 4 bytes of text",
        "left out 2 (binary, or text of another encoding)",
        "left out 2 (links to folders, out of this one, or to nothing)",
        "left out 1 (neither file nor folder)",
    ]


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    """The control: a link is left out for where it leads, not for being one."""
    (tmp_path / "a.txt").write_text("text\n", "utf-8")
    (tmp_path / "b.txt").symlink_to("a.txt")

    assert read(tmp_path).value == "===== a.txt =====\ntext\n===== b.txt =====\ntext\n"


def test_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    """A link to a folder above would never end."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("text\n", "utf-8")
    (folder / "loop").symlink_to(folder)

    assert read(folder).value == "===== a.txt =====\ntext\n"


def test_repository_records_are_left_out(tmp_path: Path) -> None:
    """What a version control system keeps for itself is not the text of a folder."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("[core]", "utf-8")
    (tmp_path / ".hidden").write_text("text\n", "utf-8")

    assert read(tmp_path).value == "===== .hidden =====\ntext\n"


def test_folder_without_text_is_refused(tmp_path: Path) -> None:
    """An empty folder, or one of pictures, is no context; the message says what was there."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")

    with pytest.raises(InputError, match=r"no text file in it\. .*left out 1"):
        read(tmp_path)


def test_folder_too_large_is_refused(tmp_path: Path) -> None:
    """The files of a folder are counted together."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * 600)

    with pytest.raises(InputError, match="--memory"):
        read(tmp_path)


def test_folder_cannot_be_json(tmp_path: Path) -> None:
    """Many files are not one document."""
    with pytest.raises(InputError, match="is a folder, and --as json reads one file"):
        read(tmp_path, shape=ContextShape.JSON)


@pytest.mark.parametrize("data", [b"", b"\0", "é = 1\r\n".encode()])
def test_source_of_a_cell_is_taken_as_it_is(file: Callable[[bytes], Path], data: bytes) -> None:
    """Whatever a file of UTF-8 holds, its cell is what says what is wrong with it."""
    assert read_source(file(data), max_bytes=10) == data.decode()


@pytest.mark.parametrize("data", [b"caf\xe9", b"x" * 11])
def test_source_that_is_none_is_refused(file: Callable[[bytes], Path], data: bytes) -> None:
    """What is not UTF-8, or larger than any cell, is refused before anything is started."""
    with pytest.raises(InputError, match=r"0xe9 at offset 3|more than 10 bytes"):
        read_source(file(data), max_bytes=10)


def test_missing_source_is_named(tmp_path: Path) -> None:
    """The message has the path and the system's reason."""
    with pytest.raises(InputError, match=r"absent\.py cannot be read: No such file"):
        read_source(tmp_path / "absent.py", max_bytes=10)
