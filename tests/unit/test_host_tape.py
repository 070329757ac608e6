from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.broker.tape import HostTape
from orchestrator.domain import Printed


def printed(*pieces: tuple[int, bytes], keep_bytes: int = 8, dropped_bytes: int = 0) -> Printed:
    """Returns what a tape makes of pieces with their offsets."""
    tape = HostTape(keep_bytes=keep_bytes)
    for offset_bytes, data in pieces:
        tape.write(data, offset_bytes=offset_bytes)
    return tape.printed(claimed_dropped_bytes=dropped_bytes)


def test_nothing_printed() -> None:
    """A silent cell printed nothing."""
    assert printed() == Printed()


def test_short_output_is_whole() -> None:
    """What fits is the head, without a tail or a gap."""
    assert printed((0, b"abc"), (3, b"defgh")) == Printed(head="abcdefgh", total_bytes=8)


def test_long_output_keeps_both_ends() -> None:
    """Over the limit the middle is dropped and counted."""
    assert printed((0, b"abcdefgh"), (8, b"ijkl")) == Printed(
        head="abcd", tail="ijkl", total_bytes=12, dropped_bytes=4
    )


def test_gap_ends_the_head() -> None:
    """What follows a gap never joins the head, also where the head has room."""
    assert printed((0, b"ab"), (100, b"yz")) == Printed(
        head="ab", tail="yz", total_bytes=102, dropped_bytes=98
    )


def test_tail_is_what_follows_the_last_gap() -> None:
    """With several gaps the tail is unbroken: it is the end of what was printed."""
    assert printed((0, b"ab"), (10, b"lost"), (100, b"yz")) == Printed(
        head="ab", tail="yz", total_bytes=102, dropped_bytes=98
    )


def test_lost_tail_counts_as_dropped() -> None:
    """What a worker says it did not forward is in the total, though no offset shows it."""
    assert printed((0, b"ab"), dropped_bytes=50) == Printed(
        head="ab", total_bytes=52, dropped_bytes=50
    )


def test_character_cut_by_the_gap_is_left_out() -> None:
    """A gap inside a character does not look as if the cell had printed nonsense."""
    result = printed((0, "abcé".encode()), (100, "é".encode()[1:] + b"xyz"))

    assert result == Printed(head="abc", tail="xyz", total_bytes=104, dropped_bytes=98)


def test_invalid_bytes_are_replaced() -> None:
    """Bytes that are no text are shown as such, where the cell printed them."""
    assert printed((0, b"a\xff\x80b")).head == "a\ufffd\ufffdb"


@settings(deadline=None)  # a busy machine is no failure
@given(
    pieces=st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=20)), max_size=20),
    keep_bytes=st.integers(1, 64),
)
def test_tape_is_bounded_and_its_figures_add_up(
    pieces: list[tuple[int, bytes]], keep_bytes: int
) -> None:
    """Whatever comes, both ends are the true ends, and nothing is kept beyond the limit."""
    tape = HostTape(keep_bytes=keep_bytes)
    truth = bytearray()
    for gap_bytes, data in pieces:
        truth += b"?" * gap_bytes
        tape.write(bytes(byte & 0x7F for byte in data), offset_bytes=len(truth))
        truth += bytes(byte & 0x7F for byte in data)
    result = tape.printed(claimed_dropped_bytes=0)

    assert len(result.head) + len(result.tail) <= keep_bytes
    assert result.total_bytes == len(truth)
    assert result.dropped_bytes == len(truth) - len(result.head) - len(result.tail)
    assert truth.startswith(result.head.encode())
    assert truth.endswith(result.tail.encode())
