"""What every `Sandbox` and `SandboxProvider` does: the ports' contract, held against each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from support.broker_host import EchoQueries, HangingQueries, until
from support.docker_sandboxes import LIMITS, open_provider
from support.fake_sandbox import CellRun, FakeCell, FakeProvider, FakeSandbox
from support.process_sandbox import open_process_provider

from orchestrator.context import encode_context
from orchestrator.domain import (
    CellLimits,
    CellResult,
    Context,
    Draft,
    EncodedContext,
    LanguagePolicy,
    Outcome,
    OutputStream,
    SandboxLimits,
    VariableState,
)
from orchestrator.errors import SandboxLostError, SandboxStartError
from orchestrator.ports import QueryHandler, Sandbox, SandboxProvider
from orchestrator.sandbox.launcher import LaunchedSandbox

CELL_LIMITS = CellLimits(grace_s=1.0, source_bytes=4096, output_bytes=1024)
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell, as the source that a sandbox runs, and as what the fake does in its place."""

    source: str
    fake: FakeCell


async def _nothing(_run: CellRun) -> None:
    """Ends at once."""


async def _print_both(run: CellRun) -> None:
    run.print("seen")
    run.print("heard", stream=OutputStream.STDERR)


async def _print_and_ask(run: CellRun) -> None:
    run.print("before")
    await run.ask("any?")
    run.print("after")


async def _print_much(run: CellRun) -> None:
    run.print("a" * 4999)


async def _fail(_run: CellRun) -> None:
    raise ValueError("no such thing")


async def _wait_for_ever(run: CellRun) -> None:
    run.print("in")
    await asyncio.Event().wait()


async def _ask(run: CellRun) -> None:
    [answer] = await run.ask("any?")
    run.print(str(answer))


async def _draft(run: CellRun) -> None:
    run.draft("so far")


async def _final(run: CellRun) -> None:
    run.final("at last")


async def _die(run: CellRun) -> None:
    run.print("in")
    await asyncio.sleep(0.05)
    raise SandboxLostError("killed by the test")


NOTHING = Cell(source="pass", fake=_nothing)
PRINT = Cell(source="import sys\nprint('seen')\nprint('heard', file=sys.stderr)", fake=_print_both)
PRINT_AND_ASK = Cell(
    source="print('before')\nllm_query('any?')\nprint('after')", fake=_print_and_ask
)
PRINT_MUCH = Cell(source="print('a' * 4999)", fake=_print_much)
FAIL = Cell(source="raise ValueError('no such thing')", fake=_fail)
WAIT_FOR_EVER = Cell(source="print('in')\nwhile True: pass", fake=_wait_for_ever)
ASK = Cell(source="print(llm_query('any?'))", fake=_ask)
DRAFT = Cell(source="answer['content'] = 'so far'", fake=_draft)
FINAL = Cell(source="FINAL('at last')", fake=_final)
DIE = Cell(source="print('in')\nimport time\ntime.sleep(60)", fake=_die)


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """One implementation of both ports.

    Attributes:
        open: Opens a provider whose sandboxes are about to run the cells it is given.
        lacks: What it does not do, by the name of the test that would show it, with the reason.
    """

    name: str
    open: Callable[..., AbstractAsyncContextManager[SandboxProvider]]
    lacks: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def open_docker(
    *_cells: Cell, limits: SandboxLimits = LIMITS
) -> AsyncIterator[SandboxProvider]:
    async with open_provider(sandbox=limits, cell=CELL_LIMITS) as provider:
        yield provider


@asynccontextmanager
async def open_process(
    *_cells: Cell, limits: SandboxLimits = LIMITS
) -> AsyncIterator[SandboxProvider]:
    async with open_process_provider(
        sandbox=limits, cell=CELL_LIMITS, policy=LanguagePolicy.OPEN
    ) as provider:
        yield provider


@asynccontextmanager
async def open_fake(*cells: Cell, limits: SandboxLimits = LIMITS) -> AsyncIterator[SandboxProvider]:
    # It starts nothing that could take its time, so no start takes too long.
    is_impatient = limits.start_s < LIMITS.start_s
    yield FakeProvider(
        *(cell.fake for cell in cells),
        limits=CELL_LIMITS,
        start_error=SandboxStartError("too slow") if is_impatient else None,
    )


_NO_PYTHON = "it runs functions of a test, and no Python"
_GIVEN = "a result like this is handed to it, finished, by the test that wants it"
IMPLEMENTATIONS = (
    pytest.param(
        Implementation(name="docker", open=open_docker), marks=pytest.mark.docker, id="docker"
    ),
    pytest.param(Implementation(name="process", open=open_process), id="process"),
    pytest.param(
        Implementation(
            name="fake",
            open=open_fake,
            lacks={
                "test_names_persist": _NO_PYTHON,
                "test_interrupted_cell_keeps_its_names": _NO_PYTHON,
                "test_context_is_bound_as_its_value": _NO_PYTHON,
                "test_context_is_bound_again": _NO_PYTHON,
                "test_source_that_is_no_python_is_rejected": _NO_PYTHON,
                "test_death_of_the_interpreter_is_a_result": _GIVEN,
                "test_variables_are_described": _GIVEN,
            },
        ),
        id="fake",
    ),
)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    chosen: Implementation = request.param
    reason = chosen.lacks.get(request.function.__name__)
    if reason is not None:
        pytest.skip(f"{chosen.name}: {reason}")
    return chosen


@asynccontextmanager
async def opened(
    implementation: Implementation, *cells: Cell, queries: QueryHandler | None = None
) -> AsyncIterator[Sandbox]:
    """Yields one sandbox that is about to run `cells`."""
    async with (
        implementation.open(*cells) as provider,
        provider.open(queries or EchoQueries()) as sandbox,
    ):
        yield sandbox


