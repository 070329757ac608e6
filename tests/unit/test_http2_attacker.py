"""The hostile client's frames, read by somebody who did not write them."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame
from support.broker_host import short_directory
from support.http2_attacker import ATTACH, ATTACKS, LLM_QUERY, PREFACE, Attacker

TOKEN = "0123456789abcdef" * 4
HELLO = b"any bytes"
#: What most of an attack's frames are, after the ones that attach.
MOST_FRAMES = {
    "ping_flood": "PingFrame",
    "ping_answer_flood": "PingFrame",
    "settings_flood": "SettingsFrame",
    "settings_answer_flood": "SettingsFrame",
    "window_update_flood": "WindowUpdateFrame",
    "rapid_reset": "HeadersFrame RstStreamFrame",
    "unfinished_streams": "HeadersFrame",
    "continuation_flood": "ContinuationFrame",
    "empty_continuation_flood": "ContinuationFrame",
    "message_over_the_cap": "DataFrame",
    "one_byte_data": "DataFrame",
    "empty_data": "DataFrame",
    "empty_messages": "DataFrame",
    "held_messages": "DataFrame",
    "made_you_reset": "WindowUpdateFrame",
    "priority_flood": "PriorityFrame",
    "unknown_frames": "ExtensionFrame",
    "goodbye_flood": "GoAwayFrame",
    "wrong_content_type": "HeadersFrame DataFrame",
}


class HonestServer:
    """Speaks HTTP/2 as `h2` does, for as long as that will; keeps every byte it is sent."""

    def __init__(self, path: Path) -> None:
        """Listens."""
        self.path = path
        self.received = bytearray()
        self.events: list[object] = []
        self.error: ProtocolError | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hangs up and waits for it. Idempotent."""
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(timeout=10)
            self._listener.close()

    def _serve(self) -> None:
        lines = []
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                break
            lines.append(threading.Thread(target=self._talk, args=(line,), daemon=True))
            lines[-1].start()
        for talking in lines:
            talking.join(timeout=10)

    def _talk(self, line: socket.socket) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        with line:
            line.sendall(connection.data_to_send())
            while data := line.recv(2**16):
                self.received += data
                if self.error is None:
                    self._answer(connection, line, data)

    def _answer(self, connection: H2Connection, line: socket.socket, data: bytes) -> None:
        try:
            for event in connection.receive_data(data):
                self.events.append(event)
                if isinstance(event, DataReceived) and event.stream_id == 1:
                    connection.send_headers(1, [(":status", "200")])
                    connection.send_data(1, b"hello")
            line.sendall(connection.data_to_send())
        except ProtocolError as error:
            self.error = error
        except OSError:
            return  # the attacker has gone


@pytest.fixture
def server() -> Iterator[HonestServer]:
    with short_directory() as directory:
        served = HonestServer(directory / "s")
        yield served
        served.close()


def attack(server: HonestServer, name: str, *, share: float) -> list[Frame]:
    """Has the server attacked, and returns what came after the preface as `hyperframe` reads it."""
    attacker = Attacker(str(server.path), TOKEN, HELLO, share=share)
    line = ATTACKS[name](attacker)
    line.socket.close()
    del attacker
    server.close()
    data = memoryview(bytes(server.received))
    assert data[: len(PREFACE)] == PREFACE
    data = data[len(PREFACE) :]
    frames = []
    while len(data) >= 9:
        found, length = Frame.parse_frame_header(data[:9])
        found.body_len = length
        frames.append(found)
        data = data[9 + length :]
    return frames


def test_honest_beginning_is_honest(server: HonestServer) -> None:
    """What every attack begins with is a call that `h2` has nothing against."""
    Attacker(str(server.path), TOKEN, HELLO).attached().socket.close()
    server.close()

    [request] = [event for event in server.events if isinstance(event, RequestReceived)]
    [data] = [event for event in server.events if isinstance(event, DataReceived)]
    assert dict(request.headers) == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": ATTACH.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        b"rlm-session-token": TOKEN.encode(),
    }
    assert data.data == struct.pack(">BL", 0, len(HELLO)) + HELLO
    assert server.error is None


@pytest.mark.parametrize("name", MOST_FRAMES)
def test_flood_is_made_of_what_it_says(server: HonestServer, name: str) -> None:
    """Most frames of a flood are of the kind that the flood is named after."""
    frames = attack(server, name, share=0.004)
    counts = Counter(type(found).__name__ for found in frames)

    most = {kind for kind, _ in counts.most_common(len(MOST_FRAMES[name].split()))}
    assert most == set(MOST_FRAMES[name].split()), counts


def test_rapid_reset_resets_what_it_has_begun(server: HonestServer) -> None:
    """Each query is begun, and given up with the very next frame."""
    frames = attack(server, "rapid_reset", share=0.004)
    begun = [found.stream_id for found in frames if type(found).__name__ == "HeadersFrame"]
    given_up = [found.stream_id for found in frames if type(found).__name__ == "RstStreamFrame"]

    assert begun[1:] == given_up
    assert len(given_up) >= 100
    requests = [event for event in server.events if isinstance(event, RequestReceived)]
    assert {dict(request.headers)[b":path"] for request in requests[1:]} == {LLM_QUERY.encode()}


def test_continuations_are_nine_kilobytes(server: HonestServer) -> None:
    """The flood of headers without an end is made of frames that are not small."""
    frames = attack(server, "continuation_flood", share=0.004)
    lengths = [found.body_len for found in frames if type(found).__name__ == "ContinuationFrame"]

    assert min(lengths) > 9000


@pytest.mark.parametrize(
    "name",
    [
        "interrupted_headers",
        "push_promise",
        "streams_backwards",
        "window_of_nothing",
        "data_without_headers",
    ],
)
def test_breach_of_http2_is_one_for_others_too(server: HonestServer, name: str) -> None:
    """What is forbidden is forbidden by the standard, and not only here."""
    attack(server, name, share=1)

    assert server.error is not None
