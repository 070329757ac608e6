"""Folders and several files as contexts: what is in, what is called how, and what is left out."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.context import encode_context
from orchestrator.context_files import ContextShape, FoundContext, read_paths
from orchestrator.domain import ContextKind
from orchestrator.errors import InputError


def read(
    paths: Path | Sequence[Path], *, shape: ContextShape | None = None, max_bytes: int = 1000
) -> FoundContext:
    return read_paths(paths, shape=shape, max_bytes=max_bytes)


def documents(paths: Path | Sequence[Path]) -> list[tuple[str, str]]:
    found = json.loads(read(paths).value.data)
    return [(document["name"], document["text"]) for document in found]


def write(folder: Path, **texts: str) -> Path:
    """Writes files, `__` in a keyword standing for a slash and `_` for a dot."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def test_folder_is_its_files_as_documents(tmp_path: Path) -> None:
    """Each file has its path below the folder as its name, in the order of whole paths."""
    write(tmp_path, b__inner_txt="inner", a_txt="first\n", c_txt="last\n")

    assert documents(tmp_path) == [
        ("a.txt", "first\n"),
        ("b/inner.txt", "inner"),
        ("c.txt", "last\n"),
    ]


def test_documents_are_as_if_a_caller_had_listed_them(tmp_path: Path) -> None:
    """A folder's context is told and sized as the same list from Python is."""
    texts = {"a_txt": "ascii", "b_txt": "größe", "c_txt": "中文", "d_txt": "😀", "e_txt": ""}
    write(tmp_path, **texts)
    listed: list[Any] = [
        {"name": name.replace("_", "."), "text": text} for name, text in texts.items()
    ]

    found, expected = read(tmp_path).value, encode_context(listed)

    assert (found.kind, found.data) == (ContextKind.DOCUMENTS, expected.data)
    assert (found.part_lengths, found.total_chars) == (expected.part_lengths, expected.total_chars)
    assert found.sha256_hex == expected.sha256_hex
    # The names of the two fields are counted once there, and not at all here.
    assert abs(found.resident_bytes - expected.resident_bytes) < 300


def test_folder_can_be_one_text(tmp_path: Path) -> None:
    """As text, the files are joined, each under its name, each ending its last line."""
    write(tmp_path, b__inner_txt="inner", a_txt="first\n", c_txt="last\n")

    value = read(tmp_path, shape=ContextShape.TEXT).value

    assert value.kind is ContextKind.TEXT
    assert value.data.decode() == (
        "===== a.txt =====\nfirst\n===== b/inner.txt =====\ninner\n===== c.txt =====\nlast\n"
    )


def test_folder_says_what_it_left_out(tmp_path: Path) -> None:
    """What is in the folder and not in the context is counted aloud, never silent."""
    folder = write(tmp_path / "folder", a_txt="text")
    write(tmp_path, keys="1")
    (folder / "a.bin").write_bytes(b"\0\0")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "late.bin").write_bytes(b"x" * 100 + b"\0")
    (folder / "link").symlink_to(tmp_path / "keys")
    (folder / "dangling").symlink_to("nowhere")
    (folder / ".env").write_text("KEY=1", "utf-8")
    os.mkfifo(folder / "pipe")

    found = read(folder)

    assert json.loads(found.value.data) == [{"name": "a.txt", "text": "text"}]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 file, 4 bytes of text",
        "left out 1 (hidden: a name that begins with a dot; name it to have it read)",
        "left out 3 (binary, or text of another encoding)",
        "left out 2 (links to folders, out of this one, or to nothing)",
        "left out 1 (neither file nor folder)",
    ]


def test_file_that_turns_out_binary_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file whose second megabyte is no text is left out whole, in either shape."""
    write(tmp_path, a_txt="a", c_txt="c")
    (tmp_path / "b.txt").write_bytes("é".encode() * 2**20 + b"\0")

    joined = read(tmp_path, shape=ContextShape.TEXT, max_bytes=10**7).value
    listed = read(tmp_path, max_bytes=10**7).value

    assert joined.data == b"===== a.txt =====\na\n===== c.txt =====\nc\n"
    assert joined.resident_bytes < 1000
    assert [document["name"] for document in json.loads(listed.data)] == ["a.txt", "c.txt"]


def test_hidden_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    """Keys and a repository's records are no reader's text; whoever names a file means it."""
    write(tmp_path, a_txt="text")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("[core]", "utf-8")
    (tmp_path / ".env").write_text("KEY=1", "utf-8")
    (tmp_path / "shortcut").symlink_to(".env")

    assert documents(tmp_path) == [("a.txt", "text")]
    assert "left out 3 (hidden" in " ".join(read(tmp_path).notes)
    assert documents(tmp_path / ".git") == [("config", "[core]")]
    assert documents([tmp_path / "a.txt", tmp_path / ".env"])[1] == (".env", "KEY=1")


def test_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    """The control: a link is left out for where it leads, not for being one."""
    write(tmp_path, a_txt="text")
    (tmp_path / "b.txt").symlink_to("a.txt")

    assert documents(tmp_path) == [("a.txt", "text"), ("b.txt", "text")]


def test_circles_of_links_end(tmp_path: Path) -> None:
    """A link to a folder above, or to itself, is counted and not followed for ever."""
    folder = write(tmp_path / "folder", a_txt="text")
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")

    found = read(folder)

    assert json.loads(found.value.data) == [{"name": "a.txt", "text": "text"}]
    assert "left out 2 (links" in found.notes[1]


def test_folder_behind_a_link_is_read(tmp_path: Path) -> None:
    """The control: a link that a caller names is what the caller means."""
    write(tmp_path / "folder", a_txt="text")
    (tmp_path / "link").symlink_to("folder")

    assert documents(tmp_path / "link") == [("a.txt", "text")]


def test_name_that_is_no_utf8_is_sent_all_the_same(tmp_path: Path) -> None:
    """A file's name is bytes; what of it is no text is replaced, and the file is read."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("text", "utf-8")

    assert documents(tmp_path) == [("caf\N{REPLACEMENT CHARACTER}.txt", "text")]


