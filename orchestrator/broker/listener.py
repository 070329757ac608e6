"""One listening socket for each sandbox, and the directory it lies in.

Without it sandboxes would share a server, and one hostile peer could starve the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import grpc
from grpc import aio

from orchestrator.broker import wire
from orchestrator.broker.answers import MAX_MESSAGE_BYTES
from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.context_place import ContextPlace
from orchestrator.broker.ending import StreamEnd
from orchestrator.broker.gate import Gate
from orchestrator.broker.open_queries import OpenQueries
from orchestrator.broker.peer_rules import PeerRules, peer_rules
from orchestrator.broker.runtime_directory import SOCKET_NAME, prepare_runtime_directory
from orchestrator.broker.service import BrokerService
from orchestrator.controls import BrokerIsolation, BrokerStatement
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.errors import SandboxStartError
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from orchestrator.ports import QueryHandler
from orchestrator.run_to_end import run_to_end

_log = logging.getLogger(__name__)

TOKEN_NAME = "token"  # noqa: S105 # the name of the file
#: The server's own socket, in a directory that no sandbox sees.
_SERVER_SOCKET_NAME = "s"
#: Between the stream's own end and the end of the server: for the status to get out.
_STOP_GRACE_S = 0.2
#: Between the stream's end and the end of the connection: for an honest worker to read why.
_HANG_UP_S = 1.0


class UnixBroker:
    """Listens on a Unix socket for each sandbox; implements `ports.Broker`."""

    def __init__(  # noqa: PLR0913 # all by keyword; a type to group them would have no other use
        self,
        *,
        runtime_directory: Path,
        cell_limits: CellLimits,
        query_limits: QueryLimits,
        sandbox_limits: SandboxLimits,
        language_policy: LanguagePolicy,
        stop_margin_s: float = 5.0,
        socket_directory: Path | None = None,
    ) -> None:
        """Keeps what every endpoint has in common; makes nothing yet.

        Args:
            runtime_directory: Holds one directory for each sandbox; made if missing, closed to
                other users. Its path must be short, see `open`.
            cell_limits: Enforced for each cell, and told to the worker.
            query_limits: Told to the worker; its query limits are enforced for each request.
            sandbox_limits: Told to the worker; the kernel enforces them.
            language_policy: Told to the worker.
            stop_margin_s: How long a stopped cell's result may take beyond twice the grace.
            socket_directory: What the sandbox is to see, where there is one sandbox only; without
                it each has a directory made for it.
        """
        self._socket_directory = socket_directory
        self._runtime_directory = runtime_directory.absolute()
        self._cell_limits = cell_limits
        self._query_limits = query_limits
        self._rules = peer_rules(cell=cell_limits, run=query_limits)
        self._stop_margin_s = stop_margin_s
        self._statement = BrokerStatement(
            isolation=BrokerIsolation.IN_PROCESS,
            language_policy=language_policy,
            cell_limits=cell_limits,
            query_limits=query_limits,
        )
        self._told_limits = wire.limits_of(
            cell=cell_limits,
            run=query_limits,
            sandbox=sandbox_limits,
            language_policy=language_policy,
        )

    @property
    def statement(self) -> BrokerStatement:
        """See `Broker.statement`."""
        return self._statement

    def open(
        self, *, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AbstractAsyncContextManager[UnixEndpoint]:
        """See `Broker.open`.

        Raises (on entering):
            SettingsError: The runtime directory's path is too long, or others may enter it.
            SandboxStartError: The socket could not be made.
        """
        return self._open(sandbox_id, queries, promised_walls)

    @asynccontextmanager
    async def _open(
        self, sandbox_id: SandboxId, queries: QueryHandler, promised_walls: Walls
    ) -> AsyncIterator[UnixEndpoint]:
        prepare_runtime_directory(self._runtime_directory)
        directory, place = self._socket_directory, None
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="", dir=self._runtime_directory))
            place = ContextPlace(directory)
        attachment = StreamAttachment(
            sandbox_id=sandbox_id,
            promised_walls=promised_walls,
            cell_limits=self._cell_limits,
            told_limits=self._told_limits,
            queries=OpenQueries(handler=queries, limits=self._query_limits),
            stop_margin_s=self._stop_margin_s,
            place=place,
        )
        endpoint = UnixEndpoint(
            directory=directory,
            server_directory=Path(tempfile.mkdtemp(prefix="", dir=self._runtime_directory)),
            attachment=attachment,
            rules=self._rules,
            place=place,
        )
        try:
            await endpoint.listen()
            yield endpoint
        finally:
            await run_to_end(endpoint.close())


class UnixEndpoint:
    """One socket, one gate, one server, one token, for one sandbox; implements `ports.Endpoint`."""

    def __init__(
        self,
        *,
        directory: Path,
        server_directory: Path,
        attachment: StreamAttachment,
        rules: PeerRules,
        place: ContextPlace | None = None,
    ) -> None:
        """Takes over two empty directories, and removes them in `close`.

        Args:
            directory: For the sandbox to see.
            server_directory: For nobody but this process to see.
            attachment: What the sandbox attaches to.
            rules: What its connections may do.
            place: Where the attachment lays contexts, if it does that itself.
        """
        self._place = place
        self._directory = directory
        self._server_directory = server_directory
        self._attachment = attachment
        self._server = aio.server(options=_server_options(rules))
        self._hanging_up: asyncio.Task[None] | None = None
        self._gate = Gate(
            path=directory / SOCKET_NAME,
            server_path=server_directory / _SERVER_SOCKET_NAME,
            rules=rules,
            on_violation=lambda violation: attachment.end(StreamEnd.of_violation(violation)),
        )

    @property
    def socket_directory(self) -> Path:
        """See `Endpoint.socket_directory`."""
        return self._directory

    async def listening(self) -> None:
        """See `Endpoint.listening`; who has it by `UnixBroker.open` has waited already."""

    async def attached(self, *, timeout_s: float) -> StreamAttachment:
        """See `Endpoint.attached`."""
        await self._attachment.greeted(timeout_s=timeout_s)
        return self._attachment

    async def listen(self) -> None:
        """Lays out the directories, starts the server and opens the gate.

        Raises:
            SandboxStartError: The socket could not be made.
        """
        token = secrets.token_hex(32)
        token_path = self._directory / TOKEN_NAME
        server_path = self._server_directory / _SERVER_SOCKET_NAME
        service = BrokerService(
            token=token,
            discard_token=lambda: token_path.unlink(missing_ok=True),
            attachment=self._attachment,
            last_word=self._gate.last_word,
        )
        service.add_to(self._server)
        try:
            _write_token(token_path, token)
            # gRPC reads the address as a URI, so a `%` or `#` in the path must be quoted.
            self._server.add_insecure_port(f"unix:{quote(str(server_path))}")
            self._gate.open()
            self._directory.chmod(0o755)
        except (OSError, RuntimeError) as error:
            raise SandboxStartError(
                f"no socket could be made in {self._directory}: {error}; see that the file system"
                " takes Unix sockets and is not full"
            ) from error
        await self._server.start()
        self._hanging_up = asyncio.create_task(self._hang_up())

    async def _hang_up(self) -> None:
        """Closes what is still open, a moment after the stream has ended."""
        await self._attachment.ended()
        await asyncio.sleep(_HANG_UP_S)
        self._gate.close()

    async def close(self) -> None:
        """Ends the stream, stops the server and removes the directory. Idempotent."""
        await self._attachment.close()
        await self._server.stop(_STOP_GRACE_S)
        self._gate.close()
        if self._hanging_up is not None:
            self._hanging_up.cancel()
        if self._place is not None:
            self._place.close()
        for path in (
            self._directory / SOCKET_NAME,
            self._directory / TOKEN_NAME,
            self._server_directory / _SERVER_SOCKET_NAME,
        ):
            path.unlink(missing_ok=True)
        for directory in (self._directory, self._server_directory):
            # Where a context still lies there, whoever laid it removes it, and the directory.
            with suppress(OSError):
                directory.rmdir()


def _write_token(path: Path, token: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(descriptor, "w") as file:
        # Whatever the umask: the worker is another user. The runtime directory is closed.
        os.fchmod(descriptor, 0o444)
        file.write(token)


def _server_options(rules: PeerRules) -> list[tuple[str, int]]:
    """Returns what a peer may make the server do, as far as gRPC can be told: the gate does more.

    A default server was measured under attack: 20,000 open streams starved a second client, and
    900 connections without a preface lived on.
    """
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", rules.offered_streams),
        ("grpc.server_handshake_timeout_ms", 5_000),
        # Metadata is a token and gRPC's own entries. Soft limit, then hard.
        ("grpc.max_metadata_size", rules.header_bytes),
        ("grpc.absolute_max_metadata_size", 16 * 2**10),
        # Nothing a sandbox sends is ever unpacked on the host: identity is the only encoding.
        ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression.value),
        ("grpc.per_message_decompression", 0),
        # A Unix socket needs no keepalive, so a ping is either flow control's own or a flood.
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
    ]
