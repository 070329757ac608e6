"""A caller's context, on its way to the value a cell finds.

Holds: a context is refused with a sentence, or arrives as it is, however its bytes are cut; what a
file holds is refused with a sentence, or is a context; sizes that are told are those that are; JSON
that is read part by part is what it is when it is read whole.
"""

from __future__ import annotations

import io
import json
import math
from typing import cast

from support.fuzz_data import FuzzData

from orchestrator.context import encode_context
from orchestrator.context_files import ContextShape, read_stream
from orchestrator.domain import Context, ContextKind, Json
from orchestrator.errors import InputError
from sandbox_image.repl.contexts import ContextAssembly

MAX_BYTES = 2000
ENCODINGS = ("utf-8", "latin-1", "utf-16", "ascii", "rot13", "hex", "idna", "no-such", "a\0b")
TOKENS = (
    b'{"role": "user", "content": "a"}',
    b'"\\ud800"',
    b"NaN",
    b"1e999",
    b"-0.0",
    b"[[",
    b",\n",
    b"\xff\xfe",
)


def TestOneInput(data: bytes) -> None:
    """Takes a context as a value, as a file, or as the bytes that another program might send."""
    fuzz = FuzzData(data)
    match fuzz.integer(0, 2):
        case 0:
            check_value(fuzz)
        case 1:
            check_file(fuzz)
        case _:
            check_json(fuzz)


def check_value(fuzz: FuzzData) -> None:
    """Sends a value and puts it together again."""
    value = fuzz.json()
    context = cast("Context", fuzz.text() if fuzz.flag() else value)
    try:
        encoded = encode_context(context)
    except InputError as error:
        assert len(str(error)) < 1000
        return
    assert is_same(assembled(fuzz, encoded.data, kind=encoded.kind), context)
    assert len(encoded.part_lengths) <= 100
    if isinstance(context, str):
        assert encoded.total_chars == len(context)


def check_file(fuzz: FuzzData) -> None:
    """Reads a file and puts what it is together again."""
    shape = fuzz.choice(list(ContextShape))
    try:
        encoded = read_stream(
            io.BytesIO(fuzz.block(MAX_BYTES)),
            name="It",
            encoding=fuzz.choice(ENCODINGS),
            shape=shape,
            max_bytes=MAX_BYTES,
        ).value
    except InputError as error:
        assert str(error)
        return
    assert encoded.data
    arrived = assembled(fuzz, encoded.data, kind=encoded.kind)
    if encoded.kind is ContextKind.TEXT:
        assert arrived == encoded.data.decode()
    else:
        assert is_same(arrived, json.loads(encoded.data))
    assert encoded == encode_context(encoded)


def check_json(fuzz: FuzzData) -> None:
    """Puts together what may be JSON, and holds it against JSON that is read whole."""
    data = fuzz.text().encode(errors="replace")
    try:
        whole = repr(json.loads(data.decode()))
    except (ValueError, RecursionError):
        whole = ""
    try:
        arrived = repr(assembled(fuzz, data, kind=ContextKind.JSON))
    except (ValueError, RecursionError):
        arrived = ""
    assert arrived == whole


def assembled(fuzz: FuzzData, data: bytes, *, kind: ContextKind) -> object:
    """Puts a context together from pieces of some sizes."""
    assembly = ContextAssembly(kind.value)
    at = 0
    while at < len(data):
        size_bytes = fuzz.integer(1, 64) if not fuzz.is_used_up else len(data)
        assembly.write(data[at : at + size_bytes])
        at += size_bytes
    return assembly.value()


def is_same(arrived: object, sent: Json) -> bool:
    """Whether two values are equal in type too: 1 and 1.0 and True are three things to a cell."""
    if isinstance(sent, dict):
        assert isinstance(arrived, dict)
        assert list(arrived) == list(sent)
        return all(is_same(arrived[key], value) for key, value in sent.items())
    if isinstance(sent, list):
        assert isinstance(arrived, list)
        assert len(arrived) == len(sent)
        return all(map(is_same, arrived, sent))
    if isinstance(sent, float):
        assert isinstance(arrived, float)
        return math.copysign(1, sent) == math.copysign(1, arrived) and sent == arrived
    return type(arrived) is type(sent) and arrived == sent
