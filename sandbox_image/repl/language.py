"""Turns a cell's source into code, or says why not and what to write instead.

Without it a cell that cannot work would run half-way, and a cell that is no Python would end the
REPL process (a parser runs out of stack, a text holds half of a surrogate pair) instead of
coming back as a sentence the root model can act on.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Sequence
from types import CodeType
from typing import Final, Literal, NoReturn

from sandbox_image.repl.language_builtins import LanguagePolicy, PolicyError, builtins_for
from sandbox_image.repl.language_policy import GuardedPolicy
from sandbox_image.repl.language_refusals import FoundRefusal
from sandbox_image.repl.language_syntax import (
    clipped,
    explain_syntax_error,
    explain_unreadable_character,
    line_of,
)

__all__ = [
    "CellRejectedError",
    "LanguagePolicy",
    "PolicyError",
    "builtins_for",
    "compile_cell",
]

_REFUSALS_SHOWN: Final = 5  # enough to mend a cell in one reply; more is noise to a model


class CellRejectedError(Exception):
    """The cell cannot be run as it is written; nothing of it ran.

    Attributes:
        type_name: "SyntaxError" where it is no Python, "PolicyError" where the policy refuses it.
        message: Which lines, shown, and what to write instead; made for the root model.
    """

    def __init__(self, *, type_name: Literal["SyntaxError", "PolicyError"], message: str) -> None:
        """Keeps both for the cell's result."""
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.message = message


def compile_cell(
    source: str,
    *,
    policy: LanguagePolicy,
    filename: str,
    known_names: Container[str] = frozenset(),
) -> CodeType:
    """Compiles one cell for `eval(code, namespace)`.

    A cell may use `await` outside a function. Its code then has `inspect.CO_COROUTINE` in
    `co_flags`, and `eval` returns a coroutine that the caller runs; `exec` would drop it.

    Compiling takes time that the source decides, so it belongs inside the cell's clock.

    Args:
        source: The text of the cell.
        policy: What of Python it may use.
        filename: What tracebacks call it, such as `<cell 3>`.
        known_names: Names that earlier cells have bound; one of them may hide a refused builtin.

    Raises:
        CellRejectedError: It is no Python, or the policy refuses a part of it. The message says
            what to write instead.
    """
    if unreadable := explain_unreadable_character(source):
        _reject(unreadable)
    if policy == "open":
        return _compile(source, source, filename)
    tree = _parse(source, filename)
    refusals = GuardedPolicy(known_names).refusals_in(tree)
    if refusals:
        message = _explain_refusals(refusals, source)
        raise CellRejectedError(type_name="PolicyError", message=message)
    return _compile(tree, source, filename)


def _parse(source: str, filename: str) -> ast.Module:
    tree = _compile_or_reject(source, source, filename, ast.PyCF_ONLY_AST)
    if not isinstance(tree, ast.Module):
        message = f"expected a module from the parser, got {type(tree).__name__}"
        raise TypeError(message)
    return tree


def _compile(program: str | ast.Module, source: str, filename: str) -> CodeType:
    code = _compile_or_reject(program, source, filename, 0)
    if not isinstance(code, CodeType):
        message = f"expected code from the compiler, got {type(code).__name__}"
        raise TypeError(message)
    return code


def _compile_or_reject(
    program: str | ast.Module, source: str, filename: str, flags: int
) -> CodeType | ast.AST:
    # Not compile_restricted_exec(): it drops `flags`, so no cell could await, and it compiles in a
    # module with `from __future__ import annotations`, which every cell would inherit.
    try:
        compiled: CodeType | ast.AST = compile(
            program,
            filename,
            "exec",
            flags=flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
    except SyntaxError as error:
        _reject(explain_syntax_error(error, source))
    except (RecursionError, MemoryError):
        _reject(
            "the cell is nested too deeply to compile\n"
            "use a loop, a list or a dict instead of one long expression or `elif` chain"
        )
    return compiled


def _reject(message: str) -> NoReturn:
    raise CellRejectedError(type_name="SyntaxError", message=message) from None


def _explain_refusals(refusals: Sequence[FoundRefusal], source: str) -> str:
    # The same mistake twice in a line is told once.
    told = list(dict.fromkeys((found.line, str(found.refusal)) for found in refusals))
    parts = [
        f"line {line}: {sentence}\n    {clipped(line_of(source, line))}"
        for line, sentence in told[:_REFUSALS_SHOWN]
    ]
    if len(told) > _REFUSALS_SHOWN:
        parts.append(f"and {len(told) - _REFUSALS_SHOWN} more")
    return "\n".join([*parts, "Nothing of this cell ran; change these lines and send it again."])
