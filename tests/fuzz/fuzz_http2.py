"""One HTTP/2 connection as the gate polices it: bytes of a hostile client, and of the server.

Holds: nothing is raised but a broken rule; however the client's bytes are cut, the same rule is
broken by them; what is held of a connection is bounded whatever comes; a pause is a time.
"""

from __future__ import annotations

import math
import sys

from support.fuzz_data import FuzzData

from orchestrator.broker.connection_police import ConnectionPolice
from orchestrator.broker.http2_frames import (
    DATA,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.broker.token_bucket import Allowance
from orchestrator.errors import ProtocolViolationError

TOKENS = (
    PREFACE,
    b"\0\0\0\4\0\0\0\0\0",  # settings
    b"\0\0\0\4\1\0\0\0\0",  # their acknowledgement
    b"\0\0\1\1\4\0\0\0\1\x82",  # headers
    b"\0\0\5\0\1\0\0\0\1\0\0\0\0\0",  # an empty message, and the end of its stream
    b"\0\0\4\3\0\0\0\0\1\0\0\0\0",  # a reset
)
RULES = PeerRules(
    offered_streams=2,
    messages=Allowance(6, 1),
    resets=3,
    resets_per_message=2,
    server_resets=Allowance(2, 1),
    inflow_bytes=Allowance(600, 300),
    message_bytes=200,
    frame_bytes=150,
    streams=8,
    late_frames=Allowance(3, 1),
    empty_frames=Allowance(2, 1),
    header_bytes=60,
    continuations=2,
    settings=Allowance(3, 1),
    pings=Allowance(3, 1),
    window_updates=5,
    window_updates_per_frame=1,
)
#: A few objects for each stream that may be open, and the nine bytes of a frame's header.
HELD_BYTES = 20_000


def TestOneInput(data: bytes) -> None:
    """Plays a client against one server, or one client's bytes cut in two ways."""
    fuzz = FuzzData(data)
    if fuzz.flag():
        play(fuzz)
        return
    cuts = [fuzz.integer(1, 30) for _ in range(fuzz.integer(0, 20))]
    stream = PREFACE + (fuzz.rest() if fuzz.flag() else frames_of(fuzz))
    pieces, at = [], 0
    for size_bytes in cuts:
        pieces.append(stream[at : at + size_bytes])
        at += size_bytes
    assert broken_rule([stream]) == broken_rule([*pieces, stream[at:]])


def broken_rule(pieces: list[bytes]) -> str | None:
    """Returns the rule that bytes break, which all come at the same time, or None."""
    police = ConnectionPolice(RULES, clock=lambda: 0.0)
    try:
        for piece in pieces:
            wait_s = police.hear_client(memoryview(piece))
            assert math.isfinite(wait_s)
            assert wait_s >= 0
    except ProtocolViolationError as violation:
        return str(violation)
    return None


def frame_of(fuzz: FuzzData) -> bytes:
    """Returns a frame; most are of a form that the next rule looks at."""
    kind = fuzz.choice([*range(10), fuzz.integer(0, 255)])
    flags = fuzz.choice((0, 0, 1, 4, 5, fuzz.integer(0, 255)))
    stream_id = fuzz.choice((0, 1, 1, 3, 5, 7, fuzz.integer(0, 40), 2**31))
    payload = fuzz.block(220)
    if kind == DATA and fuzz.flag():
        payload = b"\0" + len(payload).to_bytes(4) + payload
    elif kind in {WINDOW_UPDATE, RST_STREAM} and fuzz.flag():
        payload = payload[:4].ljust(4, b"\1")
    elif kind == PING and fuzz.flag():
        payload = payload[:8].ljust(8)
    elif kind == SETTINGS and fuzz.flag():
        payload = b""
    length = len(payload) if fuzz.integer(0, 15) < 15 else fuzz.integer(0, 2**24 - 1)
    return length.to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def frames_of(fuzz: FuzzData) -> bytes:
    """Returns frames until there are no decisions left, after the settings that come first."""
    frames = [b"\0\0\0\4\0\0\0\0\0"]
    while not fuzz.is_used_up:
        frames.append(frame_of(fuzz))
    return b"".join(frames)


def play(fuzz: FuzzData) -> None:
    """Lets client, server, clock and looks come in any order."""
    now_s = 0.0
    police = ConnectionPolice(RULES, clock=lambda: now_s)
    try:
        police.hear_client(memoryview(PREFACE))
        police.hear_client(memoryview(b"\0\0\0\4\0\0\0\0\0"))
        while not fuzz.is_used_up:
            match fuzz.choice(("client", "client", "client", "server", "look", "time", "end")):
                case "client":
                    frame = frame_of(fuzz)
                    police.hear_client(memoryview(frame))
                case "server":
                    police.hear_server(memoryview(frame_of(fuzz)))
                case "look":
                    police.look()
                case "time":
                    now_s += fuzz.integer(0, 50) / 10
                case "end":
                    police.server_hung_up()
            assert held_bytes(police) <= HELD_BYTES
    except ProtocolViolationError as violation:
        assert str(violation)


def held_bytes(police: object, *, depth: int = 4) -> int:
    """Returns what an object and those it has hold, to a depth at which everything is counted."""
    slots = [getattr(police, name, None) for name in getattr(police, "__slots__", ())]
    inner = [*getattr(police, "__dict__", {}).values(), *slots]
    if isinstance(police, dict):
        inner = list(police.values())
    own = sys.getsizeof(police)
    if depth == 0 or isinstance(police, PeerRules):
        return own
    return own + sum(held_bytes(item, depth=depth - 1) for item in inner if not callable(item))
