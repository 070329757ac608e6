"""A gRPC echo over a Unix socket, server and client: the floor of what a query can take.

Without it the wire's own price would be counted as the platform's. Started as a program, in two
processes, because that is what a sandbox and a broker are:

    python -m orchestrator.bench.raw_grpc serve SOCKET
    python -m orchestrator.bench.raw_grpc ask SOCKET
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil

from orchestrator.bench.ground import in_ms

_SERVICE, _METHOD = "rlm.bench.Echo", "Ask"
_ANSWER_S = 60.0
_PROMPT_CHARS = 100
#: What the floor is called in every row that has it.
RAW_GRPC: Final = "raw gRPC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one round of echoes took.

    Attributes:
        wall_s: Of the client's clock, for all of them.
        server_cpu_s: Processor time of the server.
        took_s: Of each.
    """

    wall_s: float
    server_cpu_s: float
    took_s: list[float]


class RawGrpc:
    """A server and a client in processes of their own. Made by `open_raw_grpc`."""

    def __init__(
        self, server: asyncio.subprocess.Process, client: asyncio.subprocess.Process
    ) -> None:
        """Takes both, running."""
        self._server = psutil.Process(server.pid)
        self._client = client

    async def ask(self, count: int, *, thread_count: int, prompt_chars: int) -> Asked:
        """Has the client ask `count` times, from so many threads at once.

        Raises:
            OSError: It ended.
        """
        before_s = self._server_cpu_s()
        order = {"count": count, "threads": thread_count, "chars": prompt_chars}
        answer = await _exchange(self._client, json.dumps(order))
        return Asked(
            wall_s=answer["wall_s"],
            server_cpu_s=self._server_cpu_s() - before_s,
            took_s=answer["took_s"],
        )

    def _server_cpu_s(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)


@asynccontextmanager
async def open_raw_grpc() -> AsyncIterator[RawGrpc]:
    """Yields an echo over a socket of its own; leaving the context ends both processes.

    Raises:
        OSError: One of them did not start.
    """
    processes = []
    folder = tempfile.TemporaryDirectory(prefix="rlm-")
    try:
        for part in ("serve", "ask"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__, part, str(Path(folder.name) / "echo.sock")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=2**24,
            )
            processes.append(process)
            await _read(process)  # that it is ready
        yield RawGrpc(processes[0], processes[1])
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        folder.cleanup()


async def echo_times(raw: RawGrpc, *, count: int) -> list[float]:
    """Returns the milliseconds that each of `count` echoes takes, one after the other."""
    asked = await raw.ask(count, thread_count=1, prompt_chars=_PROMPT_CHARS)
    return in_ms(asked.took_s)


async def _exchange(process: asyncio.subprocess.Process, line: str) -> dict[str, Any]:
    if process.stdin is None:
        raise OSError("expected the echo's client to have pipes")
    process.stdin.write(f"{line}\n".encode())
    return await _read(process)


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any]:
    if process.stdout is None:
        raise OSError("expected the echo's process to have pipes")
    line = await asyncio.wait_for(process.stdout.readline(), _ANSWER_S)
    if not line:
        raise OSError("the raw gRPC echo ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _serve(socket_path: str) -> None:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    handlers = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler})
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"unix:{socket_path}")
    await server.start()
    _say({})
    await server.wait_for_termination()


def _ask(socket_path: str) -> None:
    channel = grpc.insecure_channel(f"unix:{socket_path}")
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")
    _say({})
    for line in sys.stdin:
        order = json.loads(line)
        prompt = b"x" * order["chars"]

        def ask_once(_number: int, prompt: bytes = prompt) -> float:
            begun_s = time.perf_counter()
            call(prompt)
            return time.perf_counter() - begun_s

        with ThreadPoolExecutor(order["threads"]) as threads:
            list(threads.map(ask_once, range(order["threads"])))
            begun_s = time.perf_counter()
            took_s = list(threads.map(ask_once, range(order["count"])))
            wall_s = time.perf_counter() - begun_s
        _say({"wall_s": wall_s, "took_s": took_s})


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(sys.argv[2]))
    else:
        _ask(sys.argv[2])
