from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc
import pytest
from support.broker_host import HangingQueries, Pair, attached, until

from orchestrator.domain import (
    CellLimits,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryRequest,
    RunLimits,
)
from orchestrator.errors import ProtocolViolationError, SandboxLostError
from rlm_sandbox.v1 import sandbox_pb2 as pb

pytestmark = pytest.mark.usefixtures("broker_home")


async def start_cell(pair: Pair) -> tuple[asyncio.Task[object], int]:
    """Runs a cell and returns it with its id."""
    cell: asyncio.Task[object] = asyncio.create_task(
        pair.attachment.run_cell("llm_query(…)", timeout_s=60)
    )
    return cell, await pair.worker.hear_cell()


async def finish(pair: Pair, cell: asyncio.Task[object], cell_id: int) -> None:
    """Ends the cell."""
    await pair.worker.finish(cell_id)
    await cell


async def test_answers_come_in_order() -> None:
    """Each prompt has its answer, a text or an error, in the place it was asked in."""

    class Mixed:
        async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
            refused = QueryFailure(reason=QueryFailureReason.MODEL_REFUSED, message="No.")
            return [refused if prompt == "bad" else prompt.upper() for prompt in request.prompts]

    async with attached(queries=Mixed()) as pair:
        cell, cell_id = await start_cell(pair)
        reply = await pair.worker.query(["one", "bad", "two"], cell_id=cell_id)
        await finish(pair, cell, cell_id)

    assert [answer.WhichOneof("outcome") for answer in reply.answers] == ["text", "error", "text"]
    assert (reply.answers[0].text, reply.answers[2].text) == ("ONE", "TWO")
    assert reply.answers[1].error.reason == pb.QueryError.REASON_MODEL_REFUSED


async def test_queries_are_concurrent() -> None:
    """Queries of one cell are answered side by side, not one after the other."""
    queries = HangingQueries()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        calls = [
            pair.worker.query(["?"], cell_id=cell_id, query_id=f"q{count}") for count in range(16)
        ]
        await until(lambda: len(queries.asked) == 16)
        queries.release.set()
        replies = [await call for call in calls]
        await finish(pair, cell, cell_id)

    assert all(reply.answers[0].text == "?" for reply in replies)


async def test_end_of_a_cell_cancels_its_queries() -> None:
    """A query still open when its cell ends is cancelled down to the handler."""
    queries = HangingQueries()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        call = pair.worker.query(["?"], cell_id=cell_id)
        await until(lambda: bool(queries.asked))
        await finish(pair, cell, cell_id)
        assert len(queries.cancelled) == 1  # settled before the caller has the result

        assert await call.code() is grpc.StatusCode.CANCELLED


async def test_stop_of_a_cell_cancels_its_queries() -> None:
    """A stopped cell's queries are cancelled at once, and it cannot ask again."""
    queries = HangingQueries()
    async with attached(queries=queries, cell_limits=CellLimits(grace_s=1.0)) as pair:
        cell, cell_id = await start_cell(pair)
        call = pair.worker.query(["?"], cell_id=cell_id)
        await until(lambda: bool(queries.asked))
        cell.cancel()
        assert (await pair.worker.hear()).stop_cell.cell_id == cell_id
        late = pair.worker.query(["?"], cell_id=cell_id, query_id="q2")
        codes = [await call.code(), await late.code()]
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_STOPPED)
        with pytest.raises(asyncio.CancelledError):
            await cell

    assert codes == [grpc.StatusCode.CANCELLED] * 2
    assert len(queries.asked) == len(queries.cancelled) == 1


async def test_query_cancelled_by_the_worker_is_cancelled_at_the_handler() -> None:
    """A call the worker gives up costs nothing more, and the cell goes on."""
    queries = HangingQueries()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        call = pair.worker.query(["?"], cell_id=cell_id)
        await until(lambda: bool(queries.asked))
        call.cancel()
        await until(lambda: bool(queries.cancelled))
        queries.release.set()
        reply = await pair.worker.query(["again"], cell_id=cell_id, query_id="q2")
        await finish(pair, cell, cell_id)

    assert reply.answers[0].text == "again"


async def test_lost_stream_cancels_its_queries() -> None:
    """When the worker dies, what it asked is cancelled at the handler."""
    queries = HangingQueries()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        call = pair.worker.query(["?"], cell_id=cell_id)
        await until(lambda: bool(queries.asked))
        pair.worker.call.cancel()
        with pytest.raises(SandboxLostError):
            await cell
        await until(lambda: bool(queries.cancelled))

        assert await call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("moment", ["before a cell", "after a cell", "of another cell"])
