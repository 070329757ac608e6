"""The nursery: imports what a broker needs, once, and forks a process for each sandbox.

Without it each broker's process would start from nothing. It never makes a gRPC object itself:
gRPC starts threads and does not survive a fork after that. It reads orders from the orchestrator
alone, and nothing of a sandbox ever reaches it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeAlias

from orchestrator.broker_process.confinement import Enclosure, Ground, die_with, enclose, isolate
from orchestrator.broker_process.serving import import_everything, serve

#: Serves one sandbox over a socket until it is told to end.
Serve: TypeAlias = Callable[[socket.socket, Enclosure], None]

_MAX_ORDER_BYTES = 64 * 2**10
_MAX_DESCRIPTORS = 2
_STDERR = 2
#: Above what the orchestrator has: the kernel shall rather end one sandbox than all of them.
_OOM_SCORE = "500"
#: `EX_SOFTWARE` of sysexits.h: it failed, and its last words say how.
_FAILED_STATUS = 70


def main(control_number: int, parent_pid: int, *, serve_one: Serve = serve) -> None:
    """Runs the nursery until the orchestrator is gone."""
    control = socket.socket(fileno=control_number)
    control.set_inheritable(False)
    orchestrator = _watch_orchestrator(parent_pid)
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    ground = isolate()
    import_everything()
    # What is there now is never garbage. Unfrozen, the first collection in each child would write
    # to every object, and no page would be shared any more.
    gc.collect()
    gc.freeze()
    Nursery(control, orchestrator=orchestrator, ground=ground, serve_one=serve_one).run()


def _watch_orchestrator(pid: int) -> int | None:
    """Returns a descriptor that can be read once the orchestrator has gone; None before Linux 5.3.

    Not PR_SET_PDEATHSIG: that comes when the *thread* ends that started us, and whoever opens an
    orchestrator in one thread may go on with it in another. Not the end of the control socket
    alone: a process forked by the orchestrator's caller may hold the other end as well.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
    if os.getppid() != pid:
        sys.exit("the orchestrator has gone already")
    return descriptor


class Nursery:
    """Forks and buries, in one thread."""

    def __init__(
        self, control: socket.socket, *, orchestrator: int | None, ground: Ground, serve_one: Serve
    ) -> None:
        """Takes the socket on which the orchestrator gives orders, and what tells of its end."""
        self._control = control
        self._orchestrator = orchestrator
        self._ground = ground
        self._serve_one = serve_one
        self._numbers: dict[int, int] = {}  # of the children, by process id
        self._died, wakeup = socket.socketpair()
        for end in (self._died, wakeup):
            end.settimeout(0)
        self._wakeup = wakeup
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        # A handler there has to be for anything to be written to the wakeup descriptor.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def run(self) -> None:
        """Takes orders until there will be no more; ends every child then."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if self._orchestrator is not None:
            poll.register(self._orchestrator, select.POLLIN)
        poll.register(self._died, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._died.fileno() in ready:
                self._died.recv(4096)
                self._bury()
            if self._orchestrator in ready:
                break
            if self._control.fileno() in ready and not self._take_order():
                break
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)

    def _take_order(self) -> bool:
        raw, descriptors, _, _ = socket.recv_fds(self._control, _MAX_ORDER_BYTES, _MAX_DESCRIPTORS)
        if not raw:
            return False
        order = json.loads(raw)
        if order["do"] == "fork":
            self._fork(order["number"], Path(order["directory"]), *descriptors)
        else:
            self._kill(order["number"])
        return True

    def _fork(self, number: int, directory: Path, link: int, stderr: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._say(what="ended", number=number, status=None, reason=f"it was not born: {error}")
            pid = None
        if pid == 0:
            self._live(directory, link, stderr)
        os.close(link)
        os.close(stderr)
        if pid is not None:
            self._numbers[pid] = number
            self._say(what="forked", number=number, pid=pid)

    def _kill(self, number: int) -> None:
        for pid, found in self._numbers.items():
            if found == number:
                # Not yet waited for, so the id is still its own.
                os.kill(pid, signal.SIGKILL)

    def _bury(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            self._say(what="ended", number=number, status=code, reason="")

    def _say(self, **notice: str | int | None) -> None:
        self._control.send(json.dumps(notice).encode())

    def _live(self, directory: Path, link: int, stderr: int) -> NoReturn:
        """Becomes a broker's process, and never returns."""
        status = _FAILED_STATUS
        try:
            nursery_pid = os.getppid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(stderr, _STDERR)
            end = socket.socket(fileno=os.dup2(link, _STDERR + 1, inheritable=False))
            for entry in list(Path("/proc/self/fd").iterdir()):
                if int(entry.name) > end.fileno():
                    with suppress(OSError):  # the listing's own
                        os.close(int(entry.name))
            enclosure = enclose(directory, self._ground)
            die_with(nursery_pid)
            self._serve_one(end, enclosure)
            status = 0
        except BaseException:  # noqa: BLE001 # whatever it is: this is not the nursery
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
        finally:
            # No clearing up: objects of the nursery are not this process's to destroy.
            os._exit(status)
