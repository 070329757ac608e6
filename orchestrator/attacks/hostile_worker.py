"""An attacker in the worker's place: a container as the product makes it, without the worker in it.

Without it nobody would see the walls that count. What runs in a cell is behind guard rails as well,
and a wall counts only if it holds when the worker itself is hostile.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from orchestrator.controls import ContainerStatement
from orchestrator.domain import SandboxId
from orchestrator.errors import SandboxLostError, SandboxStartError
from orchestrator.ports import Container, ContainerBackend
from orchestrator.run_to_end import run_to_end

#: What runs in the container instead of the worker; for `SandboxSpec.command`. It does what it is
#: told: each source runs in a child of its own, and whatever the child leaves is killed.
HOSTILE_COMMAND: Final = (
    "/usr/bin/python3.13",
    "-I",
    "-c",
    """
# the hostile worker
import json, os, select, signal, socket, struct, time
line = socket.socket(socket.AF_UNIX)
line.connect("/run/rlm/broker.sock")

def take(size):
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data

while True:
    order = json.loads(take(struct.unpack(">I", take(4))[0]))
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        line.close()
        os.close(near)
        os.dup2(far, 1)
        try:
            exec(compile(order["source"], "attack", "exec"), {"__name__": "attack"})
        except BaseException as error:
            print(f"{type(error).__name__}: {error}"[:300], flush=True)
        finally:
            os._exit(0)
    os.close(far)
    printed, end = b"", time.monotonic() + order["timeout_s"]
    while (left := end - time.monotonic()) > 0 and select.select([near], [], [], left)[0]:
        piece = os.read(near, 65536)
        if not piece:
            break
        printed += piece[:max(0, 65536 - len(printed))]
    os.close(near)
    try:
        os.kill(-1, signal.SIGKILL)
    except OSError:
        pass
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    answer = json.dumps({"printed": printed.decode(errors="replace")}).encode()
    line.sendall(struct.pack(">I", len(answer)) + answer)
""",
)

_SOCKET = "broker.sock"
_LENGTH = struct.Struct(">I")
_MAX_ANSWER_BYTES = 2**20  # it is hostile: 64 KiB printed, escaped at most sixfold, and room
_GRACE_S = 5.0  # beyond the time a probe was given: for the kill of what it left

_Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HostileWorker:
    """One container that runs whatever it is told. Made by `open_hostile_worker`."""

    def __init__(
        self, container: Container, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Takes over a container that has dialled."""
        self._container = container
        self._reader = reader
        self._writer = writer

    @property
    def statement(self) -> ContainerStatement:
        """What the engine set for it."""
        return self._container.statement

    async def run(self, source: str, *, timeout_s: float) -> str:
        """Runs a source in a child of PID 1 and returns what it printed, 64 KiB at most.

        Raises:
            SandboxLostError: It died, or does not answer.
        """
        order = json.dumps({"source": source, "timeout_s": timeout_s}).encode()
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                self._writer.write(_LENGTH.pack(len(order)) + order)
                await self._writer.drain()
                size = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))[0]
                if size > _MAX_ANSWER_BYTES:
                    raise SandboxLostError(f"the hostile worker announces {size:,} bytes")
                answer = json.loads(await self._reader.readexactly(size))
        except (OSError, TimeoutError, EOFError, ValueError, RecursionError) as error:
            last_words = await self._container.obituary()
            raise SandboxLostError(
                f"the hostile worker does not answer ({type(error).__name__}). {last_words}"
            ) from error
        printed = answer.get("printed") if isinstance(answer, dict) else None
        return printed if isinstance(printed, str) else ""


#: Opens one hostile worker; leaving the context destroys it.
OpenHostileWorker: TypeAlias = Callable[[], AbstractAsyncContextManager[HostileWorker]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileWorkers:
    """Opens hostile workers on one backend.

    Attributes:
        backend: Starts containers of the product's definition but for `HOSTILE_COMMAND`.
        socket_root: Closed to other users; a directory for each socket is made in it.
        start_s: How long one may take from its start until it has dialled.
    """

    backend: ContainerBackend
    socket_root: Path
    start_s: float

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HostileWorker]:
        """Starts one; leaving the context destroys it and its socket.

        Raises:
            SandboxStartError: No container could be had, or it did not dial.
        """
        with _socket_directory(self.socket_root) as directory:
            dialled: asyncio.Queue[_Streams] = asyncio.Queue(maxsize=1)

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    dialled.put_nowait((reader, writer))
                except asyncio.QueueFull:  # an attack of its own: one stream is one too many
                    writer.close()

            server = await asyncio.start_unix_server(accept, directory / _SOCKET)
            try:
                _let_in(directory)
                async with self._started(directory, dialled) as worker:
                    yield worker
            finally:
                server.close()

    @asynccontextmanager
    async def _started(
        self, directory: Path, dialled: asyncio.Queue[_Streams]
    ) -> AsyncIterator[HostileWorker]:
        sandbox_id = SandboxId(f"hostile-{secrets.token_hex(4)}")
        container = await self.backend.start(sandbox_id=sandbox_id, socket_directory=directory)
        try:
            reader, writer = await self._wait_for(container, dialled)
            try:
                yield HostileWorker(container, reader, writer)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        finally:
            await run_to_end(container.destroy())

    async def _wait_for(self, container: Container, dialled: asyncio.Queue[_Streams]) -> _Streams:
        try:
            return await asyncio.wait_for(dialled.get(), self.start_s)
        except TimeoutError:
            last_words = await container.obituary()
        message = f"the hostile worker did not dial within {self.start_s:g} s. {last_words}"
        raise SandboxStartError(message)


@contextmanager
def _socket_directory(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="", dir=root) as name:
        yield Path(name)


def _let_in(directory: Path) -> None:
    # As the broker's: connect(2) needs write permission, and the attacker is another user; the
    # directory above is closed.
    (directory / _SOCKET).chmod(0o666)
    directory.chmod(0o755)
