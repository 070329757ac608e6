from __future__ import annotations

import asyncio
import contextlib
import stat

import grpc
import psutil
import pytest
from support.broker_host import PATIENCE_S, HangingQueries, attached, until
from support.scripted_worker import HungUpError, output

from orchestrator.broker.context_place import CONTEXT_NAME
from orchestrator.context import encode_context
from orchestrator.domain import Outcome, OutputStream, VariableState
from orchestrator.errors import ProtocolViolationError, SandboxError, SandboxLostError
from orchestrator.limits import CellLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

pytestmark = pytest.mark.usefixtures("broker_home")

SHORT = CellLimits(grace_s=0.05)


async def test_cell_yields_what_the_worker_says() -> None:
    """Output, error, answer, variables and usage of a cell reach the caller as they were said."""
    pieces: list[tuple[OutputStream, bytes]] = []
    async with attached() as pair:
        cell = asyncio.create_task(
            pair.attachment.run_cell(
                "1/0", timeout_s=5, on_output=lambda stream, data: pieces.append((stream, data))
            )
        )
        told = (await pair.worker.hear()).run_cell
        await pair.worker.say(cell_output=output(told.cell_id, b"half "))
        await pair.worker.say(cell_output=output(told.cell_id, b"done", offset_bytes=5))
        await pair.worker.finish(
            told.cell_id,
            outcome=pb.OUTCOME_RAISED,
            error=pb.CellError(type_name="ZeroDivisionError", message="division by zero"),
            answer=pb.Answer(content="42", is_ready=True),
            variables=[pb.Variable(name="x", type_name="list", size=3)],
            usage=pb.CellUsage(peak_memory_bytes=7),
        )
        result = await cell

    assert (told.source, told.timeout.ToMilliseconds()) == ("1/0", 5000)
    assert pieces == [(OutputStream.STDOUT, b"half "), (OutputStream.STDOUT, b"done")]
    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert str(result.stdout) == "half done"
    assert result.error is not None
    assert result.error.type_name == "ZeroDivisionError"
    assert (result.answer.content, result.answer.is_ready) == ("42", True)
    assert [(v.name, v.type_name, v.size) for v in result.variables] == [("x", "list", 3)]
    assert result.usage.peak_memory_bytes == 7


async def test_cells_follow_each_other_with_growing_ids() -> None:
    """A sandbox runs one cell after another, and no id comes twice."""
    async with attached() as pair:
        told = []
        for _ in range(3):
            cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=5))
            told.append(await pair.worker.hear_cell())
            await pair.worker.finish(told[-1])
            assert (await cell).cell_id == told[-1]

    assert told == sorted(set(told))


async def test_calls_must_not_overlap() -> None:
    """A second call while a cell runs is the caller's mistake, and does not disturb the cell."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=5))
        cell_id = await pair.worker.hear_cell()
        with pytest.raises(RuntimeError, match="overlap"):
            await pair.attachment.run_cell("pass", timeout_s=5)
        with pytest.raises(RuntimeError, match="overlap"):
            await pair.attachment.bind_context("context", encode_context("x"))
        await pair.worker.finish(cell_id)

        assert (await cell).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("source", "words"),
    [("x = 1\n" * 100, "600 bytes of source; a cell takes 512"), ("'\ud800'", "surrogate")],
)
async def test_unsendable_source_is_rejected_unsent(source: str, words: str) -> None:
    """A source that is too large or no text is a result, and the worker never hears of it."""
    async with attached(cell_limits=CellLimits(source_bytes=512)) as pair:
        rejected = await pair.attachment.run_cell(source, timeout_s=5)
        cell = asyncio.create_task(pair.attachment.run_cell("the control", timeout_s=5))
        heard = (await pair.worker.hear()).run_cell
        await pair.worker.finish(heard.cell_id)
        await cell

    assert rejected.outcome is Outcome.REJECTED
    assert rejected.error is not None
    assert words in rejected.error.message
    assert heard.source == "the control"


async def test_cell_over_its_time_is_stopped() -> None:
    """When a cell's clock runs out the worker is told to stop it, and its result is the result."""
    async with attached(cell_limits=SHORT) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("while 1: 1", timeout_s=0.05))
        cell_id = await pair.worker.hear_cell()
        stop = (await pair.worker.hear()).stop_cell
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_TIMED_OUT)
        result = await cell

    assert (stop.cell_id, stop.reason) == (cell_id, pb.STOP_REASON_TIMEOUT)
    assert result.outcome is Outcome.TIMED_OUT


