"""Programs of the kind root models write, and a way to run one under a language policy."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox_image.repl.language import LanguagePolicy, builtins_for, compile_cell

_CORPORA = Path(__file__).parent / "corpora"

TEXT = """\
# Chapter 1: The Harbour
Alice Moore met Bob Stone on 2024-03-05 at the harbour. The magic number is 48213.
They spoke about the tide, the wind and the price of salt.

# Chapter 2: The Letter
On 2023-12-24 a letter came. Alice read it twice, and the lamp burned low.
Nobody else in the town had seen the blue seal on the envelope before.

# Chapter 3: The Road
The road to the hills was long. Write to stone@example.org before 2024-11-30.
"""

CONTEXTS: dict[str, object] = {
    "text": TEXT,
    "documents": ["The weather was fair.", "Budget: the budget grew.", "No budget was left here."],
    "data": {
        "user": {"name": "Ann", "tags": ["a", "b"]},
        "orders": [{"id": 1, "total": 10.0}, {"id": 2, "total": 20.5}],
    },
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the tide?"},
        {"role": "assistant", "content": "High."},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One cell that asserts its own result.

    Attributes:
        name: What it is about.
        context: What it finds under that name.
        source: Its text.
    """

    name: str
    context: object
    source: str


def programs_in(folder: str) -> list[Program]:
    """Reads every cell of one corpus; its first line says which context it expects."""
    programs = []
    for path in sorted((_CORPORA / folder).glob("*.cell")):
        source = path.read_text(encoding="utf-8")
        kind = source.partition("\n")[0].removeprefix("# context: ")
        programs.append(Program(name=path.stem, context=CONTEXTS[kind], source=source))
    return programs


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
