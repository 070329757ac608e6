"""The REPL process's end of the channel, shared by all threads of a cell.

Without it an interrupt could lose half a frame, and a thread that waits for an answer could take
the message another one waits for. Nobody owns a reader thread, because a fork would lose it:
whoever waits, reads (leader and followers).
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from sandbox_image.repl.channel import (
    COMMANDS,
    Frame,
    FrameKind,
    FrameReader,
    JsonObject,
    encode,
)

if TYPE_CHECKING:
    import asyncio

#: What the thread that runs cells waits for between them; no query has such an id.
_COMMAND = ""


class Interrupts:
    """Turns SIGINT into `KeyboardInterrupt` only where a cell can take it.

    Python runs signal handlers in the main thread between two instructions. Inside `held()` the
    interrupt is remembered and raised on leaving, so that a frame is never cut in two.
    """

    def __init__(self) -> None:
        """Starts with interrupts off: they are for cells only."""
        self._is_on = False
        self._held = 0
        self._is_pending = False

    def install(self) -> None:
        """Takes SIGINT over; a cell may have put its own handler there."""
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._is_on:
            return
        if self._held:
            self._is_pending = True
            return
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Lets interrupts through while a cell runs."""
        self._is_pending = False
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds interrupts back while something must not be cut in two."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._is_pending and not self._held and self._is_on:
            self._is_pending = False
            raise KeyboardInterrupt


