"""Reads what a command line names: a context, or a file that is a cell.

Without it each command would have a spelling of its own for standard input.
"""

from pathlib import Path
from typing import BinaryIO

from orchestrator.context_files import ContextShape, FoundContext, read_paths, read_stream
from orchestrator.errors import InputError

__all__ = ["ContextShape", "FoundContext", "read_context", "read_source"]

_STDIN = "-"


def read_context(
    source: str,
    *,
    encoding: str,
    shape: ContextShape | None = None,
    max_bytes: int,
    stdin: BinaryIO,
) -> FoundContext:
    """Reads the context that `source` names; see `read_paths`.

    Args:
        source: A file, a folder, or `-` for `stdin`.
        encoding: Of the text; a UTF-8 byte order mark is always dropped.
        shape: What becomes of the text; left out, documents of a folder, else text.
        max_bytes: More than this fits no sandbox of the size that was asked for.
        stdin: Read to its end if it is what `source` names.

    Raises:
        InputError: It is missing, unreadable, empty, too large, or not what `encoding` and
            `shape` say.
    """
    if source == _STDIN:
        return read_stream(
            stdin, name="Standard input", max_bytes=max_bytes, encoding=encoding, shape=shape
        )
    return read_paths(Path(source), max_bytes=max_bytes, encoding=encoding, shape=shape)


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
