"""The life of the REPL process: take a command, do it, leave a spare behind.

A spare is a fork of this process that waits. When a cell ends the process it runs in, the newest
spare takes over with the variables as they were before that cell. Without spares one memory bomb
would cost the session everything it has computed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import sys
import threading
import traceback
from io import TextIOWrapper
from pathlib import Path

from sandbox_image.repl import landlock
from sandbox_image.repl.asking import Asker
from sandbox_image.repl.channel import (
    COMMANDS,
    ChannelClosedError,
    Frame,
    FrameKind,
    FrameReader,
    JsonObject,
    encode,
)
from sandbox_image.repl.confinement import confine
from sandbox_image.repl.contexts import ContextAssembly, read_context
from sandbox_image.repl.first_import import after_first_import
from sandbox_image.repl.mailbox import Interrupts, Mailbox
from sandbox_image.repl.memory_limit import limit_memory
from sandbox_image.repl.namespace import Namespace
from sandbox_image.repl.resource_tracking import track_nothing
from sandbox_image.repl.running import CellRunner
from sandbox_image.repl.shared_pages import share_all
from sandbox_image.repl.signalling import signal_by_thread
from sandbox_image.repl.sleeping_fork import fork_asleep
from sandbox_image.repl.sqlite_locking import lock_by_directory

#: Kept free for the worker and the spares when the REPL process is held to its soft limit.
_RESERVED_BYTES = 96 * 2**20
#: Least a REPL process may have; Python itself takes about 20 MiB of it.
_LEAST_DATA_BYTES = 64 * 2**20
#: Threads of a cell: the usual 8 MiB of address space each would hit the soft limit at about 100.
_THREAD_STACK_BYTES = 2 * 2**20
#: Signals without a choice, and the two that Python ignores from its start: to write where nobody
#: reads, or too much, is an error of the call and not the end of the program. The last stays
#: ignored as in the worker: the kernel sends it to a group that nobody controls when one of its
#: members has been stopped and another ends (setpgid(2)), which is what the worker does to leftover
#: processes.
_NOT_CHANGED = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP}
)
#: No process has more (fs.nr_open, proc(5)).
_MOST_DESCRIPTORS = 2**20


class ReplLoop:
    """Runs commands of the worker until the worker is gone."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes over the process's end of the channel."""
        self._interrupts = Interrupts()
        self._mailbox = Mailbox(connection, self._interrupts)
        self._asker = Asker(lambda: self._mailbox)
        self._namespace = Namespace(self._asker)
        # In place of the worker's own, which is none of a cell's business.
        sys.modules["__main__"] = self._namespace.module
        self._runner = CellRunner(self._namespace, self._interrupts)
        self._assembly: ContextAssembly | None = None
        self._context_names: list[str] = []
        self._has_run = False

    def run(self) -> None:
        """Does what the worker asks until it is gone."""
        self._interrupts.install()
        threading.stack_size(_THREAD_STACK_BYTES)
        with contextlib.suppress(ChannelClosedError):
            while True:
                self._do(self._mailbox.next_command())

    def _do(self, frame: Frame) -> None:
        match frame.kind:
            case FrameKind.CONFIGURE:
                self._configure(frame.json())
                self._leave_spare(is_base=True)
            case FrameKind.CONTEXT_START:
                start = frame.json()
                self._assembly = ContextAssembly(start["kind"])
                self._context_names = start["names"]
            case FrameKind.CONTEXT_DATA:
                assert self._assembly is not None  # noqa: S101 - the worker keeps the order
                self._assembly.write(frame.payload)
            case FrameKind.CONTEXT_END:
                assert self._assembly is not None  # noqa: S101 - likewise
                self._bind(self._context_names, self._assembly.value())
                self._assembly = None
            case FrameKind.CONTEXT_FILE:
                start, descriptor = frame.json(), self._mailbox.take_descriptor()
                value = read_context(descriptor, start["kind"], may_map=start["may_map"])
                self._bind(start["names"], value)
            case FrameKind.BEGIN_RUN:
                self._namespace.begin_run(frame.json()["tools"])
                if self._has_run:
                    # The checkpoint of the run before holds that run's answer.
                    self._leave_spare(is_base=False)
            case FrameKind.RUN:
                command = frame.json()
                self._run_cell(command["cell_id"], command["source"])
            case FrameKind.LEAVE_SPARE:
                self._leave_spare(is_base=False)
            case _:
                pass

    def _bind(self, names: list[str], value: object) -> None:
        self._namespace.bind_context(names, value)
        self._mailbox.send(FrameKind.BOUND, {})
        self._leave_spare(is_base=True)

    def _configure(self, limits: JsonObject) -> None:
        self._asker.configure(limits)
        self._namespace.configure(limits["policy"])
        self._runner.configure(policy=limits["policy"], answer_bytes=limits["answer_bytes"])
        data_bytes = max(limits["memory_bytes"] - _RESERVED_BYTES, _LEAST_DATA_BYTES)
        limit_memory(data_bytes)

    def _run_cell(self, cell_id: int, source: str) -> None:
        self._has_run = True
        # The spare before the last, which has been let go since: a cell that waits for a child of
        # its own would find it, and the worker would look at it when it looks for leftovers.
        self._reap()
        self._asker.begin_cell(cell_id)
        result = self._runner.run(cell_id, source)
        # What a cell's threads still wait for is answered by nobody.
        self._mailbox.abandon_replies()
        self._mailbox.send(FrameKind.RESULT, {"cell_id": cell_id, **result})

    def _leave_spare(self, *, is_base: bool) -> None:
        """Forks a process that waits to take over with everything as it is now.

        Left out while a cell's threads live: a fork would lose them, and an executor that is still
        open would hang for ever in the copy. The worker then has only an older spare.
        """
        self._reap()
        if threading.active_count() > 1:
            return
        try:
            near, far = socket.socketpair()
        except OSError:
            # A cell holds every descriptor there is: the session goes on without a spare.
            return
        try:
            pid = fork_asleep(
                closing=[far.fileno(), self._mailbox.connection.fileno()], waking=near.fileno()
            )
        except OSError:
            # No process or no memory to spare: likewise.
            near.close()
            far.close()
            return
        if pid:
            near.close()
            with far:
                self._announce(pid, far, is_base=is_base)
            self._rehearse()
            if is_base:
                # What can take over with the contexts shall outlive a cell that kills all it can.
                landlock.leave_signals_behind()
            return
        for closed in (far, self._mailbox.connection):
            closed.detach()
        reader = _wait_to_take_over(near)
        self._mailbox = Mailbox(near, self._interrupts, reader=reader)
        random.seed()
        self._leave_spare(is_base=is_base)

    def _rehearse(self) -> None:
        """Writes to the pages that every cell writes to, which the fork has made shared."""
        encode(FrameKind.RESULT, {"cell_id": 0, **self._runner.rehearse()})

    def _announce(self, pid: int, far: socket.socket, *, is_base: bool) -> None:
        """Hands the worker a spare's channel; without it the spare ends by itself."""
        spare = {"pid": pid, "is_base": is_base}
        try:
            self._mailbox.send(FrameKind.SPARE, spare, descriptor=far.fileno())
        except OSError as error:
            # The kernel counts descriptors under way by user, over all containers (unix(7)), so
            # another sandbox may have sent them all: the session goes on without a spare.
            if error.errno != errno.ETOOMANYREFS:
                raise

    @staticmethod
    def _reap() -> None:
        """Collects what a cell started and did not wait for: it would count as a process."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _wait_to_take_over(connection: socket.socket) -> FrameReader:
    """Waits as a spare; ends the process when the worker lets go of it.

    Returns:
        What has read from the connection: the next command may have come with the order to resume.
    """
    reader = FrameReader(connection, most=COMMANDS)
    try:
        while reader.next_frame() is None:
            reader.receive()
    except ChannelClosedError:
        os._exit(0)
    return reader


def repl_main(
    connection: socket.socket, *, stdout: int, stderr: int, worker_pid: int, hidden: Path
) -> None:
    """Becomes the REPL process; never returns.

    Args:
        connection: This process's end of the channel.
        stdout: Write end of the pipe the worker reads a cell's output from.
        stderr: Likewise.
        worker_pid: The worker's number.
        hidden: The directory of the worker's socket.
    """
    status = 70  # EX_SOFTWARE (sysexits.h)
    try:
        _become_ordinary(connection, stdout=stdout, stderr=stderr)
        signal_by_thread()
        after_first_import("_sqlite3", lock_by_directory)
        after_first_import("multiprocessing.resource_tracker", track_nothing)
        loop = ReplLoop(connection)
        confinement = confine(worker_pid=worker_pid, hidden=hidden)
        share_all()
        connection.sendall(encode(FrameKind.CONFINED, confinement.as_json()))
        loop.run()
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
        traceback.print_exc()
    os._exit(status)


def _become_ordinary(connection: socket.socket, *, stdout: int, stderr: int) -> None:
    """Gives the process the standard streams and signals a Python program expects.

    Whatever else the worker had open, its own standard streams too, is closed.
    """
    for number in signal.valid_signals() - _NOT_CHANGED:
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, _MOST_DESCRIPTORS)
    # New objects, not the old ones set up anew: those remember the files they were opened on.
    sys.stdout = sys.__stdout__ = _text_stream(1)  # type: ignore[misc]  # final for others
    sys.stderr = sys.__stderr__ = _text_stream(2)  # type: ignore[misc]  # likewise


def _text_stream(descriptor: int) -> TextIOWrapper:
    # A cell may print lone surrogates; output must not fail on them.
    return open(
        descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
