"""Stands between the product and a real Docker engine, to take it away, hold it up or twist it.

The engine itself belongs to the host and to every other test, so it is never stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_CHUNK_BYTES = 2**16


class EngineProxy:
    """Passes bytes on between a socket of its own and an engine's, both ways."""

    def __init__(self, engine_socket: str, socket: Path) -> None:
        """Prepares to listen on `socket`, whose path must be short (unix(7))."""
        self._engine_socket = engine_socket
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.replacement: tuple[bytes, bytes] | None = None
        self._answer_replacement: tuple[bytes, bytes] | None = None
        self._pretences: list[tuple[bytes, bytes]] = []
        self._fateful: bytes | None = None
        self._is_held = asyncio.Event()

    @property
    def endpoint(self) -> str:
        """The address to give to the product instead of the engine's own."""
        return f"unix://{self._socket}"

    def twist(self, asked: bytes, instead: bytes) -> None:
        """Has the engine read `instead` where it was told `asked`; both are of one length."""
        assert len(asked) == len(instead)
        self.replacement = (asked, instead)

    def pretend(self, found: bytes, instead: bytes) -> None:
        """Has the product read `instead` where the engine says `found`; both are of one length.

        What was pretended before goes on.
        """
        assert len(found) == len(instead)
        self._pretences.append((found, instead))

    def twist_answer(self, said: bytes, instead: bytes) -> None:
        """Has the product read `instead` where the engine says `said`; both are of one length."""
        assert len(said) == len(instead)
        self._answer_replacement = (said, instead)

    def hold_up(self) -> None:
        """Stops passing anything on, without closing: an engine that hangs."""
        self._flows.clear()

    def hold_up_at(self, words: bytes) -> None:
        """Hangs like `hold_up` once a request says `words`, which the engine is not told."""
        self._fateful = words

    async def is_held(self) -> None:
        """Waits until a request has said what `hold_up_at` was told."""
        await self._is_held.wait()

    def let_go(self) -> None:
        """Passes everything on again, first what was held up."""
        self._fateful = None
        self._flows.set()

    async def come_back(self) -> None:
        """Listens, again."""
        self._server = await asyncio.start_unix_server(self._accept, self._socket)

    async def go_away(self) -> None:
        """Closes every connection and stops to listen: an engine that died."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._socket.unlink(missing_ok=True)
        self._server = None
        self._flows.set()
        if self._connections:
            await asyncio.wait(self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._engine_socket)
        ends = {writer, engine_writer}
        self._writers |= ends
        try:
            await asyncio.gather(
                self._pass_on(reader, engine_writer, is_request=True),
                self._pass_on(engine_reader, writer, is_request=False),
            )
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                if is_request and self._fateful is not None and self._fateful in data:
                    self._flows.clear()
                    self._is_held.set()
                await self._flows.wait()
                if is_request and self.replacement is not None:
                    data = data.replace(*self.replacement)
                if not is_request and self._answer_replacement is not None:
                    data = data.replace(*self._answer_replacement)
                for pretence in () if is_request else self._pretences:
                    data = data.replace(*pretence)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


@asynccontextmanager
async def open_proxy(engine_socket: str, socket: Path) -> AsyncIterator[EngineProxy]:
    """Yields a proxy that listens; leaving the context takes it away."""
    proxy = EngineProxy(engine_socket, socket)
    await proxy.come_back()
    try:
        yield proxy
    finally:
        await proxy.go_away()
