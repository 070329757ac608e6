"""The orchestrator's hold on the nursery: the process that broker processes are forked from.

Without it each broker's process would have to be executed, which takes a third of a second and 25
MB for what is imported, every time. The nursery imports once and forks: milliseconds, and memory
that is shared until it is written to. It is a process of its own because forking the orchestrator
would copy the keys.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.broker_process.last_words import LastWords
from orchestrator.errors import SandboxStartError
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

#: Where a nursery begins. A test begins elsewhere, to look at it from within.
ENTRY: Final = "orchestrator.broker_process.nursery_main:main"
# Not `-m`: it would find only what is installed, and an orchestrator may run from a source tree.
_BOOT = """\
import importlib, sys
module, function, sys.path[:] = sys.argv[1], sys.argv[2], sys.argv[5:]
getattr(importlib.import_module(module), function)(int(sys.argv[3]), int(sys.argv[4]))
"""
#: Of gRPC: a completion queue polls its own sockets again, instead of threads beside it that each
#: hand on what they found. A message wakes half as many of them (docs/adr/0029).
GRPC_EXPERIMENTS: Final = ",".join(
    f"-event_engine_{part}"
    for part in ("client", "listener", "for_all_other_endpoints", "callback_cq", "fork")
)
_MAX_NOTICE_BYTES = 4096
#: It has nothing to do but to end its children and itself.
_END_S = 5.0


@dataclass(slots=True, kw_only=True, eq=False)
class BrokerProcess:
    """One process that serves one sandbox, as the orchestrator holds it.

    Attributes:
        number: Names it to the nursery.
        link: The orchestrator's end; whoever takes the process over takes it too.
        last_words: What it wrote to its standard error.
        ended: Why it ended, once it has.
        pid: Its process id, once it runs; for messages.
    """

    number: int
    link: socket.socket
    last_words: LastWords
    ended: asyncio.Future[str]
    pid: int | None = None
    _nursery: Nursery = field(repr=False)

    def kill(self) -> None:
        """Ends it now. Idempotent."""
        self._nursery.tell_to_kill(self.number)

    async def end(self, *, timeout_s: float) -> str:
        """Waits until it has ended by itself, or kills it, and returns why it ended."""
        await asyncio.wait({self.ended}, timeout=timeout_s)
        if not self.ended.done():
            self.kill()
            await asyncio.wait({self.ended}, timeout=_END_S)
        self.last_words.close()
        return self.ended.result() if self.ended.done() else "it does not end"


class Nursery:
    """Starts broker processes, in the event loop it was made in. See `open_nursery`."""

    def __init__(self, *, entry: str) -> None:
        """Starts nothing yet; `entry` is `module:function`."""
        self._entry = entry
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._last_words: LastWords | None = None
        self._last_number = 0
        self._processes: dict[int, BrokerProcess] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the nursery if it does not run; it is not waited for.

        Raises:
            SandboxStartError: No process could be started.
        """
        if self._control is not None:
            return
        if self._process is not None:  # one that is gone, and has been killed to make sure
            self._process.wait(_END_S)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        module, function = self._entry.split(":")
        here = [path for path in sys.path if Path(path).is_absolute()]
        arguments = (module, function, str(theirs.fileno()), str(os.getpid()), *here)
        try:
            self._process = subprocess.Popen(  # noqa: S603 # our own code, by the same Python
                [sys.executable, "-I", "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=write_end,
                env={"GRPC_EXPERIMENTS": GRPC_EXPERIMENTS},
                cwd="/",
                pass_fds=[theirs.fileno()],
                # A group, for Ctrl-C to end the orchestrator alone; no session: the scheduler
                # shares the machine out by sessions (CONFIG_SCHED_AUTOGROUP), and under load a
                # query took 8.7 ms across two of them, 3.3 ms within one.
                process_group=0,
            )
        except OSError as error:
            ours.close()
            os.close(read_end)
            raise SandboxStartError(
                f"no process could be started for the broker: {error}; see that this user may"
                " start more processes"
            ) from error
        finally:
            theirs.close()
            os.close(write_end)
        ours.settimeout(0)
        self._control = ours
        self._last_words = LastWords(read_end)
        asyncio.get_running_loop().add_reader(ours, self._read_notices)

    def start_process(self, directory: Path) -> BrokerProcess:
        """Has a broker's process forked, which is shut into `directory`; it is not waited for.

        Raises:
            SandboxStartError: No process could be started.
        """
        self.start()
        self._last_number += 1
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process = BrokerProcess(
            number=self._last_number,
            link=ours,
            last_words=LastWords(read_end),
            ended=asyncio.get_running_loop().create_future(),
            _nursery=self,
        )
        self._processes[process.number] = process
        try:
            self._send(
                {"do": "fork", "number": process.number, "directory": str(directory)},
                theirs.fileno(),
                write_end,
            )
        finally:
            theirs.close()
            os.close(write_end)
        return process

    def tell_to_kill(self, number: int) -> None:
        """Has a process killed, if it is there."""
        if number in self._processes:
            self._send({"do": "kill", "number": number})

    async def close(self) -> None:
        """Ends the nursery and all its children. Idempotent."""
        self._lose("the orchestrator has closed it")
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, _END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait, _END_S)

    def _send(self, order: dict[str, str | int], *descriptors: int) -> None:
        # Copies: the caller closes its own, and a nursery that still imports reads nothing yet.
        self._unsent.append((json.dumps(order).encode(), [os.dup(fd) for fd in descriptors]))
        self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent and self._control is not None:
            order, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._control, [order], descriptors)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._control, self._send_unsent)
                return
            except OSError as error:
                self._lose(error.strerror or "its socket is gone")
                return
            self._unsent.popleft()
            _close_all(descriptors)
        if self._control is not None:
            asyncio.get_running_loop().remove_writer(self._control)

    def _read_notices(self) -> None:
        """Reads what the nursery says, which is trusted: nothing of a sandbox ever reaches it."""
        while self._control is not None:
            try:
                raw = self._control.recv(_MAX_NOTICE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                raw = b""
            if not raw:
                self._lose("it ended")
                return
            notice = json.loads(raw)
            process = self._processes.get(notice["number"])
            if process is None:
                continue
            if notice["what"] == "forked":
                process.pid = notice["pid"]
            else:
                del self._processes[process.number]
                process.ended.set_result(describe_end(notice["status"], notice["reason"]))

    def _lose(self, reason: str) -> None:
        """Gives the nursery up; the kernel ends its children with it."""
        control, self._control = self._control, None
        if control is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(control)
        loop.remove_writer(control)
        control.close()
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        words = ""
        if self._last_words is not None:
            words = self._last_words.read()
            self._last_words.close()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            process.ended.set_result(f"the process it was forked from is gone: {reason} {words}")
        if self._process is not None and processes:
            _log.error("the nursery of broker processes is gone: %s %s", reason, words)
            self._process.kill()


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def describe_end(status: int | None, reason: str) -> str:
    """Returns how a process ended; `status` is as wait(2) has it, negative for a signal."""
    if status is None:
        return reason
    if status >= 0:
        return f"it exited with {status}"
    with suppress(ValueError):
        return f"it was killed by {signal.Signals(-status).name}"
    return f"it was killed by signal {-status}"


@asynccontextmanager
async def open_nursery(*, entry: str = ENTRY) -> AsyncIterator[Nursery]:
    """Yields a nursery that has begun to start; leaving the context ends it and all its children.

    Raises:
        SandboxStartError: No process could be started.
    """
    nursery = Nursery(entry=entry)
    nursery.start()
    try:
        yield nursery
    finally:
        await run_to_end(nursery.close())
