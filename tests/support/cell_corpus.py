"""Programs of the kind root models write, and a way to run one under a language policy."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from support.program_contexts import CONTEXTS, TEXT

from orchestrator.domain import Context
from sandbox_image.repl.language import LanguagePolicy, builtins_for, compile_cell

_CORPORA = Path(__file__).parent / "corpora"

#: A line that begins another cell of the same program, and may say how that cell ends:
#: `# %%`, `# %% raises ValueError`, `# %% rejected`, `# %% final 42`.
_SEPARATOR = "# %%"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCell:
    """One cell of a program.

    Attributes:
        source: Its text.
        ending: "" where it ends by itself, else `raises <type>`, `rejected` or `final <answer>`.
    """

    source: str
    ending: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Cells that assert their own results.

    Attributes:
        name: What it is about.
        context: What it finds under that name.
        cells: One or more, run in order in one session.
    """

    name: str
    context: Context
    cells: tuple[ProgramCell, ...]

    @property
    def accepted_sources(self) -> tuple[str, ...]:
        """The cells that are meant to be run: all but those that show what a rejection is."""
        return tuple(cell.source for cell in self.cells if cell.ending != "rejected")


def programs_in(folder: str) -> list[Program]:
    """Reads every program of one corpus; its first line says which context it expects."""
    programs = list[Program]()
    for path in sorted((_CORPORA / folder).glob("*.cell")):
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
        kind = first.removeprefix("# context: ")
        programs.append(Program(name=path.stem, context=CONTEXTS[kind], cells=_cells_of(text)))
    # Those with the same context one after the other: it need not be sent again for each.
    kinds = [id(context) for context in CONTEXTS.values()]
    return sorted(programs, key=lambda program: kinds.index(id(program.context)))


def _cells_of(text: str) -> tuple[ProgramCell, ...]:
    cells = []
    ending, lines = "", list[str]()
    for line in [*text.split("\n"), _SEPARATOR]:
        if not line.startswith(_SEPARATOR):
            lines.append(line)
            continue
        if source := "\n".join(lines).strip("\n"):
            cells.append(ProgramCell(source=source + "\n", ending=ending))
        ending, lines = line.removeprefix(_SEPARATOR).strip(), []
    return tuple(cells)


def namespace_for(policy: LanguagePolicy, context: object = TEXT) -> dict[str, object]:
    """Returns the names a cell finds, with queries that are answered at once."""

    def llm_query(prompt: str, model: str | None = None) -> str:
        return f"{model or 'sub-model'} read {len(prompt)} characters"

    def llm_query_batched(prompts: Iterable[str], model: str | None = None) -> list[str]:
        return [llm_query(prompt, model) for prompt in prompts]

    return {
        "__name__": "__main__",
        "__builtins__": builtins_for(policy),
        "context": context,
        "llm_query": llm_query,
        "llm_query_batched": llm_query_batched,
        "answer": {"content": "", "ready": False},
        "true": True,
        "false": False,
        "null": None,
    }


def run_cell(source: str, policy: LanguagePolicy, context: object = TEXT) -> dict[str, object]:
    """Compiles and runs one cell, and returns its names afterwards.

    Raises:
        CellRejectedError: The policy or the compiler refused it.
        BaseException: Whatever the cell raised.
    """
    namespace = namespace_for(policy, context)
    run_in(namespace, source, policy)
    return namespace


def run_in(namespace: dict[str, object], source: str, policy: LanguagePolicy) -> None:
    """Compiles and runs one more cell in a namespace."""
    code = compile_cell(source, policy=policy, filename="<cell 1>", known_names=namespace)
    # What the REPL process does with a cell: the code under test is the argument.
    result = eval(code, namespace)  # noqa: S307
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(result)
