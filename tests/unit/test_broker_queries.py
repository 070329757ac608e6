from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import grpc
import pytest
from support.broker_host import HangingQueries, Pair, attached, until

from orchestrator.domain import (
    NotedAnswer,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryKind,
    QueryRequest,
)
from orchestrator.errors import ProtocolViolationError, SandboxLostError
from orchestrator.limits import CellLimits, QueryLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

Change: TypeAlias = Callable[[pb.LlmQueryRequest], None]

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
    limits = QueryLimits(prompt_chars=10, batch_prompts=3)
    async with attached(query_limits=limits) as pair:
        cell, cell_id = await start_cell(pair)
        mixed = await pair.worker.query(["x" * 11, "ok"], cell_id=cell_id)
        many = await pair.worker.query(["a"] * 4, cell_id=cell_id, query_id="q2")
        await finish(pair, cell, cell_id)

    assert mixed.answers[0].error.reason == pb.QueryError.REASON_TOO_LARGE
    assert "11 characters; a prompt takes 10" in mixed.answers[0].error.message
    assert mixed.answers[1].text == "echo: ok"
    assert [answer.error.reason for answer in many.answers] == [pb.QueryError.REASON_TOO_MANY] * 4
    assert "4 prompts in one call; a call takes 3" in many.answers[0].error.message


