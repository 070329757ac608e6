from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from support import http2_attacker as http2
from support.http2_attacker import ACK, END_HEADERS, END_STREAM, frame, head, message

from orchestrator.broker.connection_police import ConnectionPolice
from orchestrator.broker.order import ExcessError
from orchestrator.broker.peer_rules import PeerRules, peer_rules
from orchestrator.broker.token_bucket import Allowance
from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import CellLimits, QueryLimits

RULES = replace(
    peer_rules(cell=CellLimits(), run=QueryLimits(concurrent_queries=1)),
    messages=Allowance(20, 1),
    server_resets=Allowance(5, 1),
    late_frames=Allowance(5, 1),
    streams=100,
)
PING = frame(http2.PING, b"8 bytes.")


class Talk:
    """One policed connection, on a clock that the test turns."""

    def __init__(self, rules: PeerRules = RULES, *, is_greeted: bool = True) -> None:
        """Begins after an honest preface and settings, unless told otherwise."""
        self.now_s = 0.0
        self.rules = rules
        self.police = ConnectionPolice(rules, clock=lambda: self.now_s)
        if is_greeted:
            self.client(http2.PREFACE, frame(http2.SETTINGS))

    def client(self, *data: bytes) -> float:
        """Hears the client."""
        return self.police.hear_client(memoryview(b"".join(data)))

    def server(self, *data: bytes) -> None:
        """Hears the server."""
        self.police.hear_server(memoryview(b"".join(data)))

    def open(self, stream_id: int, *, flags: int = END_HEADERS) -> None:
        """Begins a stream."""
        self.client(frame(http2.HEADERS, b"h", flags=flags, stream_id=stream_id))

    def end(self, stream_id: int) -> None:
        """Has the server end a stream."""
        flags = END_HEADERS | END_STREAM
        self.server(frame(http2.HEADERS, b"t", flags=flags, stream_id=stream_id))


def data(payload: bytes, *, stream_id: int = 1, flags: int = 0) -> bytes:
    """Returns a DATA frame."""
    return frame(http2.DATA, payload, stream_id=stream_id, flags=flags)


def test_honest_call_is_let_through() -> None:
    """The control of everything below: a call as gRPC makes it breaks no rule."""
    talk = Talk()
    talk.server(frame(http2.SETTINGS), frame(http2.SETTINGS, flags=ACK), PING)
    talk.client(frame(http2.SETTINGS, flags=ACK), frame(http2.PING, b"8 bytes.", flags=ACK), PING)
    talk.open(1)
    talk.client(data(message(b"question")), data(b"", flags=END_STREAM))
    talk.client(frame(http2.WINDOW_UPDATE, struct.pack(">L", 5), stream_id=1))
    talk.end(1)
    talk.client(frame(http2.GOAWAY, bytes(8)))
    talk.police.look()


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\nXX", bytes(24)],
)
def test_anything_but_the_preface_is_refused(first: bytes) -> None:
    """A connection that does not begin as HTTP/2 does ends at its first wrong byte."""
    with pytest.raises(ProtocolViolationError, match="begins with HTTP/2's preface"):
        Talk(is_greeted=False).client(first)


@pytest.mark.parametrize("first", [PING, frame(http2.SETTINGS, flags=ACK)])
def test_first_frame_is_the_settings(first: bytes) -> None:
    """After the preface come settings, and nothing else."""
    with pytest.raises(ProtocolViolationError, match="first frame"):
        Talk(is_greeted=False).client(http2.PREFACE, first)


def ping(talk: Talk, _number: int) -> None:
    """Pings."""
    talk.client(PING)


def set_nothing(talk: Talk, _number: int) -> None:
    """Sends settings without a setting."""
    talk.client(frame(http2.SETTINGS))


def open_and_reset(talk: Talk, number: int) -> None:
    """Begins a stream and gives it up."""
    talk.open(2 * number + 1)
    talk.client(frame(http2.RST_STREAM, bytes(4), stream_id=2 * number + 1))


