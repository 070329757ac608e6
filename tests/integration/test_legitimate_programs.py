"""What models honestly write, as the product runs it.

One sandbox runs them all, so a program also must not spoil the session for the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.cell_corpus import Program, programs_in
from support.docker_sandboxes import open_provider
from support.programs import ProgramRunner
from support.sub_model import ScriptedQueries

from orchestrator.domain import CellLimits, LanguagePolicy, SandboxLimits

_PROGRAMS = [*programs_in("legitimate"), *programs_in("legitimate_python312")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner() -> AsyncIterator[ProgramRunner]:
    """A sandbox as the product makes them: every wall, every limit, the default policy."""
    async with (
        open_provider(
            sandbox=SandboxLimits(), cell=CellLimits(), policy=LanguagePolicy.GUARDED
        ) as provider,
        provider.open(ScriptedQueries()) as opened,
    ):
        yield ProgramRunner(opened)


@pytest.mark.docker
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program.name)
async def test_program_runs_in_a_sandbox(program: Program, runner: ProgramRunner) -> None:
    """An honest program does what it says under the unmodified default."""
    await runner.run(program)
