from __future__ import annotations

import ast
import sys

import pytest
from support.cell_corpus import Program, programs_in, run_cell

from sandbox_image.repl.language import LanguagePolicy
from sandbox_image.repl.language_policy import GuardedPolicy

_PROGRAMS = programs_in("legitimate")
if sys.version_info >= (3, 12):  # the container's Python; the host's may be older
    _PROGRAMS += programs_in("legitimate_python312")


@pytest.mark.parametrize("policy", ["guarded", "open"])
@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program.name)
def test_program_runs(program: Program, policy: LanguagePolicy) -> None:
    """What models honestly write runs unchanged, and with the same result, under both policies."""
    run_cell(program.source, policy, program.context)


@pytest.mark.parametrize("program", _PROGRAMS, ids=lambda program: program.name)
def test_program_is_not_rewritten(program: Program) -> None:
    """The policy only reads: the tree that is compiled is the tree that was parsed."""
    tree = ast.parse(program.source)
    before = ast.dump(tree, include_attributes=True)

    GuardedPolicy(frozenset()).refusals_in(tree)

    assert ast.dump(tree, include_attributes=True) == before


def test_the_corpus_is_there() -> None:
    """The two tests above cannot pass by finding nothing to run."""
    assert len(programs_in("legitimate")) >= 60
    assert len(programs_in("legitimate_python312")) >= 4
