"""Reads a context from files, folders or a stream, in the shape that is asked for.

Without it the command line and Python would each have an idea of their own of what a folder is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from orchestrator.context import DocumentsEncoding, TextEncoding
from orchestrator.context_files.domain import guess_domain
from orchestrator.context_files.folder import LeftOut, files_below
from orchestrator.context_files.found import ContextShape, FoundContext
from orchestrator.context_files.gathering import Gathering, JoinedText
from orchestrator.context_files.names import labels_of, sendable_name
from orchestrator.context_files.size_limit import SizeLimit
from orchestrator.context_files.structured import encoded_json, encoded_lines
from orchestrator.context_files.text_pieces import NoTextError, check_encoding, text_pieces
from orchestrator.domain import EncodedContext
from orchestrator.errors import InputError

_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file to gather: where it is, what it is called, and what counts it if it is left out.

    One that a caller has named is never left out.
    """

    path: Path
    name: str
    left_out: LeftOut | None = None


def read_paths(
    paths: Path | Sequence[Path],
    *,
    max_bytes: int,
    encoding: str = "utf-8",
    shape: ContextShape | None = None,
) -> FoundContext:
    """Reads a context from a file, a folder, or several of either.

    Holds the context once at its peak, and JSON beside it as text and as values. Takes time in
    proportion to the size, so call it outside an event loop.

    Args:
        paths: Documents are in this order, those of a folder in the order of their paths. They are
            called by their paths below the folder; of several paths, after the path's own name.
        max_bytes: More than this fits no sandbox of the size that was asked for.
        encoding: Of all text; a UTF-8 byte order mark is always dropped.
        shape: Left out, one file is its text, and anything else documents.

    Raises:
        InputError: A path is missing or unreadable, there is no text, too much of it, or it is not
            what `encoding` and `shape` say.
    """
    check_encoding(encoding)
    listed = _different([paths] if isinstance(paths, Path) else paths)
    if not listed:
        raise InputError("There is no path to read a context from. Name a file or a folder.")
    if len(listed) == 1 and not _is_folder(listed[0]):
        return _read_file(listed[0], max_bytes=max_bytes, encoding=encoding, shape=shape)
    return _read_all(listed, max_bytes=max_bytes, encoding=encoding, shape=shape)


def read_stream(
    stream: BinaryIO,
    *,
    name: str,
    max_bytes: int,
    encoding: str = "utf-8",
    shape: ContextShape | None = None,
) -> FoundContext:
    """Reads a context from a stream, to its end; see `read_paths`.

    Args:
        stream: Stays the caller's.
        name: What it is called at the beginning of a message, and as a document.
        max_bytes: More than this is not read.
        encoding: Of the text.
        shape: Left out, the text is the context.

    Raises:
        InputError: There is no text, too much of it, or it is not what `encoding` and `shape` say.
    """
    check_encoding(encoding)
    limit = SizeLimit(name, max_bytes=max_bytes)
    pieces = text_pieces(stream, name=name, encoding=encoding, limit=limit)
    return FoundContext(value=_shaped(pieces, name=name, document_name=name, shape=shape))


def _read_file(
    path: Path, *, max_bytes: int, encoding: str, shape: ContextShape | None
) -> FoundContext:
    limit = SizeLimit(str(path), max_bytes=max_bytes)
    try:
        with path.open("rb") as stream:
            limit.expect(os.fstat(stream.fileno()).st_size)
            value = _shaped(
                text_pieces(stream, name=str(path), encoding=encoding, limit=limit),
                name=str(path),
                document_name=sendable_name(path.name),
                shape=shape,
                is_lines=path.suffix.lower() in _LINES_SUFFIXES,
            )
    except OSError as error:
        _refuse_unreadable(path, error)
    return FoundContext(value=value, domain=guess_domain([path.name]))


def _shaped(
    pieces: Iterable[str],
    *,
    name: str,
    document_name: str,
    shape: ContextShape | None,
    is_lines: bool = False,
) -> EncodedContext:
    """Makes a context of the text of one file."""
    value: EncodedContext | None
    match shape:
        case ContextShape.JSON:
            encoded = encoded_lines if is_lines else encoded_json
            value = encoded(pieces, name=name)
        case ContextShape.DOCUMENTS:
            documents = DocumentsEncoding()
            documents.begin(document_name)
            value = _filled(documents, pieces)
        case ContextShape.TEXT | None:
            value = _filled(TextEncoding(), pieces)
    if value is None:
        raise InputError(f"{name} is empty: there is nothing to ask about. Pass a text.")
    return value


