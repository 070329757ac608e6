"""What runs in a broker's process: one endpoint, and the orchestrator's calls on it.

Without it the broker would have nobody to serve. Nothing here knows a key, a model or the engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import grpc

from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.listener import UnixBroker, UnixEndpoint
from orchestrator.broker_process.cell_frames import result_parts
from orchestrator.broker_process.confinement import Enclosure
from orchestrator.broker_process.ending_frames import end_fields, start_error_fields
from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import TOLD_BOUNDS, Frame, Said, Told
from orchestrator.broker_process.link import Link, open_link
from orchestrator.broker_process.log_frames import FrameHandler
from orchestrator.broker_process.remote_queries import RemoteQueries
from orchestrator.broker_process.run_frames import read_bind, read_offer
from orchestrator.broker_process.setup_frames import (
    SOCKET_DIRECTORY_NAME,
    SetUp,
    listening_fields,
    read_set_up,
    wall_fields,
)
from orchestrator.domain import CellId, OutputStream
from orchestrator.errors import SandboxError

_log = logging.getLogger(__name__)

#: Whoever told this process to live is gone, or talks nonsense.
_ORPHANED_STATUS = 71
#: `EX_SOFTWARE` of sysexits.h.
_FAILED_STATUS = 70


def import_everything() -> None:
    """Imports what gRPC would import when it first needs it; then there are no files any more."""
    grpc.unary_unary_rpc_method_handler(lambda _request, _context: None)


def serve(end: socket.socket, enclosure: Enclosure) -> None:
    """Serves one sandbox, over a socket to the orchestrator, until told to close."""
    asyncio.run(attend(end, enclosure, on_link_end=_exit))


async def attend(
    end: socket.socket,
    enclosure: Enclosure,
    *,
    on_link_end: Callable[[FrameError | None], None],
) -> None:
    """Does what `serve` does, in the running event loop; `on_link_end` if nobody tells it to."""
    frames: asyncio.Queue[Frame] = asyncio.Queue()
    take: Callable[[Frame], None] = frames.put_nowait
    link = await open_link(
        end,
        bounds=TOLD_BOUNDS,
        on_frame=lambda frame: take(frame),  # noqa: PLW0108 # looked up each time: it changes
        on_end=on_link_end,
    )
    set_up = read_set_up((await frames.get()).fields)
    logger = logging.getLogger("orchestrator")
    logger.setLevel(set_up.log_level)
    logger.addHandler(FrameHandler(lambda fields: link.send(Said.LOG, fields)))
    queries = RemoteQueries(link)
    async with _broker_of(set_up, enclosure).open(
        sandbox_id=set_up.sandbox_id, queries=queries, promised_walls=set_up.promised_walls
    ) as endpoint:
        walls = enclosure.seal()
        session = Session(link, endpoint, queries)
        take = session.take
        link.send(Said.LISTENING, listening_fields(walls))
        await session.closed


def _broker_of(set_up: SetUp, enclosure: Enclosure) -> UnixBroker:
    return UnixBroker(
        runtime_directory=enclosure.root,
        cell_limits=set_up.cell_limits,
        query_limits=set_up.query_limits,
        sandbox_limits=set_up.sandbox_limits,
        language_policy=set_up.language_policy,
        stop_margin_s=set_up.stop_margin_s,
        socket_directory=enclosure.root / SOCKET_DIRECTORY_NAME,
    )


def _exit(_error: FrameError | None) -> None:
    # At once: nobody is there any more for whom anything could be finished.
    os._exit(_ORPHANED_STATUS)


class Session:
    """Does what the orchestrator says, one call at a time."""

    def __init__(self, link: Link, endpoint: UnixEndpoint, queries: RemoteQueries) -> None:
        """Begins with a socket that nobody has dialled."""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._endpoint = endpoint
        self._attachment: StreamAttachment | None = None
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._call: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._takers: Mapping[int, Callable[[Frame], object]] = {
            Told.AWAIT_WORKER: lambda frame: self._start(self._await_worker(frame)),
            Told.BEGIN_RUN: lambda frame: self._start(self._begin_run(frame)),
            Told.BIND: lambda frame: self._begin_call(self._bind(frame)),
            Told.BIND_FILE: lambda frame: self._begin_call(self._bind_file(frame)),
            Told.PIECE: lambda frame: self._pieces.put_nowait(bytes(frame.body)),
            Told.RUN: lambda frame: self._begin_call(self._run(frame)),
            Told.CANCEL: lambda _: self._cancel_call(),
            Told.STOP: lambda _: self._stop_cell(),
            Told.ANSWERS: queries.take_answers,
            Told.PING: lambda _: link.send(Said.PONG),
            Told.CLOSE: lambda _: self._close(),
        }

    def take(self, frame: Frame) -> None:
        """Takes one frame of the orchestrator."""
        taker = self._takers.get(frame.kind)
        if taker is None:
            raise FrameError("a broker's process is set up once")
        taker(frame)

    def _begin_call(self, work: Coroutine[Any, Any, None]) -> None:
        self._call = self._start(work)

    def _cancel_call(self) -> None:
        if self._call is not None:
            # Not at once: a task that is cancelled before its first step never says that it was.
            asyncio.get_running_loop().call_soon(self._call.cancel)

    def _stop_cell(self) -> None:
        if self._attachment is not None:
            # Not at once: the cell may not have had its first step yet.
            asyncio.get_running_loop().call_soon(self._attachment.stop_cell)

    def _close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A mistake of ours; whoever waits for this call must not wait for ever.
            _log.critical("the broker's process failed", exc_info=task.exception())
            os._exit(_FAILED_STATUS)

    async def _await_worker(self, frame: Frame) -> None:
        timeout_s = frame.fields.number("timeout_s", most=1e9)
        try:
            attachment = await self._endpoint.attached(timeout_s=timeout_s)
        except SandboxError as error:
            self._link.send(Said.NOT_ATTACHED, start_error_fields(error))
            return
        self._attachment = attachment
        self._link.send(Said.ATTACHED, wall_fields(attachment.walls))
        end = await attachment.ended()
        # A result that came before the end is said before it.
        if self._call is not None:
            await asyncio.wait({self._call})
        self._link.send(Said.ENDED, end_fields(end))

    async def _begin_run(self, frame: Frame) -> None:
        with suppress(SandboxError):  # the end of the stream is said by itself
            await self._attached().begin_run(read_offer(frame.fields))

    async def _bind(self, frame: Frame) -> None:
        name, head = read_bind(frame.fields)
        try:
            await self._attached().bind_pieces(name, head, self._next_pieces(head.total_bytes))
        except SandboxError:
            return  # the end of the stream is said by itself
        self._link.send(Said.BOUND)

    async def _bind_file(self, frame: Frame) -> None:
        try:
            await self._attached().bind_file(*read_bind(frame.fields))
        except SandboxError:
            return  # the end of the stream is said by itself
        self._link.send(Said.BOUND)

    async def _next_pieces(self, total_bytes: int) -> AsyncIterator[bytes]:
        left_bytes = total_bytes
        while True:
            piece = await self._pieces.get()
            yield piece
            # Reached when the worker has taken it.
            self._link.send(Said.PIECE_TAKEN)
            left_bytes -= len(piece)
            if left_bytes <= 0:
                return

    async def _run(self, frame: Frame) -> None:
        def show(stream: OutputStream, data: bytes) -> None:
            self._link.send(Said.OUTPUT, {"stream": stream}, body=data)

        try:
            result = await self._attached().run_cell(
                str(frame.body, "utf-8"),
                timeout_s=frame.fields.number("timeout_s", most=1e9),
                on_output=show if frame.fields.flag("wants_output") else None,
                cell_id=CellId(frame.fields.integer("cell_id", least=1)),
            )
        except asyncio.CancelledError:
            self._link.send(Said.CANCELLED)
            raise
        except SandboxError:
            return  # the end of the stream is said by itself
        fields, body = result_parts(result)
        self._link.send(Said.RESULT, fields, body=body)

    def _attached(self) -> StreamAttachment:
        if self._attachment is None:
            raise FrameError("a call is made on a sandbox that is attached")
        return self._attachment
