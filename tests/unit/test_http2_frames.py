from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.http2_attacker import frame

from orchestrator.broker.http2_frames import FrameHeader, FrameReader

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**31 - 1),
        st.binary(max_size=40),
    ),
    max_size=20,
)


def read_all(reader: FrameReader, data: bytes, cuts: list[int]) -> list[tuple[FrameHeader, bytes]]:
    """Returns the frames that `data` holds, read in pieces that end at `cuts`."""
    frames: list[tuple[FrameHeader, bytes]] = []
    payload = b""
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        for header, part, is_first, is_last in reader.read(memoryview(data)[start:end]):
            payload = bytes(part) if is_first else payload + part
            if is_last:
                frames.append((header, payload))
    return frames


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 1000), max_size=30))
def test_frames_are_read_whatever_the_pieces(
    frames: list[tuple[int, int, int, bytes]], cuts: list[int]
) -> None:
    """However a stream is cut, the frames in it are the ones that were written."""
    data = b"".join(
        frame(kind, payload, flags=flags, stream_id=number)
        for kind, flags, number, payload in frames
    )
    reader = FrameReader()

    assert read_all(reader, data, cuts) == [
        (FrameHeader(kind, flags, number, len(payload)), payload)
        for kind, flags, number, payload in frames
    ]
    assert reader.is_between_frames


def test_reserved_bit_is_ignored() -> None:
    """The bit above a stream's number means nothing (RFC 9113, 4.1)."""
    data = frame(0, b"x", stream_id=1 | 1 << 31)
    [(header, _, _, _)] = FrameReader().read(memoryview(data))

    assert header.stream_id == 1


def test_unfinished_frame_is_known() -> None:
    """A frame that lacks one byte of its header, or of its payload, is not over."""
    for data in (frame(6, b"12345678")[:5], frame(6, b"12345678")[:-1]):
        reader = FrameReader()
        list(reader.read(memoryview(data)))
        assert not reader.is_between_frames
