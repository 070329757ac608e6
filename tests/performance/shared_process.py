"""One broker's process for several sandboxes: the alternative that was measured and not taken.

It is started by exec, not forked, and of the walls it has the filter alone; neither changes how
long a query takes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.broker_process import kernel
from orchestrator.broker_process.confinement import Enclosure
from orchestrator.broker_process.last_words import LastWords
from orchestrator.broker_process.nursery_handle import BrokerProcess, Nursery
from orchestrator.broker_process.process_broker import ProcessBroker
from orchestrator.broker_process.serving import attend
from orchestrator.broker_process.system_call_filter import install_filter
from orchestrator.settings import Settings


class SharedProcess(Nursery):
    """Hands every link to one process instead of forking one for each."""

    def __init__(self, sandbox_count: int) -> None:
        """Starts a process that seals itself when it listens for so many sandboxes."""
        super().__init__(entry="")
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._shared = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), str(sandbox_count)],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._shared.pid

    def start_process(self, directory: Path) -> BrokerProcess:
        """See `Nursery.start_process`."""
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(write_end)
        socket.send_fds(self._ours, [str(directory).encode()], [theirs.fileno()])
        theirs.close()
        ended = asyncio.get_running_loop().create_future()
        ended.set_result("it is shared")
        return BrokerProcess(
            number=0, link=ours, last_words=LastWords(read_end), ended=ended, _nursery=self
        )

    async def close(self) -> None:
        """Ends it."""
        self._ours.close()
        self._shared.kill()
        await asyncio.to_thread(self._shared.wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A broker, all of whose sandboxes one process serves."""

    broker: ProcessBroker
    pid: int


@asynccontextmanager
async def open_shared_process(
    settings: Settings, directory: Path, *, sandbox_count: int
) -> AsyncIterator[Shared]:
    """Yields a broker for exactly so many sandboxes."""
    process = SharedProcess(sandbox_count)
    broker = ProcessBroker(
        nursery=process,
        runtime_directory=directory,
        cell_limits=settings.cell,
        query_limits=settings.query,
        sandbox_limits=settings.sandbox,
        language_policy=settings.policy,
    )
    try:
        yield Shared(broker=broker, pid=process.pid)
    finally:
        await process.close()


class LateSeal(Enclosure):
    """Seals the process when the last of its sandboxes is listened for; `root` is not changed."""

    left_count = 0
    sealed: asyncio.Event

    def seal(self) -> tuple[str, ...]:
        """Installs the filter, the last time."""
        LateSeal.left_count -= 1
        if LateSeal.left_count == 0:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            install_filter()
        self.sealed.set()
        return ("own_root", "system_call_filter")


async def _attend_all(control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    tasks = []
    while LateSeal.left_count:
        raw, descriptors, _, _ = await loop.run_in_executor(None, socket.recv_fds, control, 4096, 1)
        if not raw:
            return
        end = socket.socket(fileno=descriptors[0])
        enclosure = LateSeal(Path(raw.decode()), walls=(), entropy=None)
        enclosure.sealed = asyncio.Event()
        tasks.append(asyncio.create_task(attend(end, enclosure, on_link_end=lambda _error: None)))
        await enclosure.sealed.wait()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    LateSeal.left_count = int(sys.argv[2])
    asyncio.run(_attend_all(socket.socket(fileno=int(sys.argv[1]))))
