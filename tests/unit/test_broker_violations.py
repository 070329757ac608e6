from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from support.broker_host import PATIENCE_S, HangingQueries, attached, until
from support.scripted_worker import HungUpError, ScriptedWorker, hello, output, result

from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import CellLimits, QueryLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

pytestmark = pytest.mark.usefixtures("broker_home")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXCESS = grpc.StatusCode.RESOURCE_EXHAUSTED

#: What a hostile worker does while cell `cell_id` runs, and the words of the rule it breaks.
Attack = Callable[[ScriptedWorker, int], Awaitable[None]]
ATTACKS: dict[str, tuple[Attack, grpc.StatusCode, str]] = {
    "sequence gap": (
        lambda worker, cell_id: worker.say(sequence=7, cell_output=output(cell_id, b"x")),
        INVALID,
        "sequence has no gaps: 7 after 1",
    ),
    "sequence repeated": (
        lambda worker, cell_id: worker.say(sequence=1, cell_output=output(cell_id, b"x")),
        INVALID,
        "sequence has no gaps",
    ),
    "second hello": (
        lambda worker, _: worker.say(hello=hello()),
        INVALID,
        "hello is said once",
    ),
    "context opened that is not there": (
        lambda worker, _: worker.say(context_opened=pb.ContextOpened()),
        INVALID,
        "opened once, where there is one",
    ),
    "no payload": (lambda worker, _: worker.say(), INVALID, "one payload"),
    "output of another cell": (
        lambda worker, cell_id: worker.say(cell_output=output(cell_id + 1, b"x")),
        INVALID,
        "output for cell 2 while cell 1 runs",
    ),
    "result of another cell": (
        lambda worker, cell_id: worker.say(cell_result=result(cell_id + 1)),
        INVALID,
        "a result for cell 2 while cell 1 runs",
    ),
    "output of cell 0": (
        lambda worker, _: worker.say(cell_output=output(0, b"x")),
        INVALID,
        "cell ids are positive",
    ),
    "empty output": (
        lambda worker, cell_id: worker.say(cell_output=output(cell_id, b"")),
        INVALID,
        "output is not empty",
    ),
    "output of no stream": (
        lambda worker, cell_id: worker.say(cell_output=pb.CellOutput(cell_id=cell_id, data=b"x")),
        INVALID,
        "a stream that is known",
    ),
    "negative offset": (
        lambda worker, cell_id: worker.say(cell_output=output(cell_id, b"x", offset_bytes=-1)),
        INVALID,
        "sizes are not negative",
    ),
    "oversized piece": (
        lambda worker, cell_id: worker.say(cell_output=output(cell_id, b"x" * 65537)),
        EXCESS,
        "at most 65,536 bytes",
    ),
    "result without an outcome": (
        lambda worker, cell_id: worker.say(cell_result=pb.CellResult(cell_id=cell_id)),
        INVALID,
        "a result has an outcome",
    ),
    "negative duration": (
        lambda worker, cell_id: worker.finish(
            cell_id, usage=pb.CellUsage(wall=Duration(seconds=-1))
        ),
        INVALID,
        "durations are not negative",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_violation_meets_its_end(attack: str) -> None:
    """Each broken rule ends the stream with its status, and the call with the rule's name."""
    act, status, words = ATTACKS[attack]
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        await act(pair.worker, await pair.worker.hear_cell())
        with pytest.raises(ProtocolViolationError, match=words):
            await cell
        code, details = await pair.worker.status()
        with pytest.raises(ProtocolViolationError, match=words):
            await pair.attachment.run_cell("pass", timeout_s=60)

    assert code is status
    assert words in details


async def test_unparsable_message_is_a_violation() -> None:
    """Bytes that are no message end the stream like any other broken rule."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        await pair.worker.hear_cell()
        await pair.worker.say_bytes(b"\xff\xff\xff")
        with pytest.raises(ProtocolViolationError, match="a message is a WorkerMessage"):
            await cell

        assert (await pair.worker.status())[0] is INVALID


@pytest.mark.parametrize("what", ["result", "output"])
async def test_nothing_follows_a_result(what: str) -> None:
    """A second result, or output after the result, ends a sandbox that is idle."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        await pair.worker.finish(cell_id)
        await cell
        if what == "result":
            await pair.worker.finish(cell_id)
        else:
            await pair.worker.say(cell_output=output(cell_id, b"late"))
        code, details = await pair.worker.status()

    assert code is INVALID
    assert "nothing follows a result" in details


async def test_output_over_the_limit_is_an_attack() -> None:
    """A worker that forwards more of a stream than any cell may is ended with its status."""
    async with attached(cell_limits=CellLimits(output_bytes=64 * 2**10)) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        for count in range(4):  # twice the limit, a spare piece, and one too many
            piece = output(cell_id, b"x" * 65536, offset_bytes=count * 65536)
            await pair.worker.say(cell_output=piece)
        with pytest.raises(ProtocolViolationError, match="a cell forwards at most"):
            await cell

        assert (await pair.worker.status())[0] is EXCESS


async def test_output_flood_is_cut_off() -> None:
    """A worker that never stops sending is not read any more, and the host's memory is flat."""
    sent_bytes = 0
    async with attached(cell_limits=CellLimits(output_bytes=64 * 2**10)) as pair:
        before_bytes = psutil.Process().memory_info().rss
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        with contextlib.suppress(HungUpError):
            while sent_bytes < 64 * 2**20:
                piece = output(cell_id, b"x" * 65536, offset_bytes=sent_bytes)
                await pair.worker.say(cell_output=piece)
                sent_bytes += 65536
        with pytest.raises(ProtocolViolationError, match="a cell forwards at most"):
            await cell
        growth_bytes = psutil.Process().memory_info().rss - before_bytes

    assert sent_bytes < 64 * 2**20
    assert growth_bytes < 32 * 2**20


async def test_output_within_the_limit_control() -> None:
    """The whole output a cell may forward is taken, so the flood is cut off for its size alone."""
    limits = CellLimits(output_bytes=64 * 2**10)
    async with attached(cell_limits=limits) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        for count in range(64):
            piece = output(cell_id, b"x" * 1024, offset_bytes=count * 1024)
            await pair.worker.say(cell_output=piece)
        await pair.worker.finish(cell_id)

        assert (await cell).stdout.head == "x" * limits.output_bytes


BAD_QUERIES: dict[str, tuple[Callable[[pb.LlmQueryRequest], None], str]] = {
    "empty id": (lambda request: request.ClearField("query_id"), "a query id is 1 to 64"),
    "long id": (lambda request: setattr(request, "query_id", "x" * 65), "a query id is 1 to 64"),
    "id with a newline": (lambda request: setattr(request, "query_id", "x\n"), "a query id is"),
    "no prompts": (lambda request: request.ClearField("prompts"), "at least one prompt"),
    "cell 0": (lambda request: setattr(request, "cell_id", 0), "cell ids are positive"),
    "long alias": (lambda request: setattr(request, "model_alias", "x" * 65), "a model alias"),
}


@pytest.mark.parametrize("attack", BAD_QUERIES)
async def test_malformed_query_ends_the_sandbox(attack: str) -> None:
    """A query that no program in a cell can cause is an attack: the stream ends too."""
    change, words = BAD_QUERIES[attack]
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.worker.query(["?"], cell_id=cell_id, change=change)
        with pytest.raises(ProtocolViolationError, match=words):
            await cell

        assert caught.value.code() is INVALID
        assert (await pair.worker.status())[0] is INVALID


async def test_repeated_query_id_ends_the_sandbox() -> None:
    """A repeated query is a violation, not a retry, also when the first has been answered."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        assert (await pair.worker.query(["?"], cell_id=cell_id)).answers[0].text == "echo: ?"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.worker.query(["?"], cell_id=cell_id)
        with pytest.raises(ProtocolViolationError, match="a query id is used once"):
            await cell

    assert caught.value.code() is INVALID


async def test_too_many_open_queries_end_the_sandbox() -> None:
    """More open queries than an honest worker could have, over other connections, are an attack."""
    queries = HangingQueries()
    limits = QueryLimits(concurrent_queries=1)
    async with attached(queries=queries, query_limits=limits) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        calls = [
            pair.worker.query(["?"], cell_id=cell_id, query_id=f"q{count}") for count in range(4)
        ]
        await until(lambda: len(queries.asked) == 4)
        async with ScriptedWorker(pair.endpoint.socket_directory, token=pair.worker.token) as other:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await other.query(["?"], cell_id=cell_id, query_id="one-more")
        with pytest.raises(ProtocolViolationError, match="at most 4 queries are open"):
            await cell
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls])

    assert caught.value.code() is EXCESS
    assert len(queries.cancelled) == 4


async def test_batch_that_only_an_attack_could_send_ends_the_sandbox() -> None:
    """One answer for each prompt would cost the host more than so many prompts cost the worker."""
    async with attached(query_limits=QueryLimits(batch_prompts=2)) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        within = await pair.worker.query(["?"] * 32, cell_id=cell_id)
        assert len(within.answers) == 32
        code = await pair.worker.query(["?"] * 33, cell_id=cell_id, query_id="q2").code()
        with pytest.raises(ProtocolViolationError, match="at most 32 prompts"):
            await cell

    assert code is EXCESS
