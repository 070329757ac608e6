"""What the gate costs: queries and a large context through it, and past it to the same server.

Run it by hand; it prints JSON. Both ways are measured in turn in one run, because machines are
noisy: what counts is the difference.

    python tests/performance/gate_cost.py [--queries 3000] [--context-mb 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.broker_host import PATIENCE_S, EchoQueries, broker_in, short_directory
from support.scripted_worker import WALLS, hello

from orchestrator.broker.attachment import StreamAttachment
from orchestrator.context import encode_context
from orchestrator.domain import SandboxId

_BLOCK = 50  # queries in a row before it is the other's turn


class Peer:
    """A client process and the broker's end of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Takes over a started client."""
        self._process = process
        self.attachment: StreamAttachment

    async def hear(self) -> Any:  # noqa: ANN401 # JSON
        """Returns the client's next answer."""
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    async def tell(self, **command: object) -> None:
        """Sends a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def hang_up(self) -> None:
        """Ends the client, and with it whatever still runs on its stream. Idempotent."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def open_peer(directory: Path, *, with_gate: bool) -> AsyncIterator[Peer]:
    """Yields a client that dials the gate, or the server behind it."""
    broker = broker_in(directory)
    async with broker.open(
        sandbox_id=SandboxId("measured"), queries=EchoQueries(), promised_walls=WALLS
    ) as endpoint:
        path = endpoint.socket_directory / "broker.sock"
        if not with_gate:
            [path] = await asyncio.to_thread(lambda: list(directory.glob("*/s")))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(Path(__file__).with_name("query_client.py")), str(path)),
            *(str(endpoint.socket_directory / "token"), hello().SerializeToString().hex()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        peer = Peer(process)
        try:
            peer.attachment = await endpoint.attached(timeout_s=PATIENCE_S)
            await peer.hear()
            yield peer
        finally:
            await peer.hang_up()


async def time_contexts(peers: dict[str, Peer], *, size_bytes: int, repeats: int) -> dict[str, Any]:
    """Returns the rates of handing over a context, each way in turn."""
    context = encode_context("x" * size_bytes)
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(repeats):
        for name, peer in peers.items():
            await peer.tell(do="context")
            await peer.attachment.bind_context("context", context)
            answer = await peer.hear()
            rates[name].append(size_bytes / 1e6 / answer["took_s"])
    return {name: {"mb_per_s": round(statistics.median(found))} for name, found in rates.items()}


async def time_queries(peers: dict[str, Peer], *, count: int, chars: int) -> dict[str, Any]:
    """Returns how long queries take, each way in turn."""
    cells = []
    for peer in peers.values():
        await peer.tell(do="cell")
        cells.append(asyncio.create_task(peer.attachment.run_cell("pass", timeout_s=1e6)))
        await peer.hear()
    took_s: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(count // _BLOCK):
        for name, peer in peers.items():
            await peer.tell(do="ask", count=_BLOCK, chars=chars)
            took_s[name] += (await peer.hear())["took_s"]
    for peer in peers.values():
        await peer.hang_up()
    await asyncio.gather(*cells, return_exceptions=True)
    return {
        name: {
            f"p{percent}_ms": round(statistics.quantiles(found, n=100)[percent - 1] * 1e3, 3)
            for percent in (50, 90, 99)
        }
        for name, found in took_s.items()
    }


async def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--context-mb", type=int, default=400)
    options = parser.parse_args()
    async with AsyncExitStack() as stack:
        peers = {}
        for name in ("without", "with"):
            directory = stack.enter_context(short_directory())
            peers[name] = await stack.enter_async_context(
                open_peer(directory, with_gate=name == "with")
            )
        report = {
            "load_before": os.getloadavg()[0],
            "context": await time_contexts(peers, size_bytes=options.context_mb * 10**6, repeats=3),
            "query_200_chars": await time_queries(peers, count=options.queries, chars=200),
            "load_after": os.getloadavg()[0],
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