async def run(
    sandbox: Sandbox,
    cell: Cell | str,
    *,
    timeout_s: float = PATIENCE_S,
    on_output: Callable[[OutputStream, bytes], None] | None = None,
) -> CellResult:
    source = cell if isinstance(cell, str) else cell.source
    return await sandbox.run_cell(source, timeout_s=timeout_s, on_output=on_output)


async def kill(sandbox: Sandbox) -> None:
    """Ends the container from outside, as a host that is short of memory would."""
    if isinstance(sandbox, LaunchedSandbox):
        await sandbox.container.destroy()
    else:
        assert isinstance(sandbox, FakeSandbox)  # its cell `DIE` does it


class Output:
    """Keeps what a sink is given."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.pieces: dict[OutputStream, bytes] = dict.fromkeys(OutputStream, b"")

    def __call__(self, stream: OutputStream, data: bytes) -> None:
        """Keeps a piece."""
        self.pieces[stream] += data


async def test_sandbox_says_what_it_is(implementation: Implementation) -> None:
    """Logs and labels name a sandbox, its image by digest, and what runs it."""
    async with (
        implementation.open(NOTHING) as provider,
        provider.open(EchoQueries()) as first,
        provider.open(EchoQueries()) as second,
    ):
        assert first.sandbox_id != second.sandbox_id
        assert first.image_id == second.image_id
        assert first.image_id.startswith("sha256:")
        assert first.runtime


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


CONTEXTS: dict[str, Context] = {
    "text": "naïve 🙂 \x00 text\r\n" * 100,
    "empty text": "",
    "documents": ["one", "", "three 🙂"],
    "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
    "list": [1, 2.5, None, True, {"deep": [["x"]]}],
    "dict": {"a": 1, "naïve": ["b"], "": None},
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
async def test_context_is_bound_as_its_value(
    implementation: Implementation, context: Context
) -> None:
    """Each kind of context is in the cell what it was for the caller, under the name given."""
    async with opened(implementation) as sandbox:
        await sandbox.bind_context("context", encode_context(context))
        await sandbox.bind_context("context_1", encode_context("another"))

        result = await run(sandbox, f"print(context == {context!r}, context_1)")

    assert str(result.stdout) == "True another\n"


async def test_context_is_bound_again(implementation: Implementation) -> None:
    """A name that is bound again has the new value, and a cell cannot spoil it for the next."""
    async with opened(implementation) as sandbox:
        for text in ("old", "new"):
            await sandbox.bind_context("context", encode_context(text))
        await run(sandbox, "context = None")

        result = await run(sandbox, "print(context)")

    assert str(result.stdout) == "new\n"


def small_context() -> EncodedContext:
    return encode_context("text")


async def test_death_of_the_container_loses_the_sandbox(implementation: Implementation) -> None:
    """A cell whose container dies ends with an error, and so does every call after it."""
    seen = Output()
    async with opened(implementation, DIE) as sandbox:
        running = asyncio.create_task(run(sandbox, DIE, on_output=seen))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))
        await kill(sandbox)

        with pytest.raises(SandboxLostError):
            await running
        with pytest.raises(SandboxLostError):
            await run(sandbox, NOTHING)
        with pytest.raises(SandboxLostError):
            await sandbox.bind_context("context", small_context())


async def test_left_sandbox_is_destroyed(implementation: Implementation) -> None:
    """Leaving the context is the end of the sandbox, also when an error leaves it."""
    async with implementation.open() as provider:
        with pytest.raises(KeyError):
            async with provider.open(EchoQueries()) as sandbox:
                raise KeyError
        with pytest.raises(SandboxLostError):
            await run(sandbox, NOTHING)


async def test_cancelled_session_destroys_its_sandbox(implementation: Implementation) -> None:
    """A session that is cancelled while its cell runs leaves no sandbox behind."""
    kept: list[Sandbox] = []
    seen = Output()

    async def session(provider: SandboxProvider) -> None:
        async with provider.open(EchoQueries()) as sandbox:
            kept.append(sandbox)
            await run(sandbox, WAIT_FOR_EVER, on_output=seen)

    async with implementation.open(WAIT_FOR_EVER) as provider:
        running = asyncio.create_task(session(provider))
        await until(lambda: bool(seen.pieces[OutputStream.STDOUT]))
        running.cancel()
        await asyncio.wait({running})

        assert running.cancelled()
        with pytest.raises(SandboxLostError):
            await run(kept[0], NOTHING)


async def test_sandboxes_of_one_provider_are_apart(implementation: Implementation) -> None:
    """Two at a time do not know of each other, and the end of one is not the other's."""
    async with (
        implementation.open(NOTHING, NOTHING) as provider,
        provider.open(EchoQueries()) as first,
    ):
        async with provider.open(EchoQueries()) as second:
            both = await asyncio.gather(run(first, NOTHING), run(second, NOTHING))
        after = await run(first, NOTHING)

    assert {result.outcome for result in (*both, after)} == {Outcome.SUCCEEDED}


async def test_sandbox_that_cannot_be_had_is_an_error_on_entering(
    implementation: Implementation,
) -> None:
    """A start that takes longer than it may is a failed start, and nothing of it is left."""
    hasty = SandboxLimits(memory_bytes=LIMITS.memory_bytes, start_s=0.001)
    async with implementation.open(limits=hasty) as provider:
        with pytest.raises(SandboxStartError):
            async with provider.open(EchoQueries()):
                pytest.fail("it started")
