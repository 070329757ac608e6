from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.broker_host import attached, chosen

from orchestrator.broker.context_pieces import PIECE_BYTES
from orchestrator.broker.context_place import CONTEXT_NAME, ContextPlace
from orchestrator.context import encode_context
from orchestrator.controls import BrokerIsolation
from orchestrator.errors import SandboxLostError

LARGE = bytes(PIECE_BYTES + 1)


@contextmanager
def file_bound(size_bytes: int) -> Iterator[None]:
    """Lets this process write no file larger than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names_in(directory: Path) -> list[str]:
    """Returns what lies in a directory."""
    return [path.name for path in directory.iterdir()]


async def test_context_lies_there_while_it_is_handed_over(tmp_path: Path) -> None:
    """What is larger than a piece is a file, and then it is gone; the next one is, too."""
    with closing(ContextPlace(tmp_path)) as place:
        for data in (LARGE, LARGE[1:] + b"xy"):
            async with place.laid(data) as is_laid:
                assert is_laid
                assert (tmp_path / CONTEXT_NAME).read_bytes() == data
            assert not names_in(tmp_path)


async def test_small_context_does_not(tmp_path: Path) -> None:
    """What fits a message needs no file."""
    with closing(ContextPlace(tmp_path)) as place:
        async with place.laid(LARGE[1:]) as is_laid:
            assert (is_laid, names_in(tmp_path)) == (False, [])


async def test_no_second_one_lies_there(tmp_path: Path) -> None:
    """One context at a time: a second call neither waits nor touches what the first laid."""
    with closing(ContextPlace(tmp_path)) as place:
        async with place.laid(LARGE), place.laid(LARGE + b"x") as is_laid:
            assert not is_laid
            assert (tmp_path / CONTEXT_NAME).read_bytes() == LARGE
        assert not names_in(tmp_path)


async def test_half_a_context_is_no_context(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file system takes half of it, nothing stays, and the log says why it is slower."""
    with closing(ContextPlace(tmp_path)) as place, caplog.at_level(logging.WARNING):
        with file_bound(PIECE_BYTES // 2):
            async with place.laid(LARGE) as is_laid:
                assert not is_laid
        assert not names_in(tmp_path)
        async with place.laid(LARGE) as is_laid:
            assert is_laid

    assert "sent in pieces: File too large" in caplog.text


async def test_cancelled_call_leaves_nothing(tmp_path: Path) -> None:
    """A call that is cancelled while it writes ends when it has written, and takes that along."""

    async def lay(place: ContextPlace) -> None:
        async with place.laid(bytes(64 * PIECE_BYTES)):
            raise AssertionError("it was cancelled")

    with closing(ContextPlace(tmp_path)) as place:
        laying = asyncio.create_task(lay(place))
        await asyncio.sleep(0)
        laying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await laying
        assert not names_in(tmp_path)


async def test_closed_place_holds_nothing(tmp_path: Path) -> None:
    """What lies there when it is closed goes; after that nothing is laid, and it is no error."""
    place = ContextPlace(tmp_path)
    async with place.laid(LARGE):
        place.close()
        assert not names_in(tmp_path)
    async with place.laid(LARGE) as is_laid:
        assert not is_laid
    place.close()


async def test_context_that_is_not_opened_in_time_loses_the_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that never opens a context is not waited for."""
    monkeypatch.setattr("orchestrator.broker.attachment._CHUNK_S", 0.05)
    with chosen(BrokerIsolation.IN_PROCESS):
        async with attached() as pair:
            with pytest.raises(SandboxLostError, match=r"did not open context within 0\.05 s"):
                await pair.attachment.bind_context("context", encode_context("x" * 2 * 2**20))
