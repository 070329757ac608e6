"""Reads a context from a file, a folder or standard input, or says exactly why not.

Without it a run would be paid for over half a file, over mojibake, or over nothing. Every refusal
comes before anything is started.
"""

import codecs
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NoReturn

from orchestrator.domain import Context
from orchestrator.errors import InputError

_STDIN = "-"
_PIECE_BYTES = 2**20
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Folders that hold a repository's own records, not what a reader calls its text.
_RECORDS = frozenset({".git", ".hg", ".svn"})


class ContextShape(StrEnum):
    """What a context's text is turned into."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadContext:
    """A context, and what the user has to know about how it was read."""

    value: Context
    notes: tuple[str, ...] = ()


def read_context(
    source: str, *, encoding: str, shape: ContextShape, max_bytes: int, stdin: BinaryIO
) -> ReadContext:
    """Reads the context that `source` names. At its peak, holds bytes and text of it once each.

    Args:
        source: A file, a folder, or `-` for `stdin`.
        encoding: Of the text; a UTF-8 byte order mark is always dropped.
        shape: Whether the text is the context, or JSON that says what it is.
        max_bytes: More than this cannot fit any sandbox of the size that was asked for.
        stdin: Read to its end if it is what `source` names.

    Raises:
        InputError: It is missing, unreadable, empty, too large, or not what `encoding` and
            `shape` say.
    """
    _check_encoding(encoding)
    if source == _STDIN:
        text = _decode(_read_stream(stdin, "standard input", max_bytes), "standard input", encoding)
        return ReadContext(value=_shape(text, "Standard input", shape))
    path = Path(source)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long; no command line can pass one with a NUL
        raise InputError(f"The context {source!r} is not a path: {error.strerror}.") from error
    if not is_folder:
        return ReadContext(value=_shape(_read_text(path, encoding, max_bytes), str(path), shape))
    if shape is not ContextShape.TEXT:
        message = f"{path} is a folder, and --as json reads one file. Name the file."
        raise InputError(message)
    return _read_folder(path, encoding, max_bytes)


def read_source(path: Path, *, max_bytes: int) -> str:
    """Reads a file that holds a cell: UTF-8, of any content, even none.

    Raises:
        InputError: It is missing, unreadable, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > max_bytes:
        raise InputError(f"{path} holds more than {max_bytes:,} bytes: that is no cell.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not utf-8: the byte {data[error.start]:#04x} at offset {error.start:,} "
            f"({error.reason}). A cell is Python source in UTF-8."
        ) from error


def _read_text(path: Path, encoding: str, max_bytes: int) -> str:
    try:
        with path.open("rb") as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            if size_bytes > max_bytes:
                _refuse_size(f"{path} holds {size_bytes:,} bytes", max_bytes)
            return _decode(_read_stream(stream, str(path), max_bytes), str(path), encoding)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}. Name a file, a folder, or - for stdin."
        raise InputError(message) from error


def _read_stream(stream: BinaryIO, name: str, max_bytes: int) -> bytearray:
    """Reads to the end, or up to what could not be used anyway: a pipe may have no end."""
    data = bytearray()
    while piece := stream.read(_PIECE_BYTES):
        data += piece
        if len(data) > max_bytes:
            _refuse_size(f"{name} holds more than {max_bytes:,} bytes", max_bytes)
    return data


def _refuse_size(fact: str, max_bytes: int) -> NoReturn:
    message = (
        f"{fact}; a sandbox of the memory asked for cannot hold more than {max_bytes:,} whatever "
        "the text is. Give it more with --memory, or pass a smaller context."
    )
    raise InputError(message)


def _decode(data: bytearray, name: str, encoding: str) -> str:
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    if data.startswith(_UTF_16_MARKS) and encoding == "utf-8":
        message = f"{name} begins with the mark of UTF-16 text. Pass --encoding utf-16."
        raise InputError(message)
    del data[:start]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + start
        if b"\0" in data:
            raise InputError(_describe_binary(name, data.index(0) + start)) from None
        message = (
            f"{name} is not {encoding}: the byte {data[error.start]:#04x} at offset {offset:,} "
            f"({error.reason}). Pass --encoding latin-1 if that is what it is, or convert it."
        )
        raise InputError(message) from None  # the cause holds another copy of the whole context
    if "\0" in text:
        raise InputError(_describe_binary(name, text.index("\0") + start))
    return text


