"""Every implementation of a sandbox, and cells that each of them can run.

A cell is written twice: as the source that a sandbox runs, and as what the engine's fake does in
its place, which runs functions of a test. So one suite can be held against all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import LIMITS, open_provider
from support.fake_sandbox import CellRun, FakeCell, FakeProvider, FakeSandbox
from support.process_sandbox import open_process_provider
from support.runtimes import GVISOR, tested_under

from orchestrator.controls import BrokerIsolation
from orchestrator.domain import CellResult, LanguagePolicy, OutputStream
from orchestrator.errors import SandboxLostError, SandboxStartError
from orchestrator.limits import CellLimits, PoolLimits, SandboxLimits
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


async def _draft_and_wait(run: CellRun) -> None:
    run.draft("so far")
    run.print("in")
    await asyncio.Event().wait()


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
DRAFT_AND_WAIT = Cell(
    source="answer['content'] = 'so far'\nprint('in')\nwhile True: pass", fake=_draft_and_wait
)
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
async def open_gvisor(
    *cells: Cell, limits: SandboxLimits = LIMITS
) -> AsyncIterator[SandboxProvider]:
    with tested_under(GVISOR):
        async with open_docker(*cells, limits=limits) as provider:
            yield provider


@asynccontextmanager
async def open_process(
    *_cells: Cell,
    limits: SandboxLimits = LIMITS,
    broker: BrokerIsolation = BrokerIsolation.IN_PROCESS,
    pool: PoolLimits | None = None,
) -> AsyncIterator[SandboxProvider]:
    async with open_process_provider(
        sandbox=limits, cell=CELL_LIMITS, policy=LanguagePolicy.OPEN, broker=broker, pool=pool
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
    pytest.param(
        Implementation(name="gvisor", open=open_gvisor),
        marks=[pytest.mark.docker, pytest.mark.gvisor],
        id="gvisor",
    ),
    pytest.param(Implementation(name="process", open=open_process), id="process"),
    pytest.param(
        Implementation(
            name="process with its broker in another",
            open=partial(open_process, broker=BrokerIsolation.OWN_PROCESS),
        ),
        id="process_apart",
    ),
    pytest.param(
        # A size of one: each sandbox is more than the test asks for.
        Implementation(
            name="process out of a pool", open=partial(open_process, pool=PoolLimits(size=1))
        ),
        id="process_pooled",
    ),
    pytest.param(
        Implementation(
            name="fake",
            open=open_fake,
            lacks={
                "test_names_persist": _NO_PYTHON,
                "test_interrupted_cell_keeps_its_names": _NO_PYTHON,
                "test_context_is_bound_as_its_value": _NO_PYTHON,
                "test_context_is_bound_again": _NO_PYTHON,
                "test_long_context_is_bound_as_its_value": _NO_PYTHON,
                "test_source_that_is_no_python_is_rejected": _NO_PYTHON,
                "test_death_of_the_interpreter_is_a_result": _GIVEN,
                "test_variables_are_described": _GIVEN,
                "test_kinds_of_child_contexts": _NO_PYTHON,
                "test_schema_goes_with_the_prompt_and_the_answer_is_parsed": _NO_PYTHON,
                "test_answer_that_never_fits_its_form_is_an_error": _NO_PYTHON,
                "test_notice_is_printed_beside_the_answer": _NO_PYTHON,
                "test_failure_of_a_tool_is_an_error_of_the_cell": _NO_PYTHON,
                "test_budget_is_asked_of_the_host": _NO_PYTHON,
                "test_tools_are_those_of_the_run": _NO_PYTHON,
                "test_context_has_as_many_names_as_it_is_given": _NO_PYTHON,
            },
        ),
        id="fake",
    ),
)


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