async def test_worker_that_ignores_a_stop_is_lost() -> None:
    """A worker that sends no result after a stop, in a bounded time, is no longer waited for."""
    async with attached(cell_limits=SHORT, stop_margin_s=0.1) as pair:
        with pytest.raises(SandboxLostError, match="stopped answering"):
            await pair.attachment.run_cell("while 1: 1", timeout_s=0.05)
        async with asyncio.timeout(PATIENCE_S):
            await pair.attachment.wait_for_end()
        with pytest.raises(SandboxLostError, match="stopped answering"):
            await pair.attachment.run_cell("pass", timeout_s=5)

        assert (await pair.worker.status())[0] is grpc.StatusCode.OK


async def test_time_of_open_queries_does_not_count() -> None:
    """A cell whose query takes longer than the cell may run is not stopped for it."""
    queries = HangingQueries()
    async with attached(queries=queries, cell_limits=SHORT) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("llm_query('?')", timeout_s=0.3))
        cell_id = await pair.worker.hear_cell()
        query = pair.worker.query(["?"], cell_id=cell_id)
        await until(lambda: bool(queries.asked))
        await asyncio.wait({cell}, timeout=0.6)
        queries.release.set()
        assert (await query).answers[0].text == "?"
        # The control: once the query is answered the clock goes on, and runs out.
        stop = (await pair.worker.hear()).stop_cell
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_TIMED_OUT)
        await cell

    assert stop.reason == pb.STOP_REASON_TIMEOUT


async def test_cancelled_caller_stops_the_cell_and_waits() -> None:
    """Cancelling a call stops the cell, waits for its end, and leaves a usable sandbox."""
    async with attached(cell_limits=SHORT) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("while 1: 1", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        cell.cancel()
        stop = (await pair.worker.hear()).stop_cell
        cell.cancel()  # an impatient caller changes nothing
        assert not cell.done()
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_STOPPED)
        with pytest.raises(asyncio.CancelledError):
            await cell
        following = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=5))
        await pair.worker.finish(await pair.worker.hear_cell())
        result = await following

    assert (stop.cell_id, stop.reason) == (cell_id, pb.STOP_REASON_CANCELLED)
    assert result.outcome is Outcome.SUCCEEDED


async def test_cancelling_at_once_leaves_a_usable_sandbox() -> None:
    """A call cancelled before its message has left the host still stops what it started."""
    async with attached(cell_limits=SHORT) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("while 1: 1", timeout_s=60))
        await asyncio.sleep(0)
        cell.cancel()
        cell_id = await pair.worker.hear_cell()
        assert (await pair.worker.hear()).stop_cell.cell_id == cell_id
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_STOPPED)
        with pytest.raises(asyncio.CancelledError):
            await cell


async def test_error_of_the_callers_sink_reaches_the_caller() -> None:
    """A sink that raises ends the caller's call, not the sandbox."""

    def sink(_stream: OutputStream, _data: bytes) -> None:
        raise KeyError("the sink's own")

    async with attached(cell_limits=SHORT) as pair:
        cell = asyncio.create_task(
            pair.attachment.run_cell("print(1)", timeout_s=60, on_output=sink)
        )
        cell_id = await pair.worker.hear_cell()
        await pair.worker.say(cell_output=output(cell_id, b"1\n"))
        assert (await pair.worker.hear()).stop_cell.cell_id == cell_id
        await pair.worker.finish(cell_id, outcome=pb.OUTCOME_STOPPED)
        with pytest.raises(KeyError, match="the sink's own"):
            await cell
        following = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=5))
        await pair.worker.finish(await pair.worker.hear_cell())

        assert (await following).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("how", ["cancels", "closes"])
async def test_stream_that_dies_in_mid_cell_is_a_lost_sandbox(how: str) -> None:
    """A worker that goes away while a cell runs ends the call with an error, at once."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("os._exit(1)", timeout_s=60))
        await pair.worker.hear_cell()
        if how == "cancels":
            pair.worker.call.cancel()
        else:
            await pair.worker.call.done_writing()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(SandboxLostError, match="broke off"):
                await cell
            await pair.attachment.wait_for_end()


async def test_message_over_the_cap_is_an_attack() -> None:
    """A message over 4 MiB is never taken: whoever sends one has broken the contract."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        with contextlib.suppress(HungUpError):
            await pair.worker.finish(cell_id, answer=pb.Answer(content="x" * (4 * 2**20)))
        with pytest.raises(ProtocolViolationError, match="at most 4,194,304 bytes, this one"):
            await cell

        assert (await pair.worker.status())[0] is not grpc.StatusCode.OK


async def test_large_context_lies_beside_the_socket() -> None:
    """40 MB are a file that nobody can write, for as long as the worker has not opened it."""
    context = encode_context("0123456789abcdef" * (40 * 2**20 // 16))
    async with attached() as pair:
        place = pair.endpoint.socket_directory / CONTEXT_NAME
        for name in ("context", "context_1"):
            binding = asyncio.create_task(pair.attachment.bind_context(name, context))
            await until(lambda: place.exists() and place.stat().st_size == len(context.data))
            assert stat.filemode(place.stat().st_mode) == "-r--r--r--"
            assert not binding.done()
            opened_name, data = await pair.worker.open_context()
            await binding
            assert (opened_name, data == context.data, place.exists()) == (name, True, False)

        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=5))
        await pair.worker.finish(await pair.worker.hear_cell())
        assert (await cell).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("how", ["occupied", "linked"])
