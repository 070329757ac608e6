"""What holds for any bytes: nothing is kept, pieces do not matter, and honest workers pass."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Sequence

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import http2_attacker as http2
from support.broker_host import EchoQueries, broker_in, short_directory
from support.http2_attacker import END_HEADERS, frame, message
from support.wiretap import Said, TappedBackend

from orchestrator.broker.connection_police import ConnectionPolice
from orchestrator.broker.peer_rules import peer_rules
from orchestrator.context import encode_context
from orchestrator.domain import Outcome, QueryAnswer, QueryRequest
from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from orchestrator.sandbox.launcher import SandboxLauncher

RULES = peer_rules(cell=CellLimits(), run=QueryLimits())
#: What the police may hold of a connection, whatever comes: frame headers, prefixes, a goodbye.
_HELD_BYTES = 1024
#: A cell that prints by the byte, asks from threads, and asks for much at once.
BUSY_CELL = """
import os
from concurrent.futures import ThreadPoolExecutor
for _ in range(2000):
    os.write(1, b"x")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(llm_query, [f"q{n}" for n in range(100)]))
llm_query_batched(["y" * 400_000] * 12, return_errors=True)
"""

#: A cell that ends with as many queries open as it may have.
ABANDONING_CELL = """
import threading, time
for number in range(16):
    threading.Thread(target=llm_query, args=(f"never {number}",), daemon=True).start()
time.sleep(0.02)
"""

GREETING = http2.PREFACE + frame(http2.SETTINGS)
#: Frames from which sequences are made: the first kinds honest, the rest less and less so.
ANY_FRAME = st.one_of(
    st.sampled_from(
        [
            frame(http2.SETTINGS),
            frame(http2.PING, b"8 bytes."),
            frame(http2.HEADERS, b"h", flags=END_HEADERS, stream_id=1),
            frame(http2.HEADERS, b"h", flags=END_HEADERS, stream_id=3),
            frame(http2.DATA, message(b"x" * 100), stream_id=1),
            frame(http2.DATA, message(b"x" * 100)[:50], stream_id=3),
            frame(http2.DATA, b"", stream_id=1, flags=1),
            frame(http2.RST_STREAM, bytes(4), stream_id=1),
            frame(http2.WINDOW_UPDATE, b"\0\0\0\1"),
            frame(http2.HEADERS, b"h", stream_id=5),
            frame(http2.CONTINUATION, b"h", stream_id=5),
        ]
    ),
    st.builds(
        lambda kind, flags, number, payload: frame(kind, payload, flags=flags, stream_id=number),
        st.integers(0, 12),
        st.integers(0, 255),
        st.integers(0, 9),
        st.binary(max_size=300),
    ),
    st.binary(max_size=64),
)


class SomeAnswers(EchoQueries):
    """Answers each prompt with itself, but for those that are never answered."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers at once or never."""
        if request.prompts[0].startswith("never"):
            await asyncio.Event().wait()
        return await super().answer(request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> Sequence[Said]:
    """What a real worker and the broker said to each other in a busy session."""
    sandbox = SandboxLimits(memory_bytes=2 * 2**30)
    with short_directory() as directory, short_directory() as tapped:
        backend = TappedBackend(tapped)
        launcher = SandboxLauncher(backend=backend, broker=broker_in(directory), limits=sandbox)
        async with backend.tap, launcher.open(SomeAnswers()) as opened:
            for number in range(5):  # each fits a piece, and so passes the socket
                context = encode_context("x" * 1_000_000)
                await opened.bind_context(f"context_{number}", context)
            for source in (BUSY_CELL, *[ABANDONING_CELL] * 20):
                result = await opened.run_cell(source, timeout_s=60)
                assert result.outcome is Outcome.SUCCEEDED, result
    return backend.tap.said


def replay(said: Sequence[Said], cuts: Sequence[int]) -> None:
    """Has a police hear a session, its client's bytes cut as told; time stands still."""
    police = ConnectionPolice(RULES, clock=lambda: 0.0)
    sizes = itertools.cycle(cuts)
    for is_client, data in said:
        if not is_client:
            police.hear_server(memoryview(data))
            continue
        start = 0
        while start < len(data):
            size = next(sizes)
            police.hear_client(memoryview(data)[start : start + size])
            start += size


@pytest.mark.asyncio(loop_scope="module")
async def test_real_worker_breaks_no_rule(session: Sequence[Said]) -> None:
    """What gRPC's client does in a busy session passes, though no time passes meanwhile."""
    assert sum(len(said.data) for said in session if said.is_client) > 4_000_000
    replay(session, [2**18])


@pytest.mark.asyncio(loop_scope="module")
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(1, 50_000), min_size=1, max_size=20))
async def test_real_worker_breaks_no_rule_however_it_is_cut(
    session: Sequence[Said], cuts: list[int]
) -> None:
    """Where the kernel cuts a stream is nobody's fault."""
    replay(session, [*cuts, 2**18])


def verdict(data: bytes, cuts: Sequence[int]) -> str | None:
    """Returns the rule that a client's bytes break, heard in pieces that end at `cuts`."""
    police = ConnectionPolice(RULES, clock=lambda: 0.0)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    try:
        for start, end in zip([0, *ends], ends, strict=False):
            police.hear_client(memoryview(data)[start:end])
    except ProtocolViolationError as violation:
        return violation.rule
    return None


@settings(deadline=None)
@given(frames=st.lists(ANY_FRAME, max_size=60), cuts=st.lists(st.integers(0, 3000), max_size=40))
def test_pieces_do_not_matter(frames: list[bytes], cuts: list[int]) -> None:
    """The same bytes break the same rule, or none, in one piece and in many."""
    data = GREETING + b"".join(frames)

    assert verdict(data, cuts) == verdict(data, [])


@settings(deadline=None)
@given(data=st.binary(max_size=4000), cuts=st.lists(st.integers(0, 4000), max_size=40))
def test_any_bytes_pass_or_break_a_rule(data: bytes, cuts: list[int]) -> None:
    """Nothing a peer can say raises anything but a broken rule."""
    verdict(data, cuts)
    verdict(GREETING + data, cuts)


def held_bytes(police: ConnectionPolice) -> int:
    """Returns how many bytes of what came can be reached from `police`."""
    seen: set[int] = set()
    todo: list[object] = [police]
    total = 0
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, bytes | bytearray | memoryview):
            total += len(item)
        elif not callable(item) or hasattr(item, "__self__"):
            todo.extend(gc.get_referents(item))
    return total


@settings(deadline=None)
@given(frames=st.lists(ANY_FRAME, max_size=60), cuts=st.lists(st.integers(0, 3000), max_size=40))
def test_next_to_nothing_is_kept(frames: list[bytes], cuts: list[int]) -> None:
    """Whatever has come, in whatever pieces, a police holds a few bytes of it."""
    police = ConnectionPolice(RULES, clock=lambda: 0.0)
    data = GREETING + b"".join(frames)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        try:
            police.hear_client(memoryview(data[start:end]))
        except ProtocolViolationError:
            break
        assert held_bytes(police) <= _HELD_BYTES


def test_held_bytes_control() -> None:
    """Bytes that a police did hold would be found."""
    police = ConnectionPolice(RULES, clock=lambda: 0.0)
    police._server_goaway += bytes(5000)  # noqa: SLF001 # the one buffer there is

    assert held_bytes(police) > _HELD_BYTES
