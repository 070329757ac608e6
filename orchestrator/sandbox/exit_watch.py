"""Learns of every container's end from one stream of the engine's events.

Without it each sandbox would occupy a thread for as long as it lives, waiting for an answer of the
engine; and an engine that dies would be noticed by each of them on its own, or never.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from orchestrator.errors import SandboxLostError, SandboxStartError


class EventStream(Protocol):
    """The engine's events, as they happen; iterating blocks until the next one."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yields events until the engine is gone or the stream is closed."""
        ...

    def close(self) -> None:
        """Ends the iteration, from any thread."""
        ...


class ExitWatch:
    """Tells whoever waits when a container has stopped, or that the engine is gone.

    Its methods belong to the event loop's thread, but for `expect`. A thread of its own opens the
    stream and reads it.
    """

    def __init__(self, open_stream: Callable[[], EventStream]) -> None:
        """Begins to open a stream that yields an event for each container that stops."""
        self._open_stream = open_stream
        self._loop = asyncio.get_running_loop()
        self._stream: EventStream | None = None
        self._opened = asyncio.Event()
        self._exits: dict[str, asyncio.Event] = {}
        self._stopped: set[str] = set()
        self._is_over = False
        # A daemon: blocked in a read from an engine that hangs, it must not keep the process.
        threading.Thread(target=self._read, name="rlm-exit-watch", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended: nothing more will be learnt from it."""
        return self._is_over

    async def opened(self, *, timeout_s: float) -> None:
        """Waits until the engine has begun to report; what stopped before that is not seen.

        Raises:
            SandboxStartError: The engine did not answer, or not in time.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), timeout_s)
        if self._stream is None or self._is_over:
            message = f"The Docker engine did not report its events within {timeout_s:.0f} s."
            raise SandboxStartError(message)

    def expect(self, container_id: str) -> None:
        """Has the end of a container remembered. Called before it starts; safe from any thread."""
        self._loop.call_soon_threadsafe(self._register, container_id)

    async def wait(self, container_id: str) -> None:
        """Returns when the container has stopped; at once if it has been forgotten.

        Raises:
            SandboxLostError: The engine went away first, so nobody can tell any more.
        """
        exit_event = self._exits.get(container_id)
        if exit_event is None:
            return
        await exit_event.wait()
        if container_id in self._exits and container_id not in self._stopped:
            message = "The Docker engine went away while the sandbox was running."
            raise SandboxLostError(message)

    def forget(self, container_id: str) -> None:
        """Lets whoever still waits for the container go on, and keeps nothing about it."""
        self._stopped.discard(container_id)
        exit_event = self._exits.pop(container_id, None)
        if exit_event is not None:
            exit_event.set()

    def close(self) -> None:
        """Ends the stream and with it the thread. Idempotent."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # an engine that is gone has closed it already
                self._stream.close()

    def _read(self) -> None:
        with contextlib.suppress(Exception):  # however the stream breaks, it means the same
            stream = self._open_stream()
            self._tell(self._on_opened, stream)
            for event in stream:
                self._tell(self._on_stopped, str(event["Actor"]["ID"]))
        self._tell(self._on_over)

    def _tell(self, listener: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed already: nobody waits
            self._loop.call_soon_threadsafe(listener, *arguments)

    def _on_opened(self, stream: EventStream) -> None:
        self._stream = stream
        self._opened.set()

    def _register(self, container_id: str) -> None:
        exit_event = self._exits.setdefault(container_id, asyncio.Event())
        if self._is_over:
            exit_event.set()

    def _on_stopped(self, container_id: str) -> None:
        if container_id in self._exits:
            self._stopped.add(container_id)
            self._exits[container_id].set()

    def _on_over(self) -> None:
        self._is_over = True
        self._opened.set()
        for exit_event in self._exits.values():
            exit_event.set()
