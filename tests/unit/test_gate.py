"""The gate between two ends that the test holds: what passes, what does not, and what is kept."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from support import http2_attacker as http2
from support.broker_host import PATIENCE_S, short_directory, until
from support.http2_attacker import END_HEADERS, frame, message

from orchestrator.broker.gate import Gate
from orchestrator.broker.peer_rules import PeerRules, peer_rules
from orchestrator.broker.token_bucket import Allowance
from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import CellLimits, QueryLimits

RULES = peer_rules(cell=CellLimits(), run=QueryLimits())
GREETING = http2.PREFACE + frame(http2.SETTINGS)
CALL = frame(http2.HEADERS, b"h", flags=END_HEADERS, stream_id=1)
PING = frame(http2.PING, b"8 bytes.")
#: Kernel buffers of two sockets, and what the gate and asyncio hold of one read each.
IN_BETWEEN_BYTES = 2 * 2**20

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Bench:
    """A gate, a server behind it that the test plays, and what the gate has reported."""

    directory: Path
    gate: Gate
    violations: list[ProtocolViolationError]
    served: asyncio.Queue[Ends] = field(default_factory=asyncio.Queue)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def dial(self) -> Ends:
        """Connects as a sandbox does."""
        reader, writer = await asyncio.open_unix_connection(str(self.directory / "gate"))
        self.writers.append(writer)
        return reader, writer

    async def connected(self) -> tuple[Ends, Ends]:
        """Returns both ends of a connection that has greeted; the server has read the greeting."""
        client = await self.dial()
        client[1].write(GREETING)
        server = await self.served.get()
        assert await server[0].readexactly(len(GREETING)) == GREETING
        return client, server


@asynccontextmanager
async def open_bench(rules: PeerRules = RULES) -> AsyncIterator[Bench]:
    """Yields a gate that listens, before a server that the test plays."""
    with short_directory() as directory:
        violations: list[ProtocolViolationError] = []
        gate = Gate(
            path=directory / "gate",
            server_path=directory / "server",
            rules=rules,
            on_violation=violations.append,
        )
        bench = Bench(directory, gate, violations)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            bench.writers.append(writer)
            await bench.served.put((reader, writer))

        server = await asyncio.start_unix_server(serve, str(directory / "server"))
        try:
            gate.open()
            yield bench
        finally:
            gate.close()
            server.close()
            for writer in bench.writers:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()


async def test_bytes_pass_both_ways() -> None:
    """What either end says reaches the other as it was said."""
    async with open_bench() as bench:
        (client_reader, client), (server_reader, server) = await bench.connected()
        client.write(CALL + PING)
        server.write(frame(http2.SETTINGS) + PING)

        assert await server_reader.readexactly(len(CALL + PING)) == CALL + PING
        assert await client_reader.readexactly(9 + len(PING)) == frame(http2.SETTINGS) + PING
    assert bench.violations == []


async def test_server_is_not_dialled_before_the_preface() -> None:
    """A connection that does not speak HTTP/2 costs the server nothing, not even a descriptor."""
    async with open_bench() as bench:
        _, client = await bench.dial()
        for byte in http2.PREFACE[:-1]:
            client.write(bytes([byte]))
            await client.drain()
        await asyncio.wait({asyncio.create_task(client.drain())}, timeout=0.05)
        assert bench.served.empty()

        client.write(http2.PREFACE[-1:])
        reader, _ = await bench.served.get()
        assert await reader.readexactly(24) == http2.PREFACE


async def test_nothing_of_a_breach_is_passed_on() -> None:
    """The server never sees the bytes that break a rule, nor those that came with them."""
    async with open_bench() as bench:
        (client_reader, client), (server_reader, _) = await bench.connected()
        client.write(CALL)
        assert await server_reader.readexactly(len(CALL)) == CALL
        client.write(PING + frame(0xBE))

        assert await server_reader.read() == b""
        assert await client_reader.read() == b""
        assert [violation.rule for violation in bench.violations] == [
            "gRPC's client sends no frames of kind 190"
        ]


async def test_breach_ends_every_connection_and_lets_no_more_in() -> None:
    """A sandbox that broke a rule has no other connection to go on with, and makes none."""
    async with open_bench() as bench:
        first, _ = await bench.connected()
        second, _ = await bench.connected()
        second[1].write(frame(0xBE))

        assert await first[0].read() == b""
        with pytest.raises(ConnectionRefusedError):
            await bench.dial()
        assert len(bench.violations) == 1


async def test_client_that_leaves_is_no_breach() -> None:
    """A worker that was killed closes its connection, and the server is told by its end."""
    async with open_bench() as bench:
        (_, client), (server_reader, _) = await bench.connected()
        client.close()

        assert await server_reader.read() == b""
        await asyncio.wait_for(bench.gate.last_word(), PATIENCE_S)
    assert bench.violations == []


async def test_server_that_hangs_up_is_explained() -> None:
    """The server's own last word about a connection becomes the rule that was broken."""
    async with open_bench() as bench:
        (client_reader, _), (_, server) = await bench.connected()
        server.write(frame(http2.GOAWAY, bytes(7) + b"\x01bad frame"))

        assert await client_reader.read() == b""
        assert "'bad frame'" in bench.violations[0].rule


