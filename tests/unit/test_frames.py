from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.broker_process.fields import Fields, FrameError, split_texts
from orchestrator.broker_process.frames import Bounds, Frame, FrameReader, KindBounds, Said, pack
from orchestrator.domain import Outcome

SMALL = Bounds(header_bytes=100, body_bytes=1000)
LARGE = Bounds(header_bytes=1000, body_bytes=200_000)
BOUNDS: KindBounds = {Said.LOG: SMALL, Said.QUERY: LARGE}
FRAMES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 999, 70_000, 200_000])), max_size=6
)


def read(raw: bytes, sizes: Sequence[int]) -> list[Frame]:
    """Returns the frames in `raw`, which comes in pieces of `sizes`, over and over."""
    reader = FrameReader(BOUNDS)
    frames: list[Frame] = []
    start = turn = 0
    while start < len(raw):
        room = reader.room()
        piece = raw[start : start + min(sizes[turn % len(sizes)], len(room))]
        room[: len(piece)] = piece
        room.release()
        frames += reader.take(len(piece))
        start, turn = start + len(piece), turn + 1
    return frames


@given(sent=FRAMES, sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=4))
def test_frames_are_read_however_they_come(sent: list[tuple[int, int]], sizes: list[int]) -> None:
    """What was packed is what is read, in whatever pieces it comes."""
    sizes = [*sizes, 10_000]  # not byte by byte all the way: it would take for ever
    raw = b"".join(
        pack(Said.QUERY, {"number": number}, size) + bytes([number]) * size for number, size in sent
    )

    frames = read(raw, sizes)

    assert [(frame.fields.integer("number"), bytes(frame.body)) for frame in frames] == [
        (number, bytes([number]) * size) for number, size in sent
    ]


@given(st.binary(max_size=300))
def test_nonsense_is_refused_or_waited_for(raw: bytes) -> None:
    """Whatever bytes come, there is no other error than the one that ends the link."""
    with contextlib.suppress(FrameError):
        read(raw, [7, 50])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_header_that_is_no_object_is_refused(value: object) -> None:
    """A header is an object: anything else that JSON can be is not taken for one."""
    raw = json.dumps(value).encode()
    if len(raw) <= SMALL.header_bytes:
        with pytest.raises(FrameError, match="an object"):
            read(struct.pack("=BII", Said.LOG, len(raw), 0) + raw, [1000])


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ((Said.OUTPUT, 0, 0), "a kind that is known"),
        ((Said.LOG, 101, 0), "at most 100 and 1,000 bytes, not 101 and 0"),
        ((Said.LOG, 0, 1001), "at most 100 and 1,000 bytes"),
        ((Said.QUERY, 2, 2**32 - 1), "not 2 and 4,294,967,295"),
    ],
)
def test_claim_out_of_bounds_is_refused_before_it_is_made_room_for(
    head: tuple[int, int, int], words: str
) -> None:
    """The size that a frame claims is held against its bounds as soon as it can be read."""
    reader = FrameReader(BOUNDS)
    raw = struct.pack("=BII", *head)
    reader.room()[: len(raw)] = raw
    with pytest.raises(FrameError, match=words):
        reader.take(len(raw))


@pytest.mark.parametrize(
    "header", [b"", b"{", b"\xff", b'{"a":' * 19, b"[" * 100, b'{"n": 1' + b"0" * 90]
)
def test_header_that_is_no_json_is_refused(header: bytes) -> None:
    """A header that cannot be parsed ends the link, and not the orchestrator."""
    with pytest.raises(FrameError, match="is JSON"):
        read(struct.pack("=BII", Said.LOG, len(header), 0) + header, [1000])


FIELDS: dict[str, Any] = {
    "text": "x" * 10,
    "half": "a\ud800",
    "negative": -1,
    "huge": 10**400,
    "nan": float("nan"),
    "infinite": float("inf"),
    "flag": True,
    "list": [1, 2, 3],
    "none": None,
}


@pytest.mark.parametrize(
    "read_it",
    [
        lambda fields: fields.text("half", max_chars=10),
        lambda fields: fields.text("flag", max_chars=10),
        lambda fields: fields.text("missing", max_chars=10),
        lambda fields: fields.integer("negative"),
        lambda fields: fields.integer("huge"),
        lambda fields: fields.integer("flag"),
        lambda fields: fields.integer("text"),
        lambda fields: fields.optional_integer("negative"),
        lambda fields: fields.number("nan", most=1e9),
        lambda fields: fields.number("infinite", most=1e9),
        lambda fields: fields.number("negative", most=1e9),
        lambda fields: fields.number("flag", most=1e9),
        lambda fields: fields.flag("none"),
        lambda fields: fields.items("text", most=10),
        lambda fields: fields.items("list", most=2),
        lambda fields: fields.fields("list"),
        lambda fields: fields.member("text", Outcome),
    ],
)
def test_field_out_of_bounds_is_refused(read_it: Callable[[Fields], object]) -> None:
    """A field is of its kind and within its bounds, or the link ends."""
    with pytest.raises(FrameError):
        read_it(Fields(FIELDS))


def test_field_within_bounds_control() -> None:
    """Fields that keep their bounds are read, a number or a text over its length is cut."""
    fields = Fields(FIELDS)

    assert fields.text("text", max_chars=4) == "xxxx"
    assert fields.number("huge", most=5.0) == 5.0
    assert fields.optional_integer("none") is None
    assert fields.items("list", most=3) == [1, 2, 3]
    assert fields.flag("flag")


@pytest.mark.parametrize("sizes", [[3], [1, 1], [-1, 3], [2, 1], ["1", 1], [True, 1]])
def test_texts_are_the_whole_body(sizes: list[object]) -> None:
    """Sizes that do not add up to the body, or cut a character in two, are refused."""
    body = memoryview("é".encode())
    with pytest.raises(FrameError):
        split_texts(body, sizes, "texts")


def test_texts_are_split_control() -> None:
    """Sizes that add up give the texts, empty ones too."""
    assert split_texts(memoryview("éab".encode()), [2, 0, 2], "texts") == ["é", "", "ab"]
