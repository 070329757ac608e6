"""A broker's process in a test's hand: says what the test says, over the real link.

There is no process. What the orchestrator would kill is only noted.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.broker_host import PATIENCE_S, EchoQueries, short_directory
from support.scripted_worker import WALLS

from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import TOLD_BOUNDS, Frame, Said, Told
from orchestrator.broker_process.last_words import LastWords
from orchestrator.broker_process.link import Link, open_link
from orchestrator.broker_process.nursery_handle import BrokerProcess, Nursery
from orchestrator.broker_process.process_attachment import ProcessAttachment
from orchestrator.broker_process.process_broker import ProcessBroker, ProcessEndpoint, Watch
from orchestrator.broker_process.setup_frames import wall_fields
from orchestrator.domain import LanguagePolicy, SandboxId
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from orchestrator.ports import QueryHandler


class NoNursery(Nursery):
    """Starts nothing; hands the other end of the link to the test."""

    def __init__(self) -> None:
        """Has no process."""
        super().__init__(entry="")
        self.started: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self.process: BrokerProcess | None = None
        self.was_told_to_kill = False

    def start_process(self, directory: Path) -> BrokerProcess:
        """See `Nursery.start_process`."""
        del directory
        ours, theirs = socket.socketpair()
        self.started.set_result(theirs)
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(write_end)
        self.process = BrokerProcess(
            number=1,
            link=ours,
            last_words=LastWords(read_end),
            ended=asyncio.get_running_loop().create_future(),
            _nursery=self,
        )
        return self.process

    def tell_to_kill(self, number: int) -> None:
        """See `Nursery.tell_to_kill`."""
        del number
        self.was_told_to_kill = True
        self.die("it was killed by the test")

    def die(self, how: str) -> None:
        """Does what is seen of a process that ends."""
        if self.process is not None and not self.process.ended.done():
            self.process.ended.set_result(how)


@dataclass(slots=True, kw_only=True)
class Hostile:
    """Both ends of one link, the far one in the test's hand."""

    nursery: NoNursery
    endpoint: ProcessEndpoint
    link: Link
    told: asyncio.Queue[Frame]
    ended: asyncio.Future[None]
    attachment: ProcessAttachment = field(init=False)

    def say(
        self, kind: Said, fields: Mapping[str, Any] | None = None, *, body: bytes = b""
    ) -> None:
        """Sends one frame, whatever it is."""
        self.link.send(kind, fields, body=body)

    def say_raw(self, kind: Said, header: bytes) -> None:
        """Sends a frame with any header and no body."""
        transport = self.link._transport  # noqa: SLF001 # only a test sends what no frame is
        assert transport is not None
        transport.write(struct.pack("=BII", kind, len(header), 0) + header)

    async def hear(self, kind: Told) -> Frame:
        """Returns the next frame of this kind; pings are not for the test."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frame = await self.told.get()
                if frame.kind == kind:
                    return frame


@asynccontextmanager
async def hostile(
    *,
    queries: QueryHandler | None = None,
    cell_limits: CellLimits | None = None,
    query_limits: QueryLimits | None = None,
    is_attached: bool = True,
) -> AsyncIterator[Hostile]:
    """Yields an attached sandbox whose broker's process does what the test wants."""
    nursery = NoNursery()
    with short_directory() as directory:
        broker = ProcessBroker(
            nursery=nursery,
            runtime_directory=directory,
            cell_limits=cell_limits or CellLimits(),
            query_limits=query_limits or QueryLimits(),
            sandbox_limits=SandboxLimits(),
            language_policy=LanguagePolicy.GUARDED,
            stop_margin_s=0.1,
            watch=Watch(interval_s=60.0),
        )
        opening = broker.open(
            sandbox_id=SandboxId("under-test"),
            queries=queries or EchoQueries(),
            promised_walls=WALLS,
        )
        endpoint = await opening.__aenter__()
        far_end = await nursery.started
        told: asyncio.Queue[Frame] = asyncio.Queue()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(_error: FrameError | None) -> None:
            ended.set_result(None)
            nursery.die("its link ended")

        link = await open_link(far_end, bounds=TOLD_BOUNDS, on_frame=told.put_nowait, on_end=end)
        link.send(Said.LISTENING, {"walls": ["own_root"]})
        await endpoint.listening()
        host = Hostile(nursery=nursery, endpoint=endpoint, link=link, told=told, ended=ended)
        try:
            if is_attached:
                link.send(Said.ATTACHED, wall_fields(WALLS))
                host.attachment = await _attached(host)
            yield host
        finally:
            link.close()
            await opening.__aexit__(None, None, None)


async def _attached(host: Hostile) -> ProcessAttachment:
    return await host.endpoint.attached(timeout_s=PATIENCE_S)
