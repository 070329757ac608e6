"""A broker whose endpoints are processes of their own.

Without it the code that parses what a sandbox sends would run beside the provider's keys and the
engine's socket: one mistake in gRPC or protobuf, and the host is the sandbox's.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.broker.context_place import ContextPlace
from orchestrator.broker.ending import EndKind, StreamEnd
from orchestrator.broker.runtime_directory import prepare_runtime_directory
from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import Told
from orchestrator.broker_process.link import Link, open_link
from orchestrator.broker_process.nursery_handle import BrokerProcess, Nursery
from orchestrator.broker_process.process_attachment import ProcessAttachment
from orchestrator.broker_process.said_bounds import said_bounds
from orchestrator.broker_process.setup_frames import SOCKET_DIRECTORY_NAME, SetUp, set_up_fields
from orchestrator.controls import BrokerIsolation, BrokerStatement
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from orchestrator.ports import QueryHandler
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

#: The first one waits for the nursery's imports, on a busy machine; the others take milliseconds.
_START_S = 60.0
#: The goodbye, the server's grace, and the settling of what was asked.
_CLOSE_S = 8.0
#: From the end of the link to the notice of why the process ended.
_NOTICE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a process that hangs is noticed."""

    interval_s: float = 5.0  # a process that hangs is in nobody's way for a while
    patience_s: float = 30.0  # a machine that is busy may leave a process alone for seconds


