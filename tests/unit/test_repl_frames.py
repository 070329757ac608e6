"""Frames between the worker and the REPL process: what is long, and what a liar can make of it."""

from __future__ import annotations

import json
import socket
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_image.repl.channel import (
    CLAIMS,
    COMMANDS,
    MAX_HEAD_BYTES,
    BadFrameError,
    Frame,
    FrameKind,
    FrameReader,
    encode,
)

MIB = 2**20
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)


def payload_of(frame: bytes) -> bytes:
    return frame[5:]


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=3), st.one_of(st.none(), TEXTS))
def test_prompts_arrive_as_they_were(
    prompts: list[str], contexts: list[str], model: str | None
) -> None:
    """Whatever is in them, NUL too; only half a surrogate pair, which is no text, does not."""
    sent = {
        "query_id": "1-1",
        "cell_id": 1,
        "prompts": prompts,
        "contexts": contexts,
        "model": model,
    }

    claim = Frame(FrameKind.QUERY, payload_of(encode(FrameKind.QUERY, sent))).claim()

    assert claim == sent | {
        "prompts": [replaced(prompt) for prompt in prompts],
        "contexts": [replaced(context) for context in contexts],
        "model": None if model is None else replaced(model),
    }


@given(TEXTS)
def test_answer_arrives_as_it_was(content: str) -> None:
    """The same for the text of an answer, among everything else that a result holds."""
    sent = {"cell_id": 1, "content": content, "variables": [{"name": "a\0b"}]}

    claim = Frame(FrameKind.RESULT, payload_of(encode(FrameKind.RESULT, sent))).claim()

    assert claim == sent | {"content": replaced(content)}


def replaced(text: str) -> str:
    return text.encode(errors="replace").decode()


def test_sender_keeps_what_it_sent() -> None:
    """A field that is sent apart is still in the sender's own object."""
    sent: dict[str, Any] = {"content": "a"}

    encode(FrameKind.RESULT, sent)

    assert sent == {"content": "a"}


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        (FrameKind.RESULT, b'{"sizes":[1]}\0ab', "bytes that belong to no text"),
        (FrameKind.RESULT, b'{"sizes":[3]}\0ab', "a text of 3 bytes"),
        (FrameKind.RESULT, b'{"sizes":[-1,3]}\0ab', "a text of -1 bytes"),
        (FrameKind.RESULT, b'{"sizes":[true,1]}\0ab', "a text of True bytes"),
        (FrameKind.RESULT, b'{"sizes":["2"]}\0ab', "a text of 2 bytes"),
        (FrameKind.RESULT, b'{"sizes":{"2":2}}\0ab', "bytes that belong to no text"),
        (FrameKind.RESULT, b"{}\0ab", "bytes that belong to no text"),
        (FrameKind.RESULT, b'{"sizes":[1,1]}\0ab', "2 texts"),
        (FrameKind.RESULT, b"{}\0", "0 texts"),
        (FrameKind.RESULT, b'{"sizes":[1]}\0\xff', "a text that is none"),
        (FrameKind.RESULT, b'{"sizes":[1,1]}\0\xc3\xa9', "a text that is none"),
        (FrameKind.BOUND, b'{"sizes":[1]}\0a', "1 texts"),
        (FrameKind.QUERY, b"[" * 10**5, "not JSON"),
        (FrameKind.QUERY, b"[]", "not an object"),
        (FrameKind.QUERY, b"[" + b"{}," * MIB + b"{}]", "JSON of more than 1,048,576 bytes"),
    ],
)
def test_claim_of_another_form_is_refused(kind: FrameKind, payload: bytes, words: str) -> None:
    """Sizes that do not fit, texts that are none, JSON that is long: each is a bad frame."""
    with pytest.raises(BadFrameError, match=words):
        Frame(kind, payload).claim()


@pytest.mark.parametrize("kind", FrameKind)
def test_frame_that_nobody_sends_is_refused_by_its_first_bytes(kind: FrameKind) -> None:
    """A kind that goes the other way, or too much of one, is refused before it is kept."""
    near, far = socket.socketpair()
    with near, far:
        reader = FrameReader(far, most=CLAIMS)
        near.sendall(struct.pack(">IB", CLAIMS.get(kind, 0) + 1, kind))
        reader.receive()
        with pytest.raises(BadFrameError):
            reader.next_frame()


def test_every_kind_goes_one_way() -> None:
    """What the worker takes it does not send, so a cell cannot have its own frames sent back."""
    assert CLAIMS.keys() | COMMANDS.keys() == set(FrameKind)
    assert CLAIMS.keys() & COMMANDS.keys() == set()


#: Whatever costs much more memory once it is read than it takes on its way.
SWELLING = {
    "empty objects": b"[" + b"{}," * 349_000 + b"{}]",
    "empty lists": b"[" + b"[]," * 349_000 + b"[]]",
    "numbers": b"[" + b"1e9," * 262_000 + b"1]",
    "names": json.dumps({f"{number:x}": 0 for number in range(92_000)}).encode(),
}


@pytest.mark.parametrize("json_text", SWELLING.values(), ids=SWELLING)
def test_no_claim_takes_much_memory(json_text: bytes) -> None:
    """The worst JSON that a cell can send costs the worker less than the 20th of a sandbox."""
    payload = b'{"a":' + json_text + b"}"
    assert 0.9 * MAX_HEAD_BYTES < len(payload) <= MAX_HEAD_BYTES
    tracemalloc.start()
    try:
        Frame(FrameKind.RESULT, payload).claim()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 48 * MIB


def test_no_claim_takes_much_memory_control() -> None:
    """As long a frame of nothing but JSON, as it would be without the bound, takes far more."""
    tracemalloc.start()
    try:
        json.loads(b"[" + b"{}," * (2 * MIB) + b"{}]")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes > 96 * MIB
