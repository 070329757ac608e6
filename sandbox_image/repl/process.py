"""The worker's handle on the REPL process: start, watch, interrupt, kill, take a spare.

Without it the worker's state machine would be full of pids, pipes and races with the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from pathlib import Path
from typing import NamedTuple

from sandbox_image.repl.channel import (
    CLAIMS,
    BadFrameError,
    ChannelClosedError,
    Frame,
    FrameKind,
    FrameReader,
    JsonObject,
    encode,
)
from sandbox_image.repl.confinement import Confinement
from sandbox_image.repl.loop import repl_main
from sandbox_image.repl.process_table import Meter, Use, anonymous_bytes, descendants, is_alive
from sandbox_image.repl.shared_pages import share_all

#: How long leftover processes are hunted before everything but the worker is killed.
_SWEEP_S = 5.0
_READ_BYTES = 64 * 1024
#: Of a context that cannot be handed over as a file; and how long a process that has nothing else
#: to do may take for any of it.
_PIECE_BYTES = 2**20
_CONTEXT_S = 30.0
#: How long the REPL process may take to give up what it does; it takes some milliseconds.
_CONFINING_S = 20.0
#: No process has a higher number (PID_MAX_LIMIT, proc(5)); one that a cell made up may.
_MAX_PID = 2**22


class Spare(NamedTuple):
    """A fork of the REPL process that waits to take over."""

    pid: int
    connection: socket.socket
    cell_count: int  # cells that had ended when it was forked
    is_base: bool

    def let_go(self) -> None:
        """Ends the spare: it exits when its channel closes."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Usage:
    """What a cell used so far."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.cpu_at_start_s = 0.0
        self.cpu_s = 0.0
        self.peak_memory_bytes = 0


class ReplProcess:
    """The live REPL process and its spares, as the worker sees them.

    Attributes:
        pid: Of the live process.
        connection: This end of its channel.
        stdout: Where its output is read; never blocks.
        stderr: Likewise.
        spares: The base and, where there is one, the checkpoint; the newest last.
        cell_count: Cells that have ended in it or in what it was forked from.
    """

    def __init__(self, *, pid: int, connection: socket.socket, stdout: int, stderr: int) -> None:
        """Takes a process over; its connection is never to block from now on."""
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.spares: list[Spare] = []
        self.cell_count = 0
        self._adopt(connection)

    @classmethod
    def start(cls, *, hidden: Path) -> ReplProcess:
        """Forks the REPL process. To be called before anything has started a thread.

        Args:
            hidden: The directory of the worker's socket, which that process shall not reach.
        """
        worker_pid = os.getpid()
        worker_end, repl_end = socket.socketpair()
        stdout_read, stdout_write = os.pipe()
        stderr_read, stderr_write = os.pipe()
        share_all()
        pid = os.fork()
        if pid == 0:
            worker_end.close()
            os.close(stdout_read)
            os.close(stderr_read)
            _be_first_to_die()
            repl_main(
                repl_end,
                stdout=stdout_write,
                stderr=stderr_write,
                worker_pid=worker_pid,
                hidden=hidden,
            )
        repl_end.close()
        os.close(stdout_write)
        os.close(stderr_write)
        for descriptor in (stdout_read, stderr_read):
            os.set_blocking(descriptor, False)
        return cls(pid=pid, connection=worker_end, stdout=stdout_read, stderr=stderr_read)

    def _adopt(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self._reader = FrameReader(connection, most=CLAIMS)
        self._outgoing = bytearray()
        self._meter: Meter | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for the REPL process to read."""
        return len(self._outgoing)

    def send(self, kind: FrameKind, payload: bytes | JsonObject) -> None:
        """Queues a frame and sends what can be sent without waiting."""
        self._outgoing += encode(kind, payload)
        self.flush()

    def send_context(self, start: JsonObject, descriptor: int) -> None:
        """Has the process read a context that is a file. Waits for it; no cell is to run.

        A process that is gone is noticed elsewhere.

        Args:
            start: Names and kind of the context, and whether its file may be mapped.
            descriptor: The file, open at its start; stays the caller's.

        Raises:
            TimeoutError: The process lives and takes nothing.
        """
        self.connection.settimeout(_CONTEXT_S)
        try:
            self.connection.sendall(self._outgoing)
            self._outgoing.clear()
            self._send_file(start, descriptor)
        except TimeoutError:
            raise
        except OSError:
            return
        finally:
            self.connection.settimeout(0)

    def _send_file(self, start: JsonObject, descriptor: int) -> None:
        frame = encode(FrameKind.CONTEXT_FILE, start)
        try:
            sent = socket.send_fds(self.connection, [frame], [descriptor])
        except OSError as error:
            # The kernel counts descriptors under way by user, over all containers (unix(7)), so
            # another sandbox may have sent them all. Piece by piece it takes longer.
            if error.errno != errno.ETOOMANYREFS:
                raise
            self.connection.sendall(encode(FrameKind.CONTEXT_START, start))
            while piece := os.read(descriptor, _PIECE_BYTES):
                self.connection.sendall(encode(FrameKind.CONTEXT_DATA, piece))
            frame, sent = encode(FrameKind.CONTEXT_END, {}), 0
        self.connection.sendall(frame[sent:])

    def flush(self) -> None:
        """Sends more of what is queued. A process that is gone is noticed elsewhere."""
        # OSError: what a cell sent in place of a spare's channel may be a socket of any sort.
        with contextlib.suppress(OSError):
            while self._outgoing:
                sent = self.connection.send(memoryview(self._outgoing)[: 2**20])
                del self._outgoing[:sent]

    def receive(self) -> list[Frame]:
        """Returns the frames that have arrived; keeps track of spares itself.

        Raises:
            ChannelClosedError: The process is gone.
            BadFrameError: It sent what is not a frame.
        """
        with contextlib.suppress(BlockingIOError):
            self._reader.receive()
        frames = []
        while (frame := self._reader.next_frame()) is not None:
            if frame.kind is FrameKind.SPARE:
                self._add_spare(frame.claim())
            else:
                frames.append(frame)
        return frames

    def hear_confinement(self) -> Confinement:
        """Waits until the process has given up what no cell needs, and says what is left.

        To be called once, before anything is sent: no cell has run yet, so what is heard is true.

        Raises:
            ChannelClosedError: The process ended instead; what it said of it is in the message.
            BadFrameError: It said something else.
        """
        give_up_s = time.monotonic() + _CONFINING_S
        self.connection.settimeout(_CONFINING_S)
        try:
            while (frame := self._reader.next_frame()) is None and time.monotonic() < give_up_s:
                self._reader.receive()
        except (ChannelClosedError, BlockingIOError) as error:
            last_words = self.read_output(self.stderr).decode(errors="replace")
            raise ChannelClosedError(f"it ended before it was confined: {last_words}") from error
        finally:
            self.connection.settimeout(0)
        if frame is None:
            raise BadFrameError("it was not confined in time")
        return Confinement.from_json(frame.claim(kind=FrameKind.CONFINED))

    @property
    def is_inspectable(self) -> bool:
        """Whether another process of the same user may look into it: this one tries."""
        try:
            with open(f"/proc/{self.pid}/mem", "rb"):  # noqa: PTH123
                return True
        except OSError:
            return False

    def _add_spare(self, claim: JsonObject) -> None:
        pid, descriptor = claim.get("pid"), self._reader.take_descriptor()
        if not isinstance(pid, int) or not 1 < pid <= _MAX_PID or pid in {os.getpid(), self.pid}:
            os.close(descriptor)
            raise BadFrameError("a spare with an impossible pid")
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError as error:
            os.close(descriptor)
            raise BadFrameError("a spare whose channel is no socket") from error
        spare = Spare(
            pid=pid,
            connection=connection,
            cell_count=self.cell_count,
            is_base=bool(claim.get("is_base")),
        )
        # A new base stands for every context, so older spares of either sort are of no use; a new
        # checkpoint replaces the one before it.
        kept = []
        for other in self.spares:
            if spare.is_base or not other.is_base:
                other.let_go()
            else:
                kept.append(other)
        self.spares = [*kept, spare]

    def drop_checkpoint(self) -> None:
        """Ends the newest spare, unless it is the base."""
        if self.spares and not self.spares[-1].is_base:
            self.spares.pop().let_go()

    def anonymous_bytes(self) -> int | None:
        """Returns what the live process and this one hold that is no file's; `None` if it is dead.

        A process that has ended holds nothing, and yet what it held may not be free so soon.
        """
        try:
            live_bytes = anonymous_bytes(self.pid)
            return live_bytes + anonymous_bytes(os.getpid()) if live_bytes else None
        except OSError:
            return None

    def read_output(self, descriptor: int) -> bytes:
        """Returns what a cell has printed on one of its two pipes, empty when nothing is there."""
        try:
            return os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""

    def interrupt(self) -> None:
        """Asks the running cell to end: `KeyboardInterrupt` in its main thread."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)

    def end(self) -> int:
        """Kills the live process, unless it has ended by itself, and returns its wait status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        try:
            return os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            # A spare whose parent has not ended yet is not this process's child; it will be.
            return signal.SIGKILL

    def kill(self) -> None:
        """Kills the live process and everything cells have left, but not the spares."""
        self.end()
        self.end_leftovers(with_live=True)

    def end_leftovers(self, *, with_live: bool = False) -> None:
        """Kills processes a cell has left behind: only the live process and its spares stay.

        A cell may fork faster than one pass kills, so passes follow each other until one finds
        nothing. Forking beyond the bound costs the session its spares: everything is killed.
        """
        give_up_s = time.monotonic() + _SWEEP_S
        # What has had to be killed is likely to have left much: that is held before it is listed,
        # which alone took 6 s under gVisor while 60 processes forked; now all is over in 2.
        is_held = with_live and _hold_all_others()
        while True:
            kept = {spare.pid for spare in self.spares}
            if not with_live:
                kept.add(self.pid)
            # A spare that was let go stays a zombie of the live process until that one reaps it.
            strangers = [pid for pid in descendants() if pid not in kept and is_alive(pid)]
            if not strangers:
                break
            is_held = is_held or _hold_all_others()
            for pid in strangers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reap()
            if time.monotonic() > give_up_s:
                if os.getpid() == 1:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(-1, signal.SIGKILL)
                return
        if is_held:
            for pid in kept:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def take_over(self) -> Spare | None:
        """Puts a spare that still lives in the place of the dead process.

        The newest one where it holds everything up to the last cell; else the base, which holds the
        contexts and nothing of any cell: a state from somewhere between would be hard to explain.

        Returns:
            The spare, or None where there is none: the session is lost.
        """
        self.connection.close()
        self._reader.close()
        if self._meter is not None:
            self._meter.close()
        while self.spares:
            spare = self.spares.pop()
            is_usable = spare.is_base or spare.cell_count == self.cell_count
            if not (is_usable and is_alive(spare.pid)):
                spare.let_go()
                continue
            self.pid = spare.pid
            self.cell_count = spare.cell_count
            self._adopt(spare.connection)
            # A cell may have stopped the spares before it ended its interpreter.
            with contextlib.suppress(ProcessLookupError):
                os.kill(spare.pid, signal.SIGCONT)
            self.send(FrameKind.RESUME, {})
            return spare
        return None

    def start_meter(self, usage: Usage) -> None:
        """Begins to meter a cell that has just begun: the kernel counts in 10 ms anyway."""
        with contextlib.suppress(OSError):
            use = self._metered()
            usage.cpu_at_start_s, usage.peak_memory_bytes = use.cpu_s, use.resident_bytes

    def sample(self, usage: Usage) -> None:
        """Brings a cell's usage up to date; does nothing when the process is gone."""
        with contextlib.suppress(OSError):
            use = self._metered()
            usage.peak_memory_bytes = max(usage.peak_memory_bytes, use.resident_bytes)
            usage.cpu_s = max(use.cpu_s - usage.cpu_at_start_s, usage.cpu_s)

    def _metered(self) -> Use:
        if self._meter is None:
            self._meter = Meter(self.pid)
        return self._meter.read()


def reap() -> dict[int, int]:
    """Collects every child that has ended: its pid and wait status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (result := os.waitpid(-1, os.WNOHANG))[0]:
            ended[result[0]] = result[1]
    return ended


def _hold_all_others() -> bool:
    """Stops every other process, so that none starts another while they are counted and killed.

    Returns:
        Whether it did: outside a namespace of its own this process stops nobody.
    """
    if os.getpid() != 1:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGSTOP)
    return True


def _be_first_to_die() -> None:
    """Makes the kernel choose this process, not the worker, when memory runs out."""
    # Raising it is allowed to anyone (proc(5)); it stays for every fork of this process.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


__all__ = ["BadFrameError", "ChannelClosedError", "ReplProcess", "Spare", "Usage", "reap"]