class Mailbox:
    """Sends frames, and hands what arrives to whoever waits for it."""

    def __init__(
        self,
        connection: socket.socket,
        interrupts: Interrupts,
        *,
        reader: FrameReader | None = None,
    ) -> None:
        """Takes over `connection`; the mailbox closes it.

        Args:
            connection: This process's end of the channel.
            interrupts: Held back while a frame is on its way.
            reader: What has read from `connection` so far, and may hold frames already.
        """
        self._connection = connection
        self._reader = reader or FrameReader(connection, most=COMMANDS)
        self._interrupts = interrupts
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._send_lock = threading.Lock()
        self._lock = threading.RLock()
        self._someone_reads = False
        #: What wakes each thread that waits while another one reads, under what it waits for.
        #: Each is woken alone: woken together, sixty-four threads keep one another from working.
        self._followers: dict[str, threading.Lock] = {}
        self._commands: deque[Frame] = deque()
        self._replies: dict[str, JsonObject | None] = {}
        self._awaited: set[str] = set()
        self._futures: dict[str, asyncio.Future[JsonObject | None]] = {}
        self._sort()

    @property
    def connection(self) -> socket.socket:
        """This process's end."""
        return self._connection

    def send(
        self, kind: FrameKind, payload: bytes | JsonObject, *, descriptor: int | None = None
    ) -> None:
        """Sends one frame, whole."""
        data = encode(kind, payload)
        with self._interrupts.held(), self._send_lock:
            if descriptor is None:
                self._connection.sendall(data)
            else:
                sent = socket.send_fds(self._connection, [data], [descriptor])
                self._connection.sendall(data[sent:])

    def expect_reply(self, query_id: str) -> None:
        """Says that a reply with this id is wanted; to be called before the query is sent."""
        with self._lock:
            self._awaited.add(query_id)

    def wait_for_reply(self, query_id: str) -> JsonObject | None:
        """Waits for the reply to a query; None when the cell ended first."""
        try:
            with self._lock:
                self._lead_or_follow(query_id, lambda: query_id in self._replies)
                return self._replies.pop(query_id)
        finally:
            with self._lock:
                self._awaited.discard(query_id)
                self._replies.pop(query_id, None)

    async def reply(self, query_id: str) -> JsonObject | None:
        """Does what `wait_for_reply` does, in an event loop that goes on meanwhile.

        The loop reads in the place of a thread, as long as no thread does.
        """
        import asyncio  # noqa: PLC0415 - whoever awaits has imported it; nobody else needs it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[JsonObject | None] = loop.create_future()
        with self._lock:
            if query_id in self._replies:
                self._awaited.discard(query_id)
                return self._replies.pop(query_id)
            is_first = not any(other.get_loop() is loop for other in self._futures.values())
            self._futures[query_id] = future
        if is_first:
            loop.add_reader(self._connection, self._read_for_loop)
        try:
            return await future
        finally:
            with self._lock:
                self._futures.pop(query_id, None)
                self._awaited.discard(query_id)
                self._replies.pop(query_id, None)
                is_last = not any(other.get_loop() is loop for other in self._futures.values())
            if is_last:
                loop.remove_reader(self._connection)

    def _read_for_loop(self) -> None:
        """Reads what is there for an event loop, unless a thread is about to."""
        with self._lock:
            if self._someone_reads or not self._poll.poll(0):
                return
            self._someone_reads = True
        try:
            with self._interrupts.held():
                self._take()
        finally:
            with self._lock:
                self._someone_reads = False
                self._call_a_leader()

    def next_command(self) -> Frame:
        """Waits for the next thing the worker wants.

        Raises:
            ChannelClosedError: The worker is gone.
        """
        with self._lock:
            self._lead_or_follow(_COMMAND, lambda: bool(self._commands))
            return self._commands.popleft()

    def take_descriptor(self) -> int:
        """Returns the descriptor that came with the command that was taken last.

        Raises:
            BadFrameError: None did.
        """
        return self._reader.take_descriptor()

    def abandon_replies(self) -> None:
        """Wakes every thread that still waits for a reply: its cell has ended."""
        with self._lock:
            for query_id in self._awaited:
                self._replies.setdefault(query_id, None)
                self._wake(query_id)
            for query_id in list(self._futures):
                self._settle(query_id)

    def _lead_or_follow(self, awaited: str, is_here: Callable[[], bool]) -> None:
        """Waits until `is_here()`, reading for all while nobody else does. Holds the lock once.

        Whoever leaves, interrupted or not, sees to it that someone reads while anyone waits.
        """
        try:
            while not is_here():
                if self._someone_reads:
                    self._follow(awaited)
                else:
                    self._lead()
        finally:
            self._call_a_leader()

    def _follow(self, awaited: str) -> None:
        """Waits to be woken: what is awaited has come, or nobody reads any more."""
        woken = threading.Lock()
        woken.acquire()
        self._followers[awaited] = woken
        try:
            self._lock.release()
            try:
                woken.acquire()
            finally:
                self._lock.acquire()
        finally:
            # One that has been woken is no follower any more.
            if self._followers.get(awaited) is woken:
                del self._followers[awaited]

    def _lead(self) -> None:
        """Waits for something to read, and reads it."""
        self._someone_reads = True
        self._lock.release()
        try:
            # Readable first, then exactly one receive: only the wait can be interrupted, and it
            # holds nothing.
            self._poll.poll()
            with self._interrupts.held():
                self._take()
        finally:
            self._lock.acquire()
            self._someone_reads = False

    def _call_a_leader(self) -> None:
        """Has one of those who wait read, if nobody does. Holds the lock."""
        if not self._someone_reads and self._followers:
            self._wake(next(iter(self._followers)))

    def _wake(self, awaited: str) -> None:
        """Wakes whoever waits for that. Holds the lock."""
        woken = self._followers.pop(awaited, None)
        if woken is not None:
            woken.release()

    def _take(self) -> None:
        self._reader.receive()
        self._sort()

    def _sort(self) -> None:
        """Puts what has been read where it is waited for."""
        with self._lock:
            while (frame := self._reader.next_frame()) is not None:
                if frame.kind is not FrameKind.REPLY:
                    self._commands.append(frame)
                    self._wake(_COMMAND)
                    continue
                reply = frame.json()
                query_id = str(reply.get("query_id"))
                # A reply nobody waits for belongs to a cell that has ended.
                if query_id in self._awaited:
                    self._replies[query_id] = reply
                    self._wake(query_id)
                    self._settle(query_id)

    def _settle(self, query_id: str) -> None:
        """Hands a reply to the event loop that waits for it, if one does. Holds the lock."""
        future = self._futures.get(query_id)
        if future is None:
            return
        reply = self._replies.get(query_id)
        # A cell may have closed its loop, or the loop is another thread's.
        with contextlib.suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(_set_unless_done, future, reply)


def _set_unless_done(future: asyncio.Future[JsonObject | None], reply: JsonObject | None) -> None:
    if not future.done():
        future.set_result(reply)