def open_and_be_reset(talk: Talk, number: int) -> None:
    """Begins a stream that the server gives up."""
    talk.open(2 * number + 1)
    talk.server(frame(http2.RST_STREAM, bytes(4), stream_id=2 * number + 1))


def send_nothing(talk: Talk, number: int) -> None:
    """Sends an empty frame on one stream."""
    if not number:
        talk.open(1)
    talk.client(data(b""))


def send_message(talk: Talk, number: int) -> None:
    """Sends a message of one byte on one stream."""
    if not number:
        talk.open(1)
    talk.client(data(message(b"x")))


def send_late(talk: Talk, number: int) -> None:
    """Sends on a stream that the server has ended."""
    if not number:
        talk.open(1)
        talk.end(1)
    talk.client(data(b"x"))


#: What may happen so often at once, and then once more so much later.
RATES: dict[str, tuple[Callable[[Talk, int], None], int, float]] = {
    "too many PING frames": (ping, 64, 0.05),
    "too many SETTINGS frames": (set_nothing, 31, 1),  # and the one before
    "too many streams that the server had to give up": (open_and_be_reset, 5, 1),
    "too many empty DATA frames": (send_nothing, 16, 1),
    "too many messages": (send_message, 20, 1),
    "too many frames of streams that have ended": (send_late, 5, 1),
}


@pytest.mark.parametrize("rule", RATES)
def test_rate_is_bounded(rule: str) -> None:
    """As often as allowed is allowed, also after a while; once more is not."""
    act, burst, pause_s = RATES[rule]
    talk = Talk()
    for number in range(burst):
        act(talk, number)
    talk.now_s += pause_s
    act(talk, burst)
    with pytest.raises(ExcessError, match=f"^the sandbox broke the contract: {rule}:"):
        act(talk, burst + 1)


def test_resets_are_bounded_by_what_the_server_sends() -> None:
    """Each message of the server, which may begin a cell, earns as many resets as it has queries.

    Its silence earns none, and nor does a stream that it ends without a message.
    """
    talk = Talk()
    for number in range(25):
        open_and_reset(talk, number)
    talk.server(data(message(b"run a cell")))
    for number in range(25, 30):
        open_and_reset(talk, number)
    talk.now_s += 3600
    talk.open(61)
    talk.end(61)
    with pytest.raises(ExcessError, match="at most 5 streams are given up for each message"):
        open_and_reset(talk, 31)


def test_cells_that_abandon_their_queries_are_honest() -> None:
    """A cell may end with every query open, and the next one as well, in no time, for ever."""
    talk = Talk(replace(RULES, streams=10_000))
    number = 0
    for _ in range(500):
        talk.server(data(message(b"run a cell")))
        for _ in range(5):
            open_and_reset(talk, number)
            update = frame(http2.WINDOW_UPDATE, struct.pack(">L", 1))
            talk.client(update, update)
            number += 1


def test_open_streams_are_bounded() -> None:
    """As many as the server offers, and not one more; ended ones do not count."""
    talk = Talk()
    for number in range(talk.rules.open_streams):
        talk.open(2 * number + 1)
    talk.end(1)
    talk.open(101)
    with pytest.raises(ExcessError, match="at most 10 streams are open at once"):
        talk.open(103)


def test_streams_of_a_life_are_bounded() -> None:
    """Streams that come and go honestly come to an end as well."""
    talk = Talk()
    for number in range(100):
        talk.open(2 * number + 1)
        talk.end(2 * number + 1)
    with pytest.raises(ExcessError, match="at most 100 streams"):
        talk.open(201)


def test_header_block_is_bounded_in_bytes() -> None:
    """A header block has 8 KiB, in one frame or in several."""
    talk = Talk()
    talk.client(frame(http2.HEADERS, bytes(8192), flags=END_HEADERS, stream_id=1))
    talk.client(frame(http2.HEADERS, bytes(8191), stream_id=3))
    talk.client(frame(http2.CONTINUATION, bytes(1), stream_id=3))
    with pytest.raises(ExcessError, match="at most 8,192 bytes"):
        talk.client(frame(http2.CONTINUATION, bytes(1), stream_id=3))