class Recording:
    """Keeps what is asked, and answers with a notice."""

    def __init__(self) -> None:
        """Begins with nothing asked."""
        self.asked: list[QueryRequest] = []

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Keeps the request."""
        self.asked.append(request)
        return [NotedAnswer(text="yes", notice="cut") for _ in request.prompts]


def as_child(kind: int = pb.CONTEXT_KIND_TEXT, **fields: Any) -> Change:  # noqa: ANN401 - of a context
    """Makes a query one for a child run."""

    def change(request: pb.LlmQueryRequest) -> None:
        request.recurse = True
        request.child_context.CopyFrom(pb.ChildContext(kind=kind, **fields))  # type: ignore[arg-type]  # any number

    return change


def part(context_id: str, offset_bytes: int, data: bytes) -> Change:
    """Makes a query a part of a context."""

    def change(request: pb.LlmQueryRequest) -> None:
        request.context_part.CopyFrom(
            pb.ContextPart(context_id=context_id, offset_bytes=offset_bytes, data=data)
        )

    return change


async def test_who_is_to_answer_reaches_the_handler() -> None:
    """Schema, tool and child run arrive as they were asked for, and a notice goes back."""
    queries = Recording()
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        reply = await pair.worker.query(
            ["?"], cell_id=cell_id, change=lambda q: setattr(q, "json_schema", "{}")
        )
        await pair.worker.query(
            ["{}"], cell_id=cell_id, query_id="q2", change=lambda q: setattr(q, "tool_name", "f")
        )
        await pair.worker.query(
            ["who?"], cell_id=cell_id, query_id="q3", change=as_child(data=b"some t\xc3\xa9xt")
        )
        await pair.worker.query(
            [""],
            cell_id=cell_id,
            query_id="q4",
            change=as_child(
                pb.CONTEXT_KIND_DOCUMENTS, data=b"[]", total_chars=900, part_lengths=[7]
            ),
        )
        await finish(pair, cell, cell_id)

    plain, tool, text, documents = queries.asked
    assert (reply.answers[0].text, reply.answers[0].notice) == ("yes", "cut")
    assert (plain.kind, plain.json_schema) == (QueryKind.PLAIN, "{}")
    assert (tool.kind, tool.tool_name, tool.prompts) == (QueryKind.TOOL, "f", ("{}",))
    assert text.kind is QueryKind.CHILD_RUN
    assert text.child_context is not None
    assert text.child_context.data == "some téxt".encode()
    assert (text.child_context.total_chars, text.child_context.part_lengths) == (9, (9,))
    assert documents.child_context is not None
    # What cannot be true of two bytes is not shown to anybody.
    assert (documents.child_context.kind, documents.child_context.total_chars) == ("documents", 2)


async def test_large_context_of_a_child_run_comes_in_parts() -> None:
    """What does not fit in one message is put together, in order, and handed on whole."""
    queries = Recording()
    pieces = [bytes([65 + index]) * 3_000_000 for index in range(4)]
    async with attached(queries=queries) as pair:
        cell, cell_id = await start_cell(pair)
        for index, piece in enumerate(pieces):
            reply = await pair.worker.query(
                [],
                cell_id=cell_id,
                query_id=f"p{index}",
                change=part("big", 3_000_000 * index, piece),
            )
            assert not reply.answers
        await pair.worker.query(["who?"], cell_id=cell_id, change=as_child(context_id="big"))
        await finish(pair, cell, cell_id)

    [request] = queries.asked
    assert request.child_context is not None
    assert request.child_context.data == b"".join(pieces)
    assert request.child_context.total_chars == 12_000_000


def as_child_and_tool(query: pb.LlmQueryRequest) -> None:
    """Makes a query of two sorts."""
    as_child(data=b"x")(query)
    query.tool_name = "f"


BROKEN_CONTEXTS: dict[str, tuple[list[tuple[list[str], Change]], str]] = {
    "no context": ([(["?"], lambda q: setattr(q, "recurse", True))], "has a context"),
    "two prompts": ([(["?", "?"], as_child(data=b"x"))], "a child run has one prompt"),
    "context of no kind": ([(["?"], as_child(0, data=b"x"))], "a kind that is known, not 0"),
    "no text": ([(["?"], as_child(data=b"\xff"))], "a context is UTF-8"),
    "both ways at once": ([(["?"], as_child(data=b"x", context_id="c"))], "with its query or bef"),
    "parts that never came": ([(["?"], as_child(context_id="c"))], "come before its query"),
    "a gap": ([([], part("c", 0, b"x")), ([], part("c", 2, b"x"))], "follow each other"),
    "an empty part": ([([], part("c", 0, b""))], "is not empty"),
    "a part with a prompt": ([(["?"], part("c", 0, b"x"))], "comes alone"),
    "more than a context may have": (
        [([], part("a", 0, b"x" * 60)), ([], part("b", 0, b"x" * 60))],
        "have at most 100 bytes",
    ),
    "more at once than a context may have": ([(["?"], as_child(data=b"x" * 101))], "at most 100"),
    "too many lengths": ([(["?"], as_child(data=b"x", part_lengths=[1] * 101))], "100 lengths"),
    "a negative length": ([(["?"], as_child(data=b"x", total_chars=-1))], "not negative"),
    "a tool that recurses": (
        [(["?"], as_child_and_tool)],
        "a child run or for a tool",
    ),
    "a long schema": (
        [(["?"], lambda q: setattr(q, "json_schema", "x" * 20_001))],
        "a schema has at most",
    ),
}


@pytest.mark.parametrize("name", BROKEN_CONTEXTS)
async def test_context_that_breaks_a_rule_ends_the_sandbox(name: str) -> None:
    """No program in a cell can cause one of these: whoever sends it has taken over the worker."""
    requests, rule = BROKEN_CONTEXTS[name]
    queries = HangingQueries()
    async with attached(queries=queries, query_limits=QueryLimits(child_context_bytes=100)) as pair:
        cell, cell_id = await start_cell(pair)
        codes = []
        for index, (prompts, change) in enumerate(requests):
            call = pair.worker.query(prompts, cell_id=cell_id, query_id=f"q{index}", change=change)
            codes.append(await call.code())
        with pytest.raises(ProtocolViolationError, match=rule):
            await cell

    assert codes[-1] in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert queries.asked == []


async def test_parts_are_forgotten_with_their_cell() -> None:
    """What a cell has sent of a context is of no use to the next one, and is not kept for it."""
    async with attached() as pair:
        cell, cell_id = await start_cell(pair)
        await pair.worker.query([], cell_id=cell_id, change=part("c", 0, b"x"))
        await finish(pair, cell, cell_id)
        cell, cell_id = await start_cell(pair)
        call = pair.worker.query(
            ["?"], cell_id=cell_id, query_id="q2", change=as_child(context_id="c")
        )
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ProtocolViolationError, match="come before its query"):
            await cell


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