def test_folder_without_text_is_refused(tmp_path: Path) -> None:
    """An empty folder, or one of pictures, is no context; the message says what was there."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")

    with pytest.raises(InputError, match=r"no text file in it, so .*left out 1"):
        read(tmp_path)


def test_folder_of_empty_files_is_refused(tmp_path: Path) -> None:
    """Names without a text are nothing to ask about; one text among them is."""
    write(tmp_path, a_py="", b_py="")

    with pytest.raises(InputError, match="all 2 text files in it are empty"):
        read(tmp_path)
    write(tmp_path, c_py="1")
    assert documents(tmp_path) == [("a.py", ""), ("b.py", ""), ("c.py", "1")]


@pytest.mark.parametrize("shape", [None, ContextShape.TEXT])
def test_folder_too_large_is_refused(tmp_path: Path, shape: ContextShape | None) -> None:
    """The files of a folder are counted together, as what they are and not as what is sent."""
    write(tmp_path, a="x" * 600, b="x" * 400)

    read(tmp_path, shape=shape)
    with pytest.raises(InputError, match=r"holds more than 999 bytes; .*--memory"):
        read(tmp_path, shape=shape, max_bytes=999)


def test_large_file_of_a_folder_is_refused_by_its_size(tmp_path: Path) -> None:
    """Of a file that cannot fit beside those before it, no more than its beginning is read."""
    write(tmp_path, a="x" * 600, b="x" * 2**20)
    os.truncate(tmp_path / "b", 2**40)

    with pytest.raises(InputError, match=r"holds 1,099,511,628,376 bytes or more; .*--memory"):
        read(tmp_path, max_bytes=2**30)


def test_what_is_left_out_is_not_counted(tmp_path: Path) -> None:
    """The control: a film in the folder does not make its text too large."""
    write(tmp_path, a="x" * 600, c="x" * 400)
    (tmp_path / "b.mp4").write_bytes(b"\0" * 10_000)

    assert [name for name, _ in documents(tmp_path)] == ["a", "c"]


@pytest.mark.parametrize("is_several", [False, True])
def test_many_files_cannot_be_json(tmp_path: Path, *, is_several: bool) -> None:
    """Many files are not one document."""
    write(tmp_path, a_json="[1]", b_json="[2]")
    paths = [tmp_path / "a.json", tmp_path / "b.json"] if is_several else tmp_path

    with pytest.raises(InputError, match="and --as json reads one file"):
        read(paths, shape=ContextShape.JSON)


def test_several_paths_are_documents_in_their_order(tmp_path: Path) -> None:
    """Files and folders can be mixed; a folder's files are called after it."""
    write(tmp_path, z_txt="z", docs__b_txt="b", docs__a_txt="a")

    found = read([tmp_path / "z.txt", tmp_path / "docs"])

    assert [document["name"] for document in json.loads(found.value.data)] == [
        "z.txt",
        "docs/a.txt",
        "docs/b.txt",
    ]
    assert found.notes == ("2 paths: 3 files, 3 bytes of text",)


def test_paths_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Documents of two folders are called by as much of their paths as it takes, and no more."""
    write(tmp_path, x__docs__a_txt="1", y__docs__a_txt="2")

    assert documents([tmp_path / "x/docs", tmp_path / "y/docs"]) == [
        ("x/docs/a.txt", "1"),
        ("y/docs/a.txt", "2"),
    ]


def test_path_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    """A document that is there twice would be counted twice."""
    write(tmp_path, a_txt="a", b_txt="b")

    (tmp_path / "x").mkdir()
    twice = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "x/../a.txt"]

    assert documents(twice) == [("a.txt", "a"), ("b.txt", "b")]


@pytest.mark.parametrize(
    ("data", "words"), [(b"\0", r"b\.txt is binary"), (None, r"b\.txt cannot be read: No such")]
)
def test_named_file_is_never_left_out(tmp_path: Path, data: bytes | None, words: str) -> None:
    """Of a folder a picture is left out; a file that was named and cannot be read is an error."""
    write(tmp_path, a_txt="a")
    if data is not None:
        (tmp_path / "b.txt").write_bytes(data)

    with pytest.raises(InputError, match=words):
        read([tmp_path / "a.txt", tmp_path / "b.txt"])


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_forbidden_files_and_folders_are_counted(tmp_path: Path) -> None:
    """What may not be read is left out and said."""
    write(tmp_path, a_txt="a", b_txt="b", c__d_txt="d")
    (tmp_path / "b.txt").chmod(0)
    (tmp_path / "c").chmod(0)

    found = read(tmp_path)
    (tmp_path / "c").chmod(0o700)

    assert json.loads(found.value.data) == [{"name": "a.txt", "text": "a"}]
    assert "left out 2 (unreadable)" in found.notes[1]
