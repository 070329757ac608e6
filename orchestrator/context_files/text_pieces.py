"""The bytes of a file as text, a piece at a time, or the reason why they are none.

Without it a root model would be asked about the bytes of a picture, or about mojibake.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, Final

from orchestrator.context_files.size_limit import SizeLimit
from orchestrator.errors import InputError

_PIECE_BYTES: Final = 2**20
_UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class NoTextError(InputError):
    """What a file holds is not text, or not in the encoding that was named."""


def check_encoding(encoding: str) -> None:
    """Refuses what is not the name of an encoding of text.

    Raises:
        InputError: Python does not know it, or it turns bytes into bytes.
    """
    try:
        is_text = codecs.lookup(encoding)._is_text_encoding  # noqa: SLF001 - the codecs' only mark
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        message = f"--encoding {encoding} is not an encoding of text. Try utf-8 or latin-1."
        raise InputError(message)


def text_pieces(stream: BinaryIO, *, name: str, encoding: str, limit: SizeLimit) -> Iterator[str]:
    """Yields what a stream holds as text, up to its end. Nothing is read before it is asked for.

    Args:
        stream: Read from where it is.
        name: What it is called in a message.
        encoding: Of the text; a UTF-8 byte order mark is always dropped.
        limit: Told of every byte that is text.

    Raises:
        NoTextError: It is binary, or not in that encoding.
        InputError: It is too large.
        OSError: It cannot be read.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = chars = 0
    is_over = False
    while not is_over:
        piece = stream.read(_PIECE_BYTES)
        is_over = not piece
        if not offset:
            if piece.startswith(_UTF_16_MARKS) and encoding == "utf-8":
                raise NoTextError(
                    f"{name} begins with the mark of UTF-16 text. Pass --encoding utf-16."
                )
            if piece.startswith(codecs.BOM_UTF8):
                offset = chars = len(codecs.BOM_UTF8)
                piece = piece[offset:]
        held_bytes = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece, final=is_over)
        except UnicodeError as error:
            if b"\0" in piece:
                raise NoTextError(_describe_binary(name, offset + piece.index(0))) from None
            raise NoTextError(
                f"{name} is not {encoding}: {_describe(error, offset - held_bytes)}. "
                "Pass --encoding latin-1 if that is what it is, or convert it."
            ) from None  # the cause holds the piece
        if "\0" in text:
            raise NoTextError(_describe_binary(name, chars + text.index("\0")))
        # Only now: a film among texts does not make them too large.
        limit.take(len(piece))
        offset += len(piece)
        chars += len(text)
        if text:
            yield text


def _describe(error: UnicodeError, start: int) -> str:
    if not isinstance(error, UnicodeDecodeError):
        return str(error)
    return (
        f"the byte {error.object[error.start]:#04x} at offset {start + error.start:,} "
        f"({error.reason})"
    )


def _describe_binary(name: str, offset: int) -> str:
    return (
        f"{name} is binary: there is a NUL at offset {offset:,}. Pass text; "
        "extract it from a document first."
    )