class ProcessBroker:
    """Listens for each sandbox in a process of its own; implements `ports.Broker`."""

    def __init__(  # noqa: PLR0913 # all by keyword; a type to group them would have no other use
        self,
        *,
        nursery: Nursery,
        runtime_directory: Path,
        cell_limits: CellLimits,
        query_limits: QueryLimits,
        sandbox_limits: SandboxLimits,
        language_policy: LanguagePolicy,
        stop_margin_s: float = 5.0,
        watch: Watch | None = None,
    ) -> None:
        """Keeps what every endpoint has in common; makes nothing yet.

        Args:
            nursery: Starts the processes.
            runtime_directory: Holds one directory for each sandbox; made if missing, closed to
                other users. Its path must be short, see `open`.
            cell_limits: See `UnixBroker`, as for the rest.
            query_limits: Likewise.
            sandbox_limits: Likewise.
            language_policy: Likewise.
            stop_margin_s: Likewise.
            watch: How a process that hangs is noticed.
        """
        self._nursery = nursery
        self._runtime_directory = runtime_directory.absolute()
        self._cell_limits = cell_limits
        self._query_limits = query_limits
        self._sandbox_limits = sandbox_limits
        self._language_policy = language_policy
        self._stop_margin_s = stop_margin_s
        self._watch = watch or Watch()
        self._statement = BrokerStatement(
            isolation=BrokerIsolation.OWN_PROCESS,
            language_policy=language_policy,
            cell_limits=cell_limits,
            query_limits=query_limits,
        )

    @property
    def statement(self) -> BrokerStatement:
        """See `Broker.statement`; its walls are known once a process has been shut in."""
        return self._statement

    def open(
        self, *, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AbstractAsyncContextManager[ProcessEndpoint]:
        """See `Broker.open`.

        Raises (on entering):
            SettingsError: The runtime directory's path is too long, or others may enter it.
            SandboxStartError: The process could not be started.
        """
        set_up = SetUp(
            sandbox_id=sandbox_id,
            promised_walls=promised_walls,
            cell_limits=self._cell_limits,
            query_limits=self._query_limits,
            sandbox_limits=self._sandbox_limits,
            language_policy=self._language_policy,
            stop_margin_s=self._stop_margin_s,
            # Records that nobody would see need not cross.
            log_level=_log.getEffectiveLevel(),
        )
        return self._open(set_up, queries)

    def _note(self, walls: tuple[str, ...]) -> None:
        """Keeps what shuts the processes in: the same for all, because they have one nursery."""
        if "own_root" not in walls and walls != self._statement.walls:
            _log.warning(
                "this host gives the broker's processes no root directory of their own, so they"
                " are shut in by %s alone: allow user namespaces (user_namespaces(7)) to this user",
                ", ".join(walls),
            )
        self._statement = replace(self._statement, walls=walls)

    @asynccontextmanager
    async def _open(self, set_up: SetUp, queries: QueryHandler) -> AsyncIterator[ProcessEndpoint]:
        # Two levels: one that the process is shut into, and one within that the sandbox sees.
        prepare_runtime_directory(self._runtime_directory, depth=2)
        directory = Path(tempfile.mkdtemp(prefix="", dir=self._runtime_directory))
        try:
            # Before there is a process: so it can be mounted while that one is being shut in.
            socket_directory = directory / SOCKET_DIRECTORY_NAME
            socket_directory.mkdir(mode=0o700)
            with closing(ContextPlace(socket_directory)) as place:
                endpoint = ProcessEndpoint(
                    set_up=set_up,
                    socket_directory=socket_directory,
                    process=self._nursery.start_process(directory),
                    queries=queries,
                    place=place,
                )
                try:
                    endpoint.begin(self._watch, on_walls=self._note)
                    yield endpoint
                finally:
                    await run_to_end(endpoint.close())
        finally:
            # The process is gone, so nobody changes the directory meanwhile; links in it are not
            # followed.
            shutil.rmtree(directory, ignore_errors=True)


class ProcessEndpoint:
    """One socket, in one process, for one sandbox; implements `ports.Endpoint`."""

    def __init__(
        self,
        *,
        set_up: SetUp,
        socket_directory: Path,
        process: BrokerProcess,
        queries: QueryHandler,
        place: ContextPlace,
    ) -> None:
        """Takes over `process`, which is shut into the parent of that directory; see `close`.

        Large contexts are laid in `place`, which stays the caller's.
        """
        self._set_up = set_up
        self._socket_directory = socket_directory
        self._process = process
        self._attachment = ProcessAttachment(
            set_up=set_up, queries=queries, destroy=process.kill, place=place
        )
        self._listening: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._burial: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def socket_directory(self) -> Path:
        """See `Endpoint.socket_directory`."""
        return self._socket_directory

    @property
    def process(self) -> BrokerProcess:
        """The process that serves the sandbox."""
        return self._process

    async def attached(self, *, timeout_s: float) -> ProcessAttachment:
        """See `Endpoint.attached`."""
        await self._attachment.greeted(timeout_s=timeout_s)
        return self._attachment

    def begin(self, watch: Watch, *, on_walls: Callable[[tuple[str, ...]], None]) -> None:
        """Has the process make its socket; `on_walls` gets what shuts it in, by name."""
        self._listening = asyncio.create_task(self._listen(watch, on_walls))
        self._listening.add_done_callback(_mark_seen)

    async def listening(self) -> None:
        """See `Endpoint.listening`."""
        if self._listening is None:
            raise RuntimeError("nobody has had this endpoint begin")
        await asyncio.shield(self._listening)

    async def _listen(self, watch: Watch, on_walls: Callable[[tuple[str, ...]], None]) -> None:
        link = await open_link(
            self._process.link,
            bounds=said_bounds(self._set_up),
            on_frame=self._attachment.take,
            on_end=self._take_link_end,
        )
        self._link = link
        self._attachment.begin(link)
        link.send(Told.SET_UP, set_up_fields(self._set_up))
        on_walls(await self._attachment.listening(timeout_s=_START_S))
        self._watching = asyncio.create_task(
            self._attachment.watch(interval_s=watch.interval_s, patience_s=watch.patience_s)
        )

    async def close(self) -> None:
        """Ends the stream and the process. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await run_to_end(self._closing)

    async def _close(self) -> None:
        await self._attachment.close()
        if self._listening is not None:
            await asyncio.wait({self._listening})  # the end of the attachment is its end
        if self._watching is not None:
            await asyncio.wait({self._watching})
        await self._process.end(timeout_s=_CLOSE_S)
        if self._link is None:
            self._process.link.close()
        else:
            self._link.close()
        if self._burial is not None:
            await asyncio.wait({self._burial})

    def _take_link_end(self, error: FrameError | None) -> None:
        if error is not None:
            self._attachment.take_broken(error)
        self._burial = asyncio.create_task(self._bury())

    async def _bury(self) -> None:
        """Finds out why the process has gone, and tells whoever waits for its sandbox."""
        how = await self._process.end(timeout_s=_NOTICE_S)
        words = self._process.last_words.read()
        reason = f"the broker's process ended: {how}"
        if words:
            reason = f"{reason}; its last words: {words}"
        self._attachment.end(StreamEnd(kind=EndKind.LOST, reason=reason))


def _mark_seen(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from saying that nobody asked: the caller may have left before the failure."""
    if not task.cancelled():
        task.exception()