def _filled(
    encoding: TextEncoding | DocumentsEncoding, pieces: Iterable[str]
) -> EncodedContext | None:
    is_empty = True
    for piece in pieces:
        encoding.add(piece)
        is_empty = False
    if isinstance(encoding, DocumentsEncoding):
        encoding.end()
    return None if is_empty else encoding.encoded()


def _read_all(
    paths: Sequence[Path], *, max_bytes: int, encoding: str, shape: ContextShape | None
) -> FoundContext:
    is_one = len(paths) == 1
    name = str(paths[0]) if is_one else f"{len(paths)} paths"
    if shape is ContextShape.JSON:
        what = "is a folder" if is_one else "are many files"
        raise InputError(f"{name} {what}, and --as json reads one file. Name the file.")
    counts = {path: LeftOut() for path in paths}
    gathering: Gathering = JoinedText() if shape is ContextShape.TEXT else DocumentsEncoding()
    limit = SizeLimit(name if is_one else "The context", max_bytes=max_bytes)
    names = [
        file.name
        for file in _files_of(counts)
        if _is_added(file, gathering, encoding=encoding, limit=limit)
    ]
    notes = [note for path, left_out in counts.items() for note in left_out.notes(str(path))]
    if not limit.read_bytes:
        found = f"all {len(names):,} text files in it are empty" if names else "no text file in it"
        message = f"{name}: {found}, so there is nothing to ask about. {' '.join(notes)}"
        raise InputError(message.rstrip())
    plural = "" if len(names) == 1 else "s"
    summary = f"{name}: {len(names):,} file{plural}, {limit.read_bytes:,} bytes of text"
    return FoundContext(
        value=gathering.encoded(), notes=(summary, *notes), domain=guess_domain(names)
    )


def _files_of(counts: dict[Path, LeftOut]) -> Iterator[_File]:
    """Yields the files of some paths in order; what is left out is counted for its path."""
    labels = labels_of(list(counts)) if len(counts) > 1 else [""]
    for (path, left_out), label in zip(counts.items(), labels, strict=True):
        if not _is_folder(path):
            yield _File(path=path, name=sendable_name(label))
            continue
        for inner in files_below(path, left_out):
            name = (label / inner.relative_to(path)).as_posix()
            yield _File(path=inner, name=sendable_name(name), left_out=left_out)


def _is_added(file: _File, gathering: Gathering, *, encoding: str, limit: SizeLimit) -> bool:
    """Adds a file, or leaves it out and counts it."""
    before_bytes = limit.read_bytes
    gathering.begin(file.name)
    try:
        with file.path.open("rb") as stream:
            pieces = text_pieces(stream, name=str(file.path), encoding=encoding, limit=limit)
            # One that is no text says so in its first piece, and then its size does not matter.
            first = next(pieces, "")
            limit.expect(os.fstat(stream.fileno()).st_size, after_bytes=before_bytes)
            gathering.add(first)
            for piece in pieces:
                gathering.add(piece)
    except NoTextError:
        if file.left_out is None:
            raise
        file.left_out.binary += 1
    except OSError as error:
        if file.left_out is None:
            _refuse_unreadable(file.path, error)
        file.left_out.unreadable += 1
    else:
        gathering.end()
        return True
    gathering.drop()
    limit.rewind(before_bytes)
    return False


def _refuse_unreadable(path: Path, error: OSError) -> NoReturn:
    message = f"{path} cannot be read: {error.strerror}. Name a file, a folder, or - for stdin."
    raise InputError(message) from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # a name that is too long
        raise InputError(f"The context {str(path)!r} is not a path: {error.strerror}.") from error


def _different(paths: Sequence[Path]) -> list[Path]:
    """Returns each path once: what is there twice would be counted twice."""
    for path in paths:
        if "\0" in str(path):
            raise InputError(f"The context {str(path)!r} is not a path: there is a NUL in it.")
    different: dict[str, Path] = {}
    for path in paths:
        different.setdefault(os.path.realpath(path), path)
    return list(different.values())
