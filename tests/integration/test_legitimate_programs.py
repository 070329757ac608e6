"""What models honestly write, as the product runs it.

One sandbox runs them all, so a program also must not spoil the session for the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.cell_corpus import Program, ProgramCell, programs_in
from support.docker_sandboxes import open_provider
from support.programs import ProgramRunner
from support.runtimes import RuntimeUnderTest
from support.sub_model import ScriptedQueries

from orchestrator.domain import LanguagePolicy
from orchestrator.limits import CellLimits, SandboxLimits

pytestmark = [
    pytest.mark.docker,
    pytest.mark.both_runtimes,
    pytest.mark.asyncio(loop_scope="module"),
]

_PROGRAMS = [*programs_in("legitimate"), *programs_in("legitimate_python312")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner(runtime: RuntimeUnderTest) -> AsyncIterator[ProgramRunner]:
    """A sandbox as the product makes them: every wall, every limit, the default policy."""
    del runtime  # another one, another sandbox: that is all that is asked of it here
    async with (
        open_provider(
            sandbox=SandboxLimits(), cell=CellLimits(), policy=LanguagePolicy.GUARDED
        ) as provider,
        provider.open(ScriptedQueries()) as opened,
    ):
        yield ProgramRunner(opened)


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program.name)
async def test_program_runs_in_a_sandbox(program: Program, runner: ProgramRunner) -> None:
    """An honest program does what it says under the unmodified default."""
    await runner.run(program)


@pytest.mark.parametrize(
    ("source", "ending", "came"),
    [
        ("assert 1 > 2", "", "AssertionError"),
        ("import socket", "", "rejected"),
        ("1", "final 1", "succeeded"),
    ],
)
async def test_failing_program_control(
    source: str, ending: str, came: str, runner: ProgramRunner
) -> None:
    """A program that does not do what it says fails the run, so that passing means something."""
    cell = ProgramCell(source=source, ending=ending)
    program = Program(name="wrong", context="text", cells=(cell,))

    with pytest.raises(AssertionError, match=came):
        await runner.run(program)
