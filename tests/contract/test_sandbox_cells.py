"""What a cell is in every `Sandbox`: the port's contract, held against each implementation."""

import asyncio
import time

import pytest
from support.broker_host import HangingQueries, until
from support.sandbox_implementations import (
    ASK,
    CELL_LIMITS,
    DRAFT,
    DRAFT_AND_WAIT,
    FAIL,
    FINAL,
    NOTHING,
    PATIENCE_S,
    PRINT,
    PRINT_AND_ASK,
    PRINT_MUCH,
    WAIT_FOR_EVER,
    Implementation,
    Output,
    opened,
    run,
)

from orchestrator.domain import Draft, Outcome, OutputStream, VariableState


async def test_names_persist(implementation: Implementation) -> None:
    """Names bound by one cell are visible to the next, whatever they hold."""
    async with opened(implementation) as sandbox:
        await run(sandbox, "import math\nhold = lambda: math.floor(41.5)")

        result = await run(sandbox, "print(hold() + 1)")

    assert str(result.stdout) == "42\n"


async def test_cells_are_numbered(implementation: Implementation) -> None:
    """Ids are positive and rise, over rejected cells as well."""
    async with opened(implementation, NOTHING, NOTHING) as sandbox:
        results = [await run(sandbox, source) for source in ("pass", "#" * 5000, "pass")]

    ids = [result.cell_id for result in results]
    assert ids == sorted(set(ids))
    assert ids[0] > 0


async def test_output_is_shown_and_returned(implementation: Implementation) -> None:
    """A sink is given every byte of each stream, in order; the result has the same as text."""
    seen = Output()
    async with opened(implementation, PRINT) as sandbox:
        result = await run(sandbox, PRINT, on_output=seen)

    assert seen.pieces == {OutputStream.STDOUT: b"seen\n", OutputStream.STDERR: b"heard\n"}
    assert (str(result.stdout), str(result.stderr)) == ("seen\n", "heard\n")


async def test_output_is_shown_while_the_cell_runs(implementation: Implementation) -> None:
    """What a cell has printed is seen before the cell ends."""
    queries, seen = HangingQueries(), Output()
    async with opened(implementation, PRINT_AND_ASK, queries=queries) as sandbox:
        running = asyncio.create_task(run(sandbox, PRINT_AND_ASK, on_output=seen))
        await until(lambda: bool(queries.asked) and bool(seen.pieces[OutputStream.STDOUT]))

        assert seen.pieces[OutputStream.STDOUT] == b"before\n"

        queries.release.set()
        await running
    assert seen.pieces[OutputStream.STDOUT] == b"before\nafter\n"


async def test_output_is_bounded(implementation: Implementation) -> None:
    """Of too much output both ends are kept, and its true length is told."""
    async with opened(implementation, PRINT_MUCH) as sandbox:
        result = await run(sandbox, PRINT_MUCH)

    assert result.stdout.total_bytes == 5000
    assert len(result.stdout.head) + len(result.stdout.tail) == CELL_LIMITS.output_bytes
    assert result.stdout.dropped_bytes == 5000 - CELL_LIMITS.output_bytes
    assert result.stdout.tail.endswith("a\n")


async def test_cell_that_raises_is_a_result(implementation: Implementation) -> None:
    """An exception ends its cell, not the call; what it was is told."""
    async with opened(implementation, FAIL, NOTHING) as sandbox:
        result = await run(sandbox, FAIL)
        after = await run(sandbox, NOTHING)

    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert result.error is not None
    assert (result.error.type_name, result.error.message) == ("ValueError", "no such thing")
    assert after.outcome is Outcome.SUCCEEDED


async def test_source_that_is_no_python_is_rejected(implementation: Implementation) -> None:
    """What cannot be compiled does not run, and says so."""
    async with opened(implementation) as sandbox:
        result = await run(sandbox, "print('never')\nif")

    assert (result.outcome, result.state) == (Outcome.REJECTED, VariableState.KEPT)
    assert result.error is not None
    assert result.error.type_name == "SyntaxError"
    assert str(result.stdout) == ""


