"""What a large context takes: the time until a cell can use it, and the memory it needs meanwhile.

Without it "of any length" would be a figure of speech.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from orchestrator.bench.benchmark import Benchmark
from orchestrator.bench.container_memory import memory_of, name_of
from orchestrator.bench.ground import (
    EchoModel,
    Ground,
    in_ms,
    open_provider,
    open_session,
    run_cell,
)
from orchestrator.bench.report import Goal
from orchestrator.bench.turns import Contender, Kind
from orchestrator.context import encode_context
from orchestrator.domain import EncodedContext, RunOffer
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

_CONTEXT_BYTES = 40_000_000
_LARGE_BYTES = 400_000_000
_GIB = 2**30
_FIRST_USE = "print(len(context), context[-1])"
_FLOOR = "socket copy"
_SIZE = "its size"
_MB = 1e6
_RECEIVER = """
import socket, sys
line, size = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
received, at = memoryview(bytearray(size)), 0
line.send(b"!")
while at < size:
    at += line.recv_into(received[at:])
line.send(b"!")
"""


def _text(size_bytes: int) -> str:
    """Returns a text of so many ASCII characters that is not one character repeated."""
    line = "0123456789abcdef" * 4
    return (line * (size_bytes // len(line) + 1))[:size_bytes]


async def _hand_over(sandbox: Sandbox, context: EncodedContext | str) -> Sequence[float]:
    begun_s = time.perf_counter()
    if isinstance(context, str):
        context = await asyncio.to_thread(encode_context, context)
    await sandbox.bind_context("context", context)
    await run_cell(sandbox, _FIRST_USE)
    return in_ms([time.perf_counter() - begun_s])


def _copy_through_a_socket(data: bytes) -> float:
    """Returns the seconds that another process takes to have all of `data`, and to say so."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = (str(theirs.fileno()), str(len(data)))
        # By exec, not by fork alone: this process has threads, gRPC's among them.
        receiver = subprocess.Popen(  # noqa: S603 - this interpreter, a program of this file
            [sys.executable, "-I", "-S", "-c", _RECEIVER, *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        with receiver:
            if not ours.recv(1):
                raise OSError("the receiver of the copy did not start")
            begun_s = time.perf_counter()
            ours.sendall(data)
            ours.recv(1)
            return time.perf_counter() - begun_s


async def _copy(data: bytes) -> Sequence[float]:
    return in_ms([await asyncio.to_thread(_copy_through_a_socket, data)])


@asynccontextmanager
async def _open_hand_over(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        provider = await enter(open_provider(ground))
        sandbox = await enter(open_session(provider))
        text = _text(_CONTEXT_BYTES)
        encoded = await asyncio.to_thread(encode_context, text)
        contenders = [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="bind_context of an encoded text, and a cell that looks at its end",
                measure=partial(_hand_over, sandbox, encoded),
            ),
            Contender(
                name="with encoding",
                kind=Kind.VARIANT,
                what="the same from a str: encoded and measured first, once for each run",
                measure=partial(_hand_over, sandbox, text),
            ),
            Contender(
                name=_FLOOR,
                kind=Kind.FLOOR,
                what="the same bytes through a socket pair into another process's memory",
                lacks="no digest, no text: bytes as they are",
                measure=partial(_copy, encoded.data),
            ),
        ]
        for contender in contenders:
            await contender.measure()
        yield contenders


async def _peak_of(provider: SandboxProvider, endpoint: str, context: EncodedContext) -> float:
    async with provider.open(EchoModel()) as sandbox:
        await sandbox.begin_run(RunOffer())
        await sandbox.bind_context("context", context)
        await run_cell(sandbox, _FIRST_USE)
        memory = await memory_of(endpoint, name_of(sandbox.sandbox_id))
    if memory.peak_bytes is None:
        raise SandboxLostError("this kernel does not say what a control group used at most")
    return memory.peak_bytes / _MB


async def _series(value: float) -> Sequence[float]:
    return [value]


@asynccontextmanager
async def _open_peak(ground: Ground) -> AsyncIterator[Sequence[Contender]]:
    limits = replace(ground.settings.sandbox, memory_bytes=_GIB)
    async with open_provider(ground, sandbox=limits) as provider:
        context = await asyncio.to_thread(encode_context, _text(_LARGE_BYTES))

        async def measure() -> Sequence[float]:
            return [await _peak_of(provider, ground.endpoint, context)]

        yield [
            Contender(
                name="ours",
                kind=Kind.OURS,
                what="the most that the sandbox's control group was charged, files included",
                measure=measure,
            ),
            Contender(
                name=_SIZE,
                kind=Kind.FLOOR,
                what="400,000,000 bytes",
                measure=partial(_series, _LARGE_BYTES / _MB),
            ),
        ]


HAND_OVER: Final = Benchmark(
    name="context-40mb",
    title="40 MB of context, handed over to first use",
    measures=(
        "a text of 40,000,000 characters (about 10 million tokens) from bind_context to the result "
        "of a cell that looks at its end, in a sandbox that had another one before"
    ),
    unit="ms",
    goals=(Goal(against=_FLOOR, at_most=2.0),),
    open_contenders=_open_hand_over,
    turn_count=8,
    quick_turn_count=3,
)
PEAK: Final = Benchmark(
    name="context-400mb-peak",
    title="400 MB of context in a sandbox of 1 GiB",
    measures=(
        "a text of 400,000,000 characters bound in a fresh sandbox with 1 GiB of memory, and "
        "looked at; a figure of one sandbox in each turn"
    ),
    unit="MB",
    goals=(Goal(against=_SIZE, at_most=1.4),),
    open_contenders=_open_peak,
    turn_count=2,
    quick_turn_count=1,
)