def test_header_block_is_refused_before_it_has_come() -> None:
    """What a header block will be is known from nine bytes."""
    with pytest.raises(ExcessError, match="at most 8,192 bytes"):
        Talk().client(head(http2.HEADERS, 8193, stream_id=1))


def test_header_block_is_bounded_in_frames() -> None:
    """A header block goes on for four frames, even empty ones."""
    talk = Talk()
    talk.client(frame(http2.HEADERS, b"h", stream_id=1))
    for _ in range(4):
        talk.client(frame(http2.CONTINUATION, stream_id=1))
    with pytest.raises(ExcessError, match="at most 4 CONTINUATION"):
        talk.client(frame(http2.CONTINUATION, stream_id=1))


def test_window_updates_are_bounded_by_what_they_answer() -> None:
    """Each stream and each frame of the server earn eight updates; silence earns none, ever."""
    talk = Talk()
    update = frame(http2.WINDOW_UPDATE, struct.pack(">L", 1))
    talk.client(update * 128)
    talk.server(frame(http2.DATA, b"x", stream_id=1))
    talk.client(update * 8)
    talk.open(1)
    talk.client(update * 8)
    talk.now_s += 3600
    with pytest.raises(ExcessError, match="at most 8 WINDOW_UPDATE"):
        talk.client(update)


def test_window_has_a_largest_size() -> None:
    """Room beyond 2^31 - 1 is no room; what the server has sent may be made room for again."""
    talk = Talk()
    most = struct.pack(">L", 2**31 - 2**16)
    talk.client(frame(http2.WINDOW_UPDATE, most))
    talk.server(frame(http2.DATA, bytes(10), stream_id=1))
    talk.client(frame(http2.WINDOW_UPDATE, struct.pack(">L", 10)))
    with pytest.raises(ProtocolViolationError, match="at most 2,147,483,647"):
        talk.client(frame(http2.WINDOW_UPDATE, struct.pack(">L", 1)))


def test_acknowledgements_answer_something() -> None:
    """One acknowledgement for each settings frame and each ping of the server."""
    talk = Talk()
    talk.server(frame(http2.SETTINGS), PING)
    talk.client(frame(http2.SETTINGS, flags=ACK), frame(http2.PING, bytes(8), flags=ACK))
    with pytest.raises(ProtocolViolationError, match="acknowledged once"):
        talk.client(frame(http2.SETTINGS, flags=ACK))
    with pytest.raises(ProtocolViolationError, match="answered once"):
        talk.client(frame(http2.PING, bytes(8), flags=ACK))


def test_goodbyes_are_bounded() -> None:
    """A client says goodbye four times at most, and briefly."""
    talk = Talk()
    talk.client(frame(http2.GOAWAY, bytes(1024)) * 4)
    with pytest.raises(ExcessError, match="goodbye"):
        talk.client(frame(http2.GOAWAY, bytes(8)))
    with pytest.raises(ExcessError, match="goodbye"):
        Talk().client(frame(http2.GOAWAY, bytes(1025)))


