from __future__ import annotations

import ast
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.cell_corpus import Program, programs_in
from support.process_sandbox import open_process_provider
from support.programs import ProgramRunner
from support.sub_model import ScriptedQueries

from orchestrator.domain import LanguagePolicy
from orchestrator.limits import CellLimits, SandboxLimits
from sandbox_image.repl.language import compile_cell
from sandbox_image.repl.language_policy import GuardedPolicy

_PROGRAMS = programs_in("legitimate")
if sys.version_info >= (3, 12):  # the container's Python; the host's may be older
    _PROGRAMS += programs_in("legitimate_python312")

for_each_program = pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[ProgramRunner]:
    """The real worker and REPL process without a container."""
    async with (
        open_process_provider(
            sandbox=SandboxLimits(), cell=CellLimits(), policy=LanguagePolicy.GUARDED
        ) as provider,
        provider.open(ScriptedQueries()) as opened,
    ):
        yield ProgramRunner(opened)


@for_each_program
def test_program_is_accepted(program: Program) -> None:
    """The policy refuses nothing of what models honestly write."""
    for source in program.accepted_sources:
        compile_cell(source, policy="guarded", filename="<cell 1>")


@pytest.mark.asyncio(loop_scope="module")
@for_each_program
async def test_program_runs(program: Program, worker: ProgramRunner) -> None:
    """It does what it says; in a sandbox it is run by tests/integration."""
    await worker.run(program)


@for_each_program
def test_program_is_not_rewritten(program: Program) -> None:
    """The policy only reads: the tree that is compiled is the tree that was parsed."""
    for source in program.accepted_sources:
        tree = ast.parse(source)
        before = ast.dump(tree, include_attributes=True)

        GuardedPolicy(frozenset()).refusals_in(tree)

        assert ast.dump(tree, include_attributes=True) == before


def test_the_corpus_is_there() -> None:
    """The tests above cannot pass by finding nothing to run, and no program is there twice."""
    assert len(programs_in("legitimate")) >= 300
    assert len(programs_in("legitimate_python312")) >= 10
    texts = [
        cell.source for program in _PROGRAMS for cell in program.cells if len(cell.source) > 99
    ]
    assert len(texts) == len(set(texts))
