"""Turns the bytes of a context into a value, while they arrive.

Without it a context of 400 MB would be held twice: as bytes and as the value.
"""

from __future__ import annotations

import codecs
import io
import json
import mmap
import os
from typing import Any, Literal, TypeAlias

from sandbox_image.repl.growing_values import growing_json, growing_text
from sandbox_image.repl.returned_memory import return_memory

#: A kind of the contract.
ContextKind: TypeAlias = Literal["text", "json", "messages", "documents", "texts"]
#: Lengths of more parts than these say nothing more to a root model.
_MAX_PART_LENGTHS = 100
#: Of a file, read at once.
_PIECE_BYTES = 2**20


class ContextAssembly:
    """One context on its way in."""

    def __init__(self, kind: str) -> None:
        """Starts an empty context, of a kind of the contract."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._growing = growing_text() if kind == "text" else growing_json()
        next(self._growing)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next piece."""
        self._growing.send(self._decoder.decode(data))

    def value(self) -> object:
        """Returns the whole value; the assembly is spent."""
        self._growing.send(self._decoder.decode(b"", final=True))
        try:
            self._growing.send(None)
        except StopIteration as end:
            return_memory()
            return end.value
        raise AssertionError("a value that grows ends when it is told to")


def read_context(descriptor: int, kind: str, *, may_map: bool) -> object:
    """Returns the value of a context that is a file, which is closed.

    Args:
        descriptor: The file, at its start.
        kind: A kind of the contract.
        may_map: Whether to map a file takes none of the sandbox's memory.
    """
    with open(descriptor, "rb", buffering=0) as file:
        if may_map and kind == "text" and (text := _ascii_text(file)) is not None:
            return text
        assembly = ContextAssembly(kind)
        # One piece of memory for all of them: the kernel is slow to hand out pages.
        piece = memoryview(bytearray(_PIECE_BYTES))
        while size := file.readinto(piece):
            assembly.write(piece[:size])
        return assembly.value()


def _ascii_text(file: io.FileIO) -> str | None:
    """Returns a text of ASCII alone, made at once: its length in memory is known beforehand.

    In pieces takes half as long again; and any other text, made at once, up to three times as much
    memory as it has in the end.
    """
    size_bytes = os.fstat(file.fileno()).st_size
    if not size_bytes:
        return ""
    with mmap.mmap(file.fileno(), size_bytes, prot=mmap.PROT_READ) as content:
        try:
            return str(content, "ascii")
        except UnicodeDecodeError:
            return None


def outgoing(context: object) -> tuple[dict[str, Any], str]:
    """Returns a context of a child run as it is sent: its kind and lengths, and its text.

    Raises:
        TypeError: It is neither a text nor a list or dict that JSON can hold.
    """
    if isinstance(context, str):
        return {
            "kind": "text",
            "total_chars": len(context),
            "part_lengths": [len(context)],
        }, context
    if not isinstance(context, (list, tuple, dict)):
        kind = type(context).__name__
        message = f"the context of a child run is a str, a list or a dict, not {kind}"
        raise TypeError(message)
    try:
        text = json.dumps(context, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the context of a child run holds what JSON cannot: {error}"
        raise TypeError(message) from None
    parts = list(context.values()) if isinstance(context, dict) else list(context)
    lengths = [_length(part) for part in parts]
    shape = {
        "kind": _kind_of(parts) if isinstance(context, (list, tuple)) else "json",
        "total_chars": sum(lengths),
        "part_lengths": lengths[:_MAX_PART_LENGTHS],
    }
    return shape, text


def _kind_of(items: list[Any]) -> ContextKind:
    if items and all(_has_texts(item, "role", "content") for item in items):
        return "messages"
    if items and all(_has_texts(item, "name", "text") for item in items):
        return "documents"
    return "texts" if items and all(isinstance(item, str) for item in items) else "json"


def _has_texts(item: object, *keys: str) -> bool:
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in keys)


def _length(part: object) -> int:
    if isinstance(part, dict):
        part = part.get("content") or part.get("text") or part
    return len(part) if isinstance(part, str) else len(json.dumps(part, ensure_ascii=False))