#: What is never said, on a connection on which stream 1 is open.
NEVER: dict[str, tuple[bytes, str]] = {
    "priority": (frame(http2.PRIORITY, bytes(5), stream_id=1), "no frames of kind 2"),
    "push": (frame(http2.PUSH_PROMISE, bytes(4), stream_id=1), "no frames of kind 5"),
    "unknown kind": (frame(0xBE), "no frames of kind 190"),
    "short ping": (frame(http2.PING, b"7 bytes"), "a PING frame has 8 bytes, this one has 7"),
    "long reset": (frame(http2.RST_STREAM, bytes(5), stream_id=1), "a RST_STREAM frame has 4"),
    "long update": (frame(http2.WINDOW_UPDATE, bytes(5)), "a WINDOW_UPDATE frame has 4 bytes"),
    "no room": (frame(http2.WINDOW_UPDATE, bytes(4)), "room for a byte at least"),
    "ping of a stream": (frame(http2.PING, bytes(8), stream_id=1), "names no stream"),
    "settings of a stream": (frame(http2.SETTINGS, stream_id=1), "names no stream"),
    "odd settings": (frame(http2.SETTINGS, bytes(7)), "six a setting"),
    "long settings": (frame(http2.SETTINGS, bytes(198)), "at most 192 bytes"),
    "even stream": (frame(http2.HEADERS, b"h", flags=4, stream_id=2), "begin a new stream"),
    "stream 0": (frame(http2.HEADERS, b"h", flags=4), "begin a new stream"),
    "trailers": (frame(http2.HEADERS, b"h", flags=5, stream_id=1), "begin a new stream"),
    "padded headers": (frame(http2.HEADERS, b"h", flags=0xC, stream_id=3), "neither padded"),
    "headers with a priority": (frame(http2.HEADERS, b"h", flags=0x24, stream_id=3), "priority"),
    "padded data": (data(b"\0", flags=0x8), "not padded"),
    "data before headers": (data(b"x", stream_id=3), "a stream begins with headers"),
    "data of no stream": (data(b"x", stream_id=0), "a stream begins with headers"),
    "reset before headers": (frame(http2.RST_STREAM, bytes(4), stream_id=3), "begins with headers"),
    "update before headers": (
        frame(http2.WINDOW_UPDATE, struct.pack(">L", 1), stream_id=3),
        "begins with headers",
    ),
    "stray continuation": (frame(http2.CONTINUATION, b"h", stream_id=1), "goes on with a header"),
    "huge frame": (head(http2.DATA, 4 * 2**20 + 1, stream_id=1), "at most 4,194,304 bytes"),
    "huge message": (
        data(struct.pack(">BL", 0, 4 * 2**20 + 1)),
        "at most 4,194,304 bytes, this one announces 4,194,305",
    ),
    "packed message": (data(message(b"x", packing=1)), "not compressed"),
    "message without an end": (data(message(b"xx")[:-1], flags=END_STREAM), "middle of a message"),
    "data after the end": (data(b"", flags=END_STREAM) + data(b"x"), "the client has ended"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_grpc_never_says_is_refused_at_once(name: str) -> None:
    """A frame that no gRPC client sends needs no counting."""
    said, words = NEVER[name]
    talk = Talk()
    talk.open(1)
    with pytest.raises(ProtocolViolationError, match=words):
        talk.client(said)


@pytest.mark.parametrize("between", [PING, data(b"x"), frame(http2.CONTINUATION, stream_id=3)])
def test_nothing_comes_between_the_frames_of_a_header_block(between: bytes) -> None:
    """A header block is one thing: not even another stream's may come in between."""
    talk = Talk()
    talk.open(1, flags=0)
    with pytest.raises(ProtocolViolationError, match="header block"):
        talk.client(between)


def test_largest_message_control() -> None:
    """A message of exactly the cap passes, in one frame's worth of bytes or in four thousand."""
    talk = Talk()
    talk.open(1)
    whole = message(bytes(4 * 2**20))
    for start in range(0, len(whole), 2**20):
        talk.client(data(whole[start : start + 2**20]))
    for start in range(0, len(whole), 1024):
        talk.client(data(whole[start : start + 1024]))


def test_message_in_scraps_is_refused() -> None:
    """A message may come in sixteen pieces, and in one more for each KiB."""
    talk = Talk()
    talk.open(1)
    for byte in message(bytes(11)):
        talk.client(data(bytes([byte])))
    for byte in message(bytes(12))[:-1]:
        talk.client(data(bytes([byte])))
    with pytest.raises(ExcessError, match="in more than 16"):
        talk.client(data(b"\0"))


def test_messages_are_told_apart_in_any_frames() -> None:
    """Several messages in one frame, and one in several, are each read by its own length."""
    talk = Talk()
    talk.open(1)
    two = message(b"one") + message(b"two")
    talk.client(data(two[:4]), data(two[4:9]), data(two[9:]), data(b"", flags=END_STREAM))


@pytest.mark.parametrize(
    "begun",
    [
        frame(http2.PING, b"8 bytes.")[:3],
        frame(http2.PING, b"8 bytes.")[:-1],
        frame(http2.HEADERS, b"h", stream_id=3),
        data(message(b"xx")[:-1]),
        data(message(b"xx")[:2]),
    ],
)
def test_what_is_begun_is_finished(begun: bytes) -> None:
    """Half a frame, half a header block and half a message are waited for so long and no longer."""
    talk = Talk()
    talk.open(1)
    talk.client(begun)
    for _ in range(12):
        talk.police.look()
    with pytest.raises(ProtocolViolationError, match="is finished within 30 s"):
        talk.police.look()


def test_silence_between_messages_is_no_breach() -> None:
    """An honest worker may say nothing for hours: its model is slow, or nobody asks."""
    talk = Talk()
    talk.open(1)
    talk.client(data(message(b"x")))
    for _ in range(10_000):
        talk.police.look()


def test_slow_but_steady_is_no_breach() -> None:
    """What is finished in time may be begun again."""
    talk = Talk()
    talk.open(1)
    for _ in range(10):
        talk.client(data(message(b"xx")[:-1]))
        for _ in range(12):
            talk.police.look()
        talk.client(data(b"x"))


def test_preface_is_waited_for_so_long_and_no_longer() -> None:
    """A connection that says nothing, or not enough, is looked at twice."""
    for said in (b"", http2.PREFACE[:5], http2.PREFACE):
        talk = Talk(is_greeted=False)
        talk.client(said)
        talk.police.look()
        talk.police.look()
        with pytest.raises(ProtocolViolationError, match="5 s after it was made"):
            talk.police.look()


def test_inflow_is_slowed_and_no_breach() -> None:
    """A flood of honest bytes makes its sender wait, for as long as the rate says."""
    talk = Talk(replace(RULES, inflow_bytes=Allowance(4 * 2**20, 2**20)))
    talk.open(1)
    whole = data(message(bytes(2**20)))

    assert [talk.client(whole) for _ in range(3)] == [0.0] * 3
    assert talk.client(whole, whole) == pytest.approx(1.0, rel=0.01)
    talk.now_s += 10
    assert talk.client(whole) == 0.0


@pytest.mark.parametrize("cut", [0, 9, 15, 17, 20])
def test_server_that_gives_up_says_why(cut: int) -> None:
    """What gRPC itself finds wrong with a connection names the rule, however it arrives."""
    talk = Talk()
    said = frame(http2.GOAWAY, struct.pack(">LL", 0, 9) + b"bad\x1b[31mhpack")
    talk.server(said[:cut])
    with pytest.raises(ProtocolViolationError, match=r"error 9, 'bad\?\[31mhpack'"):
        talk.server(said[cut:])


def test_server_that_says_goodbye_is_no_breach() -> None:
    """A server that is stopped by us ends its connections without an error."""
    talk = Talk()
    talk.server(frame(http2.GOAWAY, bytes(8) + b"shutdown"))


def test_server_that_hangs_up_was_given_a_reason() -> None:
    """A connection is closed by gRPC where HTTP/2 is broken, or the client has said goodbye."""
    talk = Talk()
    with pytest.raises(ProtocolViolationError, match="gRPC gave it up"):
        talk.police.server_hung_up()
    talk.client(frame(http2.GOAWAY, bytes(8)))
    talk.police.server_hung_up()


def test_rules_follow_the_limits() -> None:
    """Whoever raises a limit of runs raises the rules with it."""
    small = peer_rules(cell=CellLimits(output_bytes=2048), run=QueryLimits(concurrent_queries=1))
    large = peer_rules(cell=CellLimits(output_bytes=2**20), run=QueryLimits(concurrent_queries=64))

    assert (small.open_streams, large.open_streams) == (10, 136)
    assert (small.messages, large.messages) == (Allowance(2048, 2048), Allowance(2**20, 2**20))
    assert (small.resets_per_message, large.resets_per_message) == (5, 68)
    assert small.inflow_bytes.burst < large.inflow_bytes.burst
