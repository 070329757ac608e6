"""Drives a peer in its own environment, by orders over pipes.

Without it two projects would share one set of packages, and a peer that hangs would hang the
report.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.bench.peers.peer import Peer

DRIVERS = Path(__file__).with_name("drivers")

_START_S = 120.0  # what it imports, the first time from a cold disk
_ANSWER_S = 180.0  # of the slowest order: a context of 10 MB, three cells over it
_END_S = 30.0  # it removes its containers
_MAX_LINE_BYTES = 2**24
_WORDS_BYTES = 2000

_T = TypeVar("_T")


class PeerFailedError(Exception):
    """A peer could not do what it was told; the text is for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyPeer:
    """A peer that is installed on this machine.

    Attributes:
        peer: Which one.
        python: The interpreter of its environment.
        image: What it makes containers from.
        scratch: A folder of ours where it may leave files.
    """

    peer: Peer
    python: Path
    image: str
    scratch: Path


class PeerSession:
    """One open session of a peer. Made by `open_peer`."""

    def __init__(self, process: asyncio.subprocess.Process, version: str) -> None:
        """Takes a process that has said it is ready."""
        self._process = process
        self.version = version

    async def open(
        self, *, image: str, memory_bytes: int, context_chars: int = 0, delay_s: float = 0.0
    ) -> float:
        """Opens the peer's sandbox and returns how long that took, in seconds."""
        answer = await self._order(
            do="open",
            image=image,
            memory_bytes=memory_bytes,
            context_chars=context_chars,
            delay_s=delay_s,
        )
        return float(answer["took_s"][0])

    async def run(self, source: str, *, count: int = 1) -> tuple[list[float], str]:
        """Runs a cell `count` times; returns the seconds of each, and what the last printed."""
        answer = await self._order(do="cells", source=source, count=count)
        return [float(took_s) for took_s in answer["took_s"]], str(answer["printed"])

    async def close(self) -> None:
        """Ends the peer's sandbox; another can be opened."""
        await self._order(do="close")

    async def _order(self, **order: object) -> dict[str, Any]:
        _piped(self._process.stdin).write(json.dumps(order).encode() + b"\n")
        return await _read_answer(self._process, timeout_s=_ANSWER_S)


@asynccontextmanager
async def open_peer(ready: ReadyPeer) -> AsyncIterator[PeerSession]:
    """Yields a peer without a sandbox yet; leaving the context ends it with what it started.

    Raises:
        PeerFailedError: It did not start.
    """
    process = await asyncio.create_subprocess_exec(
        ready.python,
        "-P",
        DRIVERS / "drive.py",
        DRIVERS / ready.peer.adapter,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ready.scratch,
        limit=_MAX_LINE_BYTES,
        process_group=0,  # Ctrl-C ends this process, which then closes that one's input
    )
    words = asyncio.create_task(_keep_end(process.stderr))
    try:
        try:
            hello = await _read_answer(process, timeout_s=_START_S)
        except PeerFailedError as error:
            if process.returncode is None:
                process.kill()
            raise PeerFailedError(f"{error}: {(await words).strip()}") from error
        yield PeerSession(process, str(hello["ready"]))
    finally:
        await _end(process)
        words.cancel()
        with suppress(asyncio.CancelledError):
            await words


def _piped(stream: _T | None) -> _T:
    """Returns a stream of a process that was started with all three."""
    if stream is None:
        raise PeerFailedError("expected a peer's process to have pipes")
    return stream


async def _read_answer(process: asyncio.subprocess.Process, *, timeout_s: float) -> dict[str, Any]:
    try:
        line = await asyncio.wait_for(_piped(process.stdout).readline(), timeout_s)
    except TimeoutError as error:
        raise PeerFailedError(f"no answer in {timeout_s:g} s") from error
    if not line:
        raise PeerFailedError("it ended")
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise PeerFailedError(f"expected an answer in JSON, got {line[:200]!r}") from error
    if "error" in answer:
        raise PeerFailedError(str(answer["error"]))
    return answer


async def _keep_end(stream: asyncio.StreamReader | None) -> str:
    """Reads a stream to its end, so that nothing blocks on it, and returns its last words."""
    kept = b""
    while piece := await _piped(stream).read(2**16):
        kept = (kept + piece)[-_WORDS_BYTES:]
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    _piped(process.stdin).close()
    try:
        await asyncio.wait_for(process.wait(), _END_S)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        await process.wait()
