"""A caller's context, on its way to the value a cell finds.

Holds: a context is refused with a sentence, or arrives as it is, however its bytes are cut; what a
file holds is refused with a sentence, or is a context; sizes that are told are those that are.
"""

from __future__ import annotations

import io
import math
from typing import cast

from support.fuzz_data import FuzzData

from orchestrator.cli.context_source import ContextShape, read_context
from orchestrator.context import encode_context
from orchestrator.domain import Context, Json
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
    b"\xff\xfe",
)


def TestOneInput(data: bytes) -> None:
    """Takes a context as a value or as a file."""
    fuzz = FuzzData(data)
    if fuzz.flag():
        value = fuzz.json()
        context = cast("Context", fuzz.text() if fuzz.flag() else value)
    else:
        try:
            read = read_context(
                "-",
                encoding=fuzz.choice(ENCODINGS),
                shape=fuzz.choice(list(ContextShape)),
                max_bytes=MAX_BYTES,
                stdin=io.BytesIO(fuzz.rest()),
            )
        except InputError as error:
            assert str(error)
            return
        context = read.value
        assert context
    check_way(fuzz, context)


def check_way(fuzz: FuzzData, context: Context) -> None:
    """Sends a context and puts it together again."""
    try:
        encoded = encode_context(context)
    except InputError as error:
        assert len(str(error)) < 1000
        return
    assembly = ContextAssembly(name="context", kind=encoded.kind.value)
    at = 0
    while at < len(encoded.data):
        size_bytes = fuzz.integer(1, 64) if not fuzz.is_used_up else len(encoded.data)
        assembly.write(encoded.data[at : at + size_bytes])
        at += size_bytes
    assert is_same(assembly.value(), context)
    assert len(encoded.part_lengths) <= 100
    if isinstance(context, str):
        assert encoded.total_chars == len(context)


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