async def test_query_outside_its_cell_is_refused(moment: str) -> None:
    """Only the running cell may ask; a query that crosses its end is refused, not punished."""
    queries = HangingQueries()
    code: grpc.StatusCode | None = None
    async with attached(queries=queries) as pair:
        if moment == "before a cell":
            code = await pair.worker.query(["?"], cell_id=1).code()
        else:
            cell, cell_id = await start_cell(pair)
            if moment == "of another cell":
                code = await pair.worker.query(["?"], cell_id=cell_id + 1).code()
            await finish(pair, cell, cell_id)
            if moment == "after a cell":
                code = await pair.worker.query(["?"], cell_id=cell_id).code()
        # The control: the sandbox is as usable as before.
        cell, cell_id = await start_cell(pair)
        queries.release.set()
        reply = await pair.worker.query(["?"], cell_id=cell_id, query_id="q2")
        await finish(pair, cell, cell_id)

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert reply.answers[0].text == "?"
    assert len(queries.asked) == 1


async def test_honest_excess_is_an_error_that_teaches() -> None:
    """Too long a prompt is refused in its place, with the figures; the others are answered."""
    limits = RunLimits(query_chars=10, batch_prompts=3)
    async with attached(run_limits=limits) as pair:
        cell, cell_id = await start_cell(pair)
        mixed = await pair.worker.query(["x" * 11, "ok"], cell_id=cell_id)
        many = await pair.worker.query(["a"] * 4, cell_id=cell_id, query_id="q2")
        await finish(pair, cell, cell_id)

    assert mixed.answers[0].error.reason == pb.QueryError.REASON_TOO_LARGE
    assert "11 characters; a prompt takes 10" in mixed.answers[0].error.message
    assert mixed.answers[1].text == "echo: ok"
    assert [answer.error.reason for answer in many.answers] == [pb.QueryError.REASON_TOO_MANY] * 4
    assert "4 prompts in one call; a call takes 3" in many.answers[0].error.message


async def test_what_is_not_offered_is_refused_by_its_reason() -> None:
    """Child runs and schemas are refused with the reasons the contract names."""
    async with attached() as pair:
        cell, cell_id = await start_cell(pair)
        child = await pair.worker.query(
            ["?"], cell_id=cell_id, change=lambda request: setattr(request, "recurse", True)
        )
        schema = await pair.worker.query(
            ["?"],
            cell_id=cell_id,
            query_id="q2",
            change=lambda request: setattr(request, "json_schema", "{}"),
        )
        await finish(pair, cell, cell_id)

    assert child.answers[0].error.reason == pb.QueryError.REASON_TOO_DEEP
    assert schema.answers[0].error.reason == pb.QueryError.REASON_MODEL_REFUSED


async def test_failing_handler_tells_the_sandbox_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error on the host's side becomes a query error without any of its words."""

    class Broken:
        async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
            raise OSError(f"/secret/path {request.query_id}")

    async with attached(queries=Broken()) as pair:
        cell, cell_id = await start_cell(pair)
        reply = await pair.worker.query(["?"], cell_id=cell_id)
        await finish(pair, cell, cell_id)

    assert reply.answers[0].error.reason == pb.QueryError.REASON_MODEL_FAILED
    assert "secret" not in reply.answers[0].error.message
    # The control: the operator reads what happened.
    assert logging.ERROR in {record.levelno for record in caplog.records}
    assert "/secret/path" in caplog.text


async def test_query_over_the_message_cap_is_an_attack() -> None:
    """No worker sends a request over 4 MiB: whoever does ends the sandbox, and nobody is asked."""
    queries = HangingQueries()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        code = await pair.worker.query(["x" * (5 * 2**20)], cell_id=cell_id).code()
        with pytest.raises(ProtocolViolationError, match="at most 4,194,304 bytes, this one"):
            await cell

    assert code is not grpc.StatusCode.OK
    assert queries.asked == []


async def test_query_under_the_message_cap_control() -> None:
    """A request of almost 4 MiB is read, and refused for its prompt's length alone."""
    async with attached() as pair:
        cell, cell_id = await start_cell(pair)
        reply = await pair.worker.query(["x" * (4 * 2**20 - 100)], cell_id=cell_id)
        await finish(pair, cell, cell_id)

    assert reply.answers[0].error.reason == pb.QueryError.REASON_TOO_LARGE


async def test_token_is_needed_for_queries_too() -> None:
    """Whoever reaches the socket without the token is not answered."""
    async with attached() as pair:
        cell, cell_id = await start_cell(pair)
        pair.worker.token = "0" * 64
        code = await pair.worker.query(["?"], cell_id=cell_id).code()
        await finish(pair, cell, cell_id)

    assert code is grpc.StatusCode.UNAUTHENTICATED