@pytest.mark.parametrize("source", ["#" * (CELL_LIMITS.source_bytes + 1), "print('\ud800')"])
async def test_source_that_cannot_be_sent_is_rejected(
    implementation: Implementation, source: str
) -> None:
    """Too large a source, or one that is no text, is a result; the sandbox never hears of it."""
    async with opened(implementation, NOTHING) as sandbox:
        result = await run(sandbox, source)
        after = await run(sandbox, NOTHING)

    assert (result.outcome, result.state) == (Outcome.REJECTED, VariableState.KEPT)
    assert result.error is not None
    assert after.outcome is Outcome.SUCCEEDED


async def test_largest_source_is_run(implementation: Implementation) -> None:
    """A source of exactly the limit is not too large, so the refusal is not too early."""
    async with opened(implementation, NOTHING) as sandbox:
        result = await run(sandbox, "#" * CELL_LIMITS.source_bytes)

    assert result.outcome is Outcome.SUCCEEDED


async def test_cell_that_takes_too_long_times_out(implementation: Implementation) -> None:
    """A cell is stopped when its time is over; the next one runs."""
    async with opened(implementation, WAIT_FOR_EVER, NOTHING) as sandbox:
        started_s = time.monotonic()
        result = await run(sandbox, WAIT_FOR_EVER, timeout_s=0.3)
        took_s = time.monotonic() - started_s
        after = await run(sandbox, NOTHING)

    assert result.outcome is Outcome.TIMED_OUT
    assert result.error is not None
    assert result.error.type_name == "TimeoutError"
    assert str(result.stdout) == "in\n"
    assert 0.3 <= took_s < PATIENCE_S / 2
    assert after.outcome is Outcome.SUCCEEDED


async def test_interrupted_cell_keeps_its_names(implementation: Implementation) -> None:
    """A cell that hears the interrupt is not rolled back; one that does not is."""
    async with opened(implementation) as sandbox:
        heard = await run(sandbox, "name = 'heard'\nwhile True: pass", timeout_s=0.3)
        deaf = await run(
            sandbox,
            "import time\n"
            "name = 'deaf'\n"
            "while True:\n"
            "    try: time.sleep(60)\n"
            "    except KeyboardInterrupt: pass",
            timeout_s=0.3,
        )
        named = await run(sandbox, "print(name)")

    assert (heard.outcome, heard.state) == (Outcome.TIMED_OUT, VariableState.KEPT)
    assert (deaf.outcome, deaf.state) == (Outcome.TIMED_OUT, VariableState.ROLLED_BACK)
    assert str(named.stdout) == "heard\n"


async def test_death_of_the_interpreter_is_a_result(implementation: Implementation) -> None:
    """What ends the process that runs a cell ends the cell; variables are as before it."""
    async with opened(implementation) as sandbox:
        await run(sandbox, "name = 'before'")
        result = await run(sandbox, "name = 'after'\nimport os\nos.abort()")
        named = await run(sandbox, "print(name)")

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert result.error is not None
    assert "SIGABRT" in result.error.message
    assert str(named.stdout) == "before\n"


async def test_variables_are_described(implementation: Implementation) -> None:
    """Names, types and sizes of what cells bound are told; values are not."""
    async with opened(implementation) as sandbox:
        result = await run(sandbox, "words = ['a'] * 7")

    [words] = [variable for variable in result.variables if variable.name == "words"]
    assert (words.type_name, words.size) == ("list", 7)


async def test_answer_is_a_draft_until_it_is_final(implementation: Implementation) -> None:
    """A draft is told after each cell, and lasts; final is what a cell says is."""
    async with opened(implementation, DRAFT, NOTHING, FINAL) as sandbox:
        drafts = [(await run(sandbox, cell)).answer for cell in (DRAFT, NOTHING, FINAL)]

    so_far = Draft(content="so far")
    assert drafts == [so_far, so_far, Draft(content="at last", is_ready=True)]


