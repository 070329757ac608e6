"""Listens in between a worker and its broker, and keeps what each of them said, in order.

Without it nobody would know what an honest client puts on the wire, and a rule about it would be a
guess.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from support.process_sandbox import ProcessBackend, ProcessContainer

from orchestrator.domain import SandboxId
from orchestrator.ports import UntilListening

_READ_BYTES = 2**18


class Said(NamedTuple):
    """Bytes that came at once."""

    is_client: bool
    data: bytes


class Wiretap:
    """One socket in front of another."""

    def __init__(self) -> None:
        """Begins with nothing said."""
        self.said: list[Said] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path, *, beyond: Path) -> None:
        """Passes on what is said at `path` to the socket at `beyond`, and back."""

        async def pass_on(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_client: bool
        ) -> None:
            try:
                while data := await reader.read(_READ_BYTES):
                    self.said.append(Said(is_client, data))
                    writer.write(data)
                    await writer.drain()
            except ConnectionError:
                pass  # the other side has gone, which is what is to be passed on
            finally:
                writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_unix_connection(str(beyond))
            for ends, is_client in (((reader, far_writer), True), ((far_reader, writer), False)):
                task = asyncio.create_task(pass_on(*ends, is_client=is_client))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        self._server = await asyncio.start_unix_server(accept, str(path))

    async def __aenter__(self) -> Self:
        """Does nothing; `listen` does."""
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Hangs up."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class TappedBackend(ProcessBackend):
    """Starts real workers with a wiretap between each and its socket; see `ProcessBackend`."""

    def __init__(self, directory: Path) -> None:
        """Puts its own sockets into `directory`."""
        self._directory = directory
        self.tap = Wiretap()

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> ProcessContainer:
        """See `ContainerBackend.start`."""
        if listening is not None:
            await listening()
        token = self._directory / "token"
        token.write_text((socket_directory / "token").read_text())
        path = self._directory / "broker.sock"
        await self.tap.listen(path, beyond=socket_directory / "broker.sock")
        return await super().start(sandbox_id=sandbox_id, socket_directory=self._directory)