async def test_server_that_only_closes_is_a_breach_too() -> None:
    """A server closes a connection by itself where it can make nothing of it."""
    async with open_bench() as bench:
        (client_reader, _), (_, server) = await bench.connected()
        server.close()

        assert await client_reader.read() == b""
        assert "gRPC gave it up" in bench.violations[0].rule


async def test_client_that_never_reads_holds_up_the_server() -> None:
    """What a client does not take stays with the server: the gate holds one read of it."""
    async with open_bench() as bench:
        _, (_, server) = await bench.connected()
        here = psutil.Process()
        before_bytes = here.memory_info().rss
        chunk = frame(http2.DATA, bytes(2**20), stream_id=1)
        sent_bytes = 0
        with suppress(TimeoutError):
            while sent_bytes < 64 * 2**20:
                server.write(chunk)
                async with asyncio.timeout(0.5):
                    await server.drain()
                sent_bytes += len(chunk)

        assert sent_bytes <= IN_BETWEEN_BYTES
        assert here.memory_info().rss - before_bytes < 8 * 2**20


async def test_server_that_never_reads_holds_up_the_client() -> None:
    """What the server does not take stays with the client, and looks away from it are no breach."""
    rules = replace(RULES, look_s=0.01, unfinished_looks=3)
    async with open_bench(rules) as bench:
        (_, client), (_, server) = await bench.connected()
        server.transport.pause_reading()  # type: ignore[attr-defined] # a read transport it is
        client.write(CALL)
        chunk = frame(http2.DATA, message(bytes(2**20)), stream_id=1)
        sent_bytes = 0
        with suppress(TimeoutError):
            while sent_bytes < 32 * 2**20:
                client.write(chunk)
                async with asyncio.timeout(0.5):
                    await client.drain()
                sent_bytes += len(chunk)

        assert sent_bytes <= IN_BETWEEN_BYTES
        assert bench.violations == []


async def test_held_up_bytes_arrive_whole() -> None:
    """A slow reader gets every byte, in order, however often it is waited for."""
    async with open_bench() as bench:
        (client_reader, _), (_, server) = await bench.connected()
        said = b"".join(
            frame(http2.DATA, bytes([number]) * 50_000, stream_id=1) for number in range(200)
        )
        server.write(said)
        heard = bytearray()
        while len(heard) < len(said):
            await asyncio.sleep(0)
            heard += await client_reader.read(30_000)

        assert heard == said


async def test_flood_of_honest_bytes_is_slowed() -> None:
    """More than the rate is not read until its time has come, and breaks no rule."""
    rules = replace(RULES, inflow_bytes=Allowance(2**18, 2**20))
    async with open_bench(rules) as bench:
        (_, client), (server_reader, _) = await bench.connected()
        said = CALL + frame(http2.DATA, message(bytes(2**20)), stream_id=1)
        started_s = asyncio.get_running_loop().time()
        client.write(said)
        await server_reader.readexactly(len(said))
        took_s = asyncio.get_running_loop().time() - started_s

        # 256 KiB at once; the rest of the MiB at 1 MiB a second, less the last read's pause.
        assert took_s > 0.4
        assert bench.violations == []


async def test_connections_at_once_are_bounded() -> None:
    """The fifth connection at once is one too many; one after another, four are none."""
    async with open_bench() as bench:
        for _ in range(6):
            _, writer = await bench.dial()
            writer.close()
            await asyncio.wait_for(bench.gate.last_word(), PATIENCE_S)
        held = [await bench.dial() for _ in range(4)]
        await asyncio.sleep(0)
        assert bench.violations == []
        held.append(await bench.dial())
        await until(lambda: bool(bench.violations))

        assert "at most 4 connections at once" in bench.violations[0].rule


async def test_connections_of_a_life_are_bounded() -> None:
    """The seventeenth connection is one too many, though no other is open."""
    async with open_bench() as bench:
        for number in range(17):
            assert bench.violations == [], number
            reader, writer = await bench.dial()
            writer.write_eof()
            await reader.read()
            writer.close()
        await until(lambda: bool(bench.violations))

        assert "at most 16 connections in its life" in bench.violations[0].rule


async def test_silence_at_the_door_ends() -> None:
    """A connection that says nothing is closed, and is a breach."""
    rules = replace(RULES, look_s=0.05)
    async with open_bench(rules) as bench:
        reader, _ = await bench.dial()

        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert "preface and settings" in bench.violations[0].rule


async def test_host_without_descriptors_accepts_later(caplog: pytest.LogCaptureFixture) -> None:
    """A process that is out of descriptors neither spins nor loses the connection."""
    async with open_bench() as bench:
        client = socket.socket(socket.AF_UNIX)
        with client:
            with no_descriptors_left():
                client.connect(str(bench.directory / "gate"))
                client.sendall(GREETING)
                await until(lambda: "could not be accepted yet" in caplog.text)
            reader, _ = await asyncio.wait_for(bench.served.get(), PATIENCE_S)

            assert await reader.readexactly(len(GREETING)) == GREETING
    assert len(caplog.records) < 10


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Takes every descriptor this process may have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_closing_twice_is_closing_once() -> None:
    """Closing again does nothing, also before anything was opened."""
    async with open_bench() as bench:
        client, _ = await bench.connected()
        bench.gate.close()
        bench.gate.close()

        assert await client[0].read() == b""
    assert bench.violations == []