def _describe_binary(name: str, offset: int) -> str:
    return (
        f"{name} is binary: there is a NUL at offset {offset:,}. Pass text; "
        "extract it from a document first."
    )


def _check_encoding(encoding: str) -> None:
    try:
        is_text = codecs.lookup(encoding)._is_text_encoding  # noqa: SLF001 - the codecs' only mark
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        message = f"--encoding {encoding} is not an encoding of text. Try utf-8 or latin-1."
        raise InputError(message)


def _shape(text: str, name: str, shape: ContextShape) -> Context:
    if not text:
        raise InputError(f"{name} is empty: there is nothing to ask about. Pass a text.")
    if shape is ContextShape.TEXT:
        return text
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        message = f"{name} is not JSON: {error}. Pass --as text to ask about it as it is."
        raise InputError(message) from error
    if not isinstance(value, str | list | dict):
        message = f"{name}: expected a JSON list, object or string, got {type(value).__name__}."
        raise InputError(message)
    if not value:
        raise InputError(f"{name} is empty: there is nothing to ask about. Pass a text.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON (RFC 8259, section 6)"
    raise ValueError(message)


@dataclass(slots=True)
class _Skipped:
    """What a folder holds that is not in its context."""

    binary: int = 0
    unreadable: int = 0
    links: int = 0
    special: int = 0

    def notes(self, path: Path) -> tuple[str, ...]:
        """Returns one sentence for each kind there was."""
        counted = (
            (self.binary, "binary, or text of another encoding"),
            (self.unreadable, "unreadable"),
            (self.links, "links to folders, out of this one, or to nothing"),
            (self.special, "neither file nor folder"),
        )
        return tuple(f"{path}: left out {n:,} ({why})" for n, why in counted if n)


def _read_folder(root: Path, encoding: str, max_bytes: int) -> ReadContext:
    """Joins the text files below `root`, in order of their paths, each under its name."""
    skipped, parts, total_bytes = _Skipped(), [], 0
    # By whole path, not folder by folder: the order of the headers is then plain to a model.
    for path in sorted(_files_below(root, skipped), key=lambda path: path.parts):
        try:
            if total_bytes + path.stat().st_size > max_bytes:
                _refuse_size(f"{root} holds more than {max_bytes:,} bytes", max_bytes)
            data = bytearray(path.read_bytes())
        except OSError:
            skipped.unreadable += 1
            continue
        try:
            text = _decode(data, str(path), encoding)
        except InputError:
            skipped.binary += 1
            continue
        total_bytes += len(data)
        parts.append(f"===== {path.relative_to(root).as_posix()} =====\n")
        parts.append(text if text.endswith("\n") else f"{text}\n")
    notes = skipped.notes(root)
    if not parts:
        message = f"{root} is empty: there is no text file in it. {' '.join(notes)}".rstrip()
        raise InputError(message)
    summary = f"{root}: {len(parts) // 2:,} files, {total_bytes:,} bytes of text"
    return ReadContext(value="".join(parts), notes=(summary, *notes))


def _files_below(root: Path, skipped: _Skipped) -> Iterator[Path]:
    """Yields regular files; a FIFO would block and a device has no end."""
    real_root = root.resolve()

    def count_folder(_error: OSError) -> None:
        skipped.unreadable += 1

    for folder, names, files in os.walk(root, onerror=count_folder):
        skipped.links += sum(Path(folder, name).is_symlink() for name in names)
        names[:] = (name for name in names if name not in _RECORDS)
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(real_root):
                skipped.links += 1  # it may point at a key, and the sandbox would be shown it
            elif not path.exists():
                skipped.links += 1
            elif not stat.S_ISREG(path.stat().st_mode):
                skipped.special += 1
            else:
                yield path
