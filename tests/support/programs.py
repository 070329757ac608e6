"""Runs the legitimate programs in a sandbox, one after the other, each as if it were the first.

Without it every way to run them would have its own idea of what passing means.
"""

from __future__ import annotations

from support.cell_corpus import Program, ProgramCell

from orchestrator.context import encode_context
from orchestrator.domain import CellResult, Context, Outcome
from orchestrator.ports import Sandbox

#: How long one cell may take. All of them together take seconds.
PATIENCE_S = 20.0

# What a cell can do to start afresh; it is held to the policy like any other.
_RESET = """
answer["content"] = ""
for _name in [name for name in globals() if not name.startswith("__")]:
    del globals()[_name]
"""


class ProgramRunner:
    """Runs programs in one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Takes a sandbox whose queries `ScriptedQueries` answers."""
        self._sandbox = sandbox
        self._bound: Context | None = None

    async def run(self, program: Program) -> None:
        """Runs a program's cells in order; fails where one does not end as it says."""
        await self._bind(program.context)
        for number, cell in enumerate(program.cells, 1):
            result = await self._sandbox.run_cell(cell.source, timeout_s=PATIENCE_S)
            assert _ending(result, cell) == cell.ending, f"cell {number}: {_told(result)}"
        result = await self._sandbox.run_cell(_RESET, timeout_s=PATIENCE_S)
        assert result.outcome is Outcome.SUCCEEDED, _told(result)

    async def _bind(self, context: Context) -> None:
        # A str is as it was, whatever the last program did; anything else it may have changed.
        if not (isinstance(context, str) and context is self._bound):
            await self._sandbox.bind_context("context", encode_context(context))
            self._bound = context


def _ending(result: CellResult, cell: ProgramCell) -> str:
    """Says how a cell ended in the words of the corpus."""
    match result.outcome:
        case Outcome.REJECTED:
            return "rejected"
        case Outcome.RAISED if result.error is not None:
            return f"raises {result.error.type_name}"
        case Outcome.SUCCEEDED if cell.ending.startswith("final") or result.answer.is_ready:
            return f"final {result.answer.content}" if result.answer.is_ready else "no answer"
        case Outcome.SUCCEEDED:
            return ""
    return str(result.outcome)


def _told(result: CellResult) -> str:
    error = result.error
    frames = f"{error.traceback}\n{error.type_name}: {error.message}" if error else ""
    return f"{result.outcome}\n{frames}\nprinted: {result.stdout}{result.stderr}"
