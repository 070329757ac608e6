"""The worker's handle on the REPL process, with a test at the other end of its channel."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_image.repl.channel import (
    COMMANDS,
    ChannelClosedError,
    Frame,
    FrameKind,
    FrameReader,
)
from sandbox_image.repl.contexts import ContextAssembly, read_context
from sandbox_image.repl.process import ReplProcess

TEXT = "a context, and more of it\n" * 150_000
START = {"names": ["context"], "kind": "text", "may_map": True}


@pytest.fixture
def ends() -> Iterator[tuple[ReplProcess, socket.socket]]:
    """The handle, and what it takes for its process's end of the channel."""
    near, far = socket.socketpair()
    with near, far:
        yield ReplProcess(pid=os.getpid(), connection=near, stdout=-1, stderr=-1), far


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context that is a file."""
    path = tmp_path / "context"
    path.write_text(TEXT)
    return path


def frames_until_end(far: socket.socket) -> tuple[list[Frame], FrameReader]:
    """Reads what comes until the other end is closed."""
    reader, frames = FrameReader(far, most=COMMANDS), []
    with suppress(ChannelClosedError):
        while True:
            reader.receive()
            while (frame := reader.next_frame()) is not None:
                frames.append(frame)
    return frames, reader


def hand_over(repl: ReplProcess, far: socket.socket, path: Path) -> tuple[list[Frame], FrameReader]:
    """Sends a context, and returns what arrives."""
    with ThreadPoolExecutor(1) as readers, path.open("rb", buffering=0) as file:
        heard = readers.submit(frames_until_end, far)
        repl.send(FrameKind.BEGIN_RUN, {"tools": []})
        repl.send_context(START, file.fileno())
        repl.connection.close()
        return heard.result(20)


def test_context_goes_as_a_descriptor(
    ends: tuple[ReplProcess, socket.socket], context: Path
) -> None:
    """What is handed over is the file, after what had been said before, and it is read whole."""
    frames, reader = hand_over(*ends, context)

    assert [frame.kind for frame in frames] == [FrameKind.BEGIN_RUN, FrameKind.CONTEXT_FILE]
    assert frames[1].json() == START
    assert read_context(reader.take_descriptor(), "text", may_map=True) == TEXT


def test_context_goes_in_pieces_where_no_descriptor_can_be_sent(
    ends: tuple[ReplProcess, socket.socket], context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sandbox of the same user that has all descriptors under way stops no context."""

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many references")

    monkeypatch.setattr("sandbox_image.repl.process.socket.send_fds", refuse)
    frames, _ = hand_over(*ends, context)

    begun, start, *pieces, end = frames
    assert (begun.kind, start.kind) == (FrameKind.BEGIN_RUN, FrameKind.CONTEXT_START)
    assert end.kind is FrameKind.CONTEXT_END
    assembly = ContextAssembly(start.json()["kind"])
    for piece in pieces:
        assembly.write(piece.payload)
    assert assembly.value() == TEXT


def test_process_that_takes_nothing_is_not_waited_for(
    ends: tuple[ReplProcess, socket.socket], context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has stopped reading is an error after a bounded time."""
    monkeypatch.setattr("sandbox_image.repl.process._CONTEXT_S", 0.05)
    repl, _ = ends
    with suppress(BlockingIOError):
        while True:
            repl.connection.send(bytes(4096))

    with context.open("rb", buffering=0) as file, pytest.raises(TimeoutError):
        repl.send_context(START, file.fileno())
    assert repl.connection.gettimeout() == 0


def test_process_that_is_gone_is_noticed_elsewhere(
    ends: tuple[ReplProcess, socket.socket], context: Path
) -> None:
    """To send to nobody is no error: the end of the channel is seen where it is read."""
    repl, far = ends
    far.close()

    with context.open("rb", buffering=0) as file:
        repl.send_context(START, file.fileno())
    with pytest.raises(ChannelClosedError):
        repl.receive()