async def test_large_context_that_cannot_lie_there_goes_in_pieces(how: str) -> None:
    """Where the file cannot be made, 40 MB cross in pieces of one MiB with the digest they had.

    A link in its place is not followed.
    """
    context = encode_context("0123456789abcdef" * (40 * 2**20 // 16))
    async with attached() as pair:
        place = pair.endpoint.socket_directory / CONTEXT_NAME
        target = pair.endpoint.socket_directory.parent / "target"
        if how == "occupied":
            place.touch()
        else:
            place.symlink_to(target)
        binding = asyncio.create_task(pair.attachment.bind_context("context", context))
        name, count, data = await pair.worker.hear_context()
        await binding

        assert not target.exists()

    assert (name, count, data == context.data) == ("context", 40, True)


async def test_context_that_nobody_opens_ends_the_sandbox_when_cancelled() -> None:
    """A call that is cancelled leaves no file, and no sandbox of which nobody knows what it has."""
    async with attached() as pair:
        context = encode_context("x" * (4 * 2**20))
        binding = asyncio.create_task(pair.attachment.bind_context("context", context))
        assert (await pair.worker.hear()).context_file.total_bytes == 4 * 2**20
        binding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await binding
        assert not (pair.endpoint.socket_directory / CONTEXT_NAME).exists()
        with pytest.raises(SandboxLostError, match="cancelled in the middle"):
            await pair.attachment.run_cell("pass", timeout_s=5)


async def test_context_is_removed_with_its_sandbox() -> None:
    """A sandbox that is closed while a context lies there leaves no file and no directory."""
    async with attached() as pair:
        context = encode_context("x" * (4 * 2**20))
        binding = asyncio.create_task(pair.attachment.bind_context("context", context))
        await pair.worker.hear()
        await pair.endpoint.close()
        with pytest.raises(SandboxError, match="has been closed"):
            await binding
        assert not (pair.endpoint.socket_directory / CONTEXT_NAME).exists()

    assert not pair.endpoint.socket_directory.exists()


async def test_empty_context_is_one_piece() -> None:
    """An empty context is one chunk without data."""
    async with attached() as pair:
        await pair.attachment.bind_context("context", encode_context(""))

        assert await pair.worker.hear_context() == ("context", 1, b"")


async def test_context_waits_for_the_worker() -> None:
    """A worker that does not read makes the host wait, not fill its memory."""
    context = encode_context("x" * (64 * 2**20))
    async with attached() as pair:
        (pair.endpoint.socket_directory / CONTEXT_NAME).touch()  # so that it goes in pieces
        before_bytes = psutil.Process().memory_info().rss
        binding = asyncio.create_task(pair.attachment.bind_context("context", context))
        await asyncio.wait({binding}, timeout=0.5)
        assert not binding.done()
        growth_bytes = psutil.Process().memory_info().rss - before_bytes
        binding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await binding
        with pytest.raises(SandboxLostError, match="cancelled in the middle"):
            await pair.attachment.run_cell("pass", timeout_s=5)

    assert growth_bytes < 32 * 2**20


async def test_long_output_keeps_both_ends() -> None:
    """What a worker left out is stated by its true length, between a head and a tail."""
    async with attached(cell_limits=CellLimits(output_bytes=16)) as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("print(…)", timeout_s=60))
        cell_id = await pair.worker.hear_cell()
        await pair.worker.say(cell_output=output(cell_id, b"a" * 8))
        await pair.worker.say(cell_output=output(cell_id, b"z" * 8, offset_bytes=1_000_000))
        await pair.worker.finish(cell_id, dropped_stdout_bytes=999_992)
        printed = (await cell).stdout

    assert (printed.head, printed.tail) == ("a" * 8, "z" * 8)
    assert (printed.total_bytes, printed.dropped_bytes) == (1_000_008, 999_992)


async def test_everything_is_gone_afterwards() -> None:
    """Leaving an endpoint says goodbye to the worker and leaves nothing behind on the host."""
    async with attached() as pair:
        directory = pair.endpoint.socket_directory
        worker = pair.worker
        assert [path.name for path in directory.iterdir()] == ["broker.sock"]
        leaving = asyncio.create_task(pair.endpoint.close())
        assert (await worker.hear()).WhichOneof("payload") == "shutdown"
        assert (await worker.status())[0] is grpc.StatusCode.OK
        await leaving

        assert not directory.exists()
