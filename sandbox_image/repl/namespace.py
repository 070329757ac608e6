"""The names a cell finds, and what becomes of them when it ends.

Without it a cell that rebinds `context` or `llm_query` would spoil every cell after it.
"""

from __future__ import annotations

import keyword
import types
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox_image.repl.asking import Asker
from sandbox_image.repl.language import builtins_for
from sandbox_image.repl.query_errors import ERRORS_BY_NAME, QueryBatchError

#: The answer's name, and those of its two parts.
_ANSWER = "answer"
_MAX_VARIABLES = 200
_NAME_CHARS = 200
#: Types whose `len` runs none of the cell's code.
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset, deque, range, memoryview)

_TYPE_NAME = type.__dict__["__name__"]


class FinalAnswer(BaseException):
    """Ends a cell once its answer is final.

    A `BaseException`, so that a cell's own `except Exception` cannot eat it.
    """


class AnswerTooLargeError(ValueError):
    """The answer is longer than the orchestrator takes."""


class Namespace:
    """The global names of the cells of one session."""

    def __init__(self, asker: Asker) -> None:
        """Makes the namespace with its reserved names and nothing else."""
        # A module, so that what looks a name up by `__module__` finds what cells define: forward
        # references in typing.get_type_hints(), functions handed to multiprocessing.
        self.module = types.ModuleType("__main__")
        self.names: dict[str, Any] = vars(self.module)
        self._answer: dict[str, Any] = {"content": "", "ready": False}
        self._asker = asker
        self._tool_names: list[str] = []
        self._untold: frozenset[str] = frozenset()
        self._reserved: dict[str, Any] = {
            "llm_query": asker.llm_query,
            "llm_query_batched": asker.llm_query_batched,
            "llm_query_async": asker.llm_query_async,
            "rlm_query": asker.rlm_query,
            "rlm_query_batched": asker.rlm_query_batched,
            "budget": asker.budget,
            "history": [],
            "QueryBatchError": QueryBatchError,
            **ERRORS_BY_NAME,
            "FINAL": self._final,
            "SUBMIT": self._final,
            "FINAL_VAR": self._final_var,
            "SHOW_VARS": self._show_vars,
            # Models paste JSON into code.
            "true": True,
            "false": False,
            "null": None,
        }

    def configure(self, policy: str) -> None:
        """Takes the language policy in force and binds every reserved name."""
        self.names["__name__"] = "__main__"
        self._reserved["__builtins__"] = builtins_for("open" if policy == "open" else "guarded")
        self._sort_out()
        self.restore()

    def bind_context(self, names: Sequence[str], value: object) -> None:
        """Binds a context; its names are reserved from now on."""
        for name in names:
            self._reserved[name] = value
            self.names[name] = value
        self._sort_out()

    def begin_run(self, tools: Sequence[Mapping[str, str]]) -> None:
        """Forgets the answer of the run before, and its tools; binds those of this one."""
        self._answer.clear()
        self._answer.update(content="", ready=False)
        for name in self._tool_names:
            self._reserved.pop(name, None)
            self.names.pop(name, None)
        self._tool_names = [tool["name"] for tool in tools]
        for tool in tools:
            self._reserved[tool["name"]] = self._asker.tool(**tool)
        self.names.pop(_ANSWER, None)
        self._sort_out()
        self.restore()

    def restore(self) -> None:
        """Puts every reserved name back to what it was, whatever a cell did to it."""
        found = self.names.get(_ANSWER, self._answer)
        if found is not self._answer:
            # `answer = "…"` is a draft that was meant for answer["content"].
            if isinstance(found, dict):
                self._answer.update(
                    content=found.get("content", ""), ready=found.get("ready", False)
                )
            elif found is not None:
                self._answer["content"] = found
        self.names.update(self._reserved)
        self.names[_ANSWER] = self._answer

    def begin_cell(self) -> None:
        """Forgets that an earlier answer was final; its text stays as the draft."""
        self._answer["ready"] = False

    def draft(self, limit_bytes: int) -> tuple[str, bool]:
        """Returns the answer's text and whether it is final.

        Raises:
            AnswerTooLargeError: The text is over `limit_bytes`; it is not final then.
        """
        content = self._answer.get("content", "")
        text = content if isinstance(content, str) else "" if content is None else str(content)
        is_ready = bool(self._answer.get("ready"))
        size_bytes = len(text.encode(errors="replace"))
        if size_bytes > limit_bytes:
            self._answer["ready"] = False
            raise AnswerTooLargeError(
                f"the answer has {size_bytes:,} bytes, at most {limit_bytes:,} are allowed; "
                "shorten it before it is final"
            )
        return text, is_ready

    def variables(self) -> list[dict[str, Any]]:
        """Describes the names cells have bound: name, type and size, never a value."""
        described: list[dict[str, Any]] = []
        untold = self._untold
        for name, value in list(self.names.items()):
            # `globals()[5] = 1` is a cell's right.
            if type(name) is not str or name in untold or name.startswith("_"):
                continue
            if issubclass(type(value), types.ModuleType):
                continue
            described.append(
                {
                    "name": name[:_NAME_CHARS],
                    "type": type_name(value)[:_NAME_CHARS],
                    "size": _size(value),
                }
            )
        described.sort(key=lambda entry: entry["size"] or 0, reverse=True)
        return described[:_MAX_VARIABLES]

    def _sort_out(self) -> None:
        """Remembers which names are no variables: each cell asks it of each of them."""
        told = filter(self._is_worth_telling, self._reserved)
        self._untold = frozenset(self._reserved).difference(told) | {_ANSWER}

    def _is_worth_telling(self, name: str) -> bool:
        """Whether a reserved name is a variable to a reader: a context, by one name of each."""
        if not name.startswith("context"):
            return False
        return name == "context" or self._reserved[name] is not self._reserved.get("context")

    def _final(self, *values: object) -> None:
        """Makes `value` the run's answer and ends the cell."""
        if len(values) != 1:
            message = f"FINAL takes one value, not {len(values)}; join them into one string first"
            raise TypeError(message)
        [value] = values
        if value is None:
            message = "FINAL got None; compute the answer first, then call FINAL(answer_text)"
            raise TypeError(message)
        self._answer["content"] = value if isinstance(value, str) else str(value)
        self._answer["ready"] = True
        raise FinalAnswer

    def _final_var(self, *names: object) -> None:
        """Makes a variable's value the run's answer and ends the cell."""
        if len(names) != 1:
            message = f"FINAL_VAR takes one name of a variable, not {len(names)} values"
            raise TypeError(message)
        [name] = names
        if isinstance(name, str) and name in self.names:
            self._final(self.names[name])
        if isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name):
            known = ", ".join(entry["name"] for entry in self.variables()[:20]) or "none"
            raise NameError(
                f"there is no variable {name!r}: FINAL_VAR takes the name of one, in quotes; "
                f"FINAL(value) takes a value. Variables: {known}"
            )
        # FINAL_VAR(result) with the value instead of its name is what models mean by it.
        self._final(name)

    def _show_vars(self) -> str:
        """Returns a line for each variable: its name, type and size."""
        lines = [
            f"{entry['name']}: {entry['type']}"
            + ("" if entry["size"] is None else f" of {entry['size']:,}")
            for entry in self.variables()
        ]
        return "\n".join(lines) or "no variables yet"


def type_name(value: object) -> str:
    """Returns the name of a value's type, and runs none of the cell's code for it."""
    # Not `type(value).__name__`: the type's own type may be a cell's, and have a property there.
    name = _TYPE_NAME.__get__(type(value))
    return name if type(name) is str else ""


def _size(value: object) -> int | None:
    """Returns how many items a value of a plain type has."""
    # By identity: `in` would compare, which a cell's metaclass may answer with code of its own.
    if not any(type(value) is sized for sized in _SIZED):
        return None
    try:
        return len(value)  # type: ignore[arg-type] # it is one of those
    except (ValueError, OverflowError):
        # A memoryview that was released has no length any more, and a range may have more than
        # `sys.maxsize`.
        return None