async def test_query_is_answered_by_the_handler(implementation: Implementation) -> None:
    """What a cell asks reaches the handler of its own sandbox, and the answer the cell."""
    async with opened(implementation, ASK) as sandbox:
        result = await run(sandbox, ASK)

    assert str(result.stdout) == "echo: any?\n"
    assert result.usage.query_count == 1


async def test_time_of_an_open_query_does_not_count(implementation: Implementation) -> None:
    """A cell that waits for an answer longer than it may run is not stopped for it.

    Its control is the cell that takes too long without a query.
    """
    queries, timeout_s = HangingQueries(), 0.3
    async with opened(implementation, ASK, queries=queries) as sandbox:
        running = asyncio.create_task(run(sandbox, ASK, timeout_s=timeout_s))
        await until(lambda: bool(queries.asked))
        asked_s = time.monotonic()
        await until(lambda: time.monotonic() - asked_s > 3 * timeout_s)
        queries.release.set()

        result = await running

    assert result.outcome is Outcome.SUCCEEDED


async def test_calls_must_not_overlap(implementation: Implementation) -> None:
    """A second call while a cell runs is the caller's mistake, and does not disturb the cell."""
    queries = HangingQueries()
    async with opened(implementation, ASK, NOTHING, queries=queries) as sandbox:
        running = asyncio.create_task(run(sandbox, ASK))
        await until(lambda: bool(queries.asked))

        with pytest.raises(RuntimeError, match="must not overlap"):
            await run(sandbox, NOTHING)

        queries.release.set()
        assert (await running).outcome is Outcome.SUCCEEDED
        assert (await run(sandbox, NOTHING)).outcome is Outcome.SUCCEEDED


async def test_cancelled_call_stops_its_cell_and_waits(implementation: Implementation) -> None:
    """Once a cancelled call has returned, its cell has ended and the sandbox is free."""
    seen = Output()
    async with opened(implementation, WAIT_FOR_EVER, NOTHING) as sandbox:
        running = asyncio.create_task(run(sandbox, WAIT_FOR_EVER, on_output=seen))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))

        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert (await run(sandbox, NOTHING)).outcome is Outcome.SUCCEEDED


async def test_cell_that_is_stopped_keeps_its_draft(implementation: Implementation) -> None:
    """Who has had enough of a cell gets what came of it until then, and the sandbox goes on."""
    seen = Output()
    async with opened(implementation, DRAFT_AND_WAIT, NOTHING) as sandbox:
        running = asyncio.create_task(run(sandbox, DRAFT_AND_WAIT, on_output=seen))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))
        sandbox.stop_cell()
        stopped = await running
        sandbox.stop_cell()  # there is none, and nothing happens
        after = await run(sandbox, NOTHING)

    assert (stopped.outcome, stopped.state) == (Outcome.STOPPED, VariableState.KEPT)
    assert stopped.answer == after.answer == Draft(content="so far")
    assert after.outcome is Outcome.SUCCEEDED


async def test_stopped_cell_does_not_wait_for_its_queries(implementation: Implementation) -> None:
    """A query that is open when its cell is stopped is cancelled, at the host too."""
    queries = HangingQueries()
    async with opened(implementation, ASK, NOTHING, queries=queries) as sandbox:
        running = asyncio.create_task(run(sandbox, ASK))
        await until(lambda: bool(queries.asked))
        sandbox.stop_cell()
        stopped = await running
        after = await run(sandbox, NOTHING)

    assert stopped.outcome is Outcome.STOPPED
    assert len(queries.cancelled) == 1
    assert after.outcome is Outcome.SUCCEEDED


async def test_cancelled_call_cancels_its_queries(implementation: Implementation) -> None:
    """What a stopped cell had asked is not answered any more: nobody pays for it."""
    queries = HangingQueries()
    async with opened(implementation, ASK, NOTHING, queries=queries) as sandbox:
        running = asyncio.create_task(run(sandbox, ASK))
        await until(lambda: bool(queries.asked))

        running.cancel()
        await asyncio.wait({running})

        assert queries.cancelled == queries.asked
        assert (await run(sandbox, NOTHING)).outcome is Outcome.SUCCEEDED
