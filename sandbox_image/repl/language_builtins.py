"""What a cell finds as its builtins, and which of Python's names `guarded` keeps from it.

Without it `input()` would wait for nobody, `exit()` would end the REPL process, and an attribute
or module asked for by a computed name would pass by what was checked before the cell ran.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NoReturn, TypeAlias

from RestrictedPython.transformer import INSPECT_ATTRIBUTES

from sandbox_image.repl.language_imports import why_member_is_refused, why_module_is_refused

#: `guarded` holds a cell to the policy; `open` is plain Python. The container is the wall of both.
LanguagePolicy: TypeAlias = Literal["guarded", "open"]

_FRAMES = "traceback.format_exc() says where an error came from"
_CLASSES = "ask isinstance(...), issubclass(...) or type(x).__name__"
_FUNCTIONS = "inspect.signature(...) and inspect.getsource(...) describe a function"
_STATE = "use your own names, or globals()"

#: Attributes that lead from a value into the interpreter. `INSPECT_ATTRIBUTES` is the list that
#: RestrictedPython keeps up since CVE-2023-37271; the rest are the steps of known gadgets.
REFUSED_ATTRIBUTES: Final[dict[str, str]] = (
    dict.fromkeys(INSPECT_ATTRIBUTES, _FRAMES)
    | dict.fromkeys(("__subclasses__", "__bases__", "__base__", "__mro__"), _CLASSES)
    | dict.fromkeys(("__code__", "__closure__"), _FUNCTIONS)
    | dict.fromkeys(
        ("__globals__", "__builtins__", "__loader__", "__spec__", "__self__"),
        _STATE,
    )
    | dict.fromkeys(("__reduce__", "__reduce_ex__"), "use copy.deepcopy(x) or json.dumps(x)")
)

#: Builtins that cannot work in a cell, or that a cell has a better way for.
REFUSED_BUILTINS: Final[dict[str, str]] = {
    "exec": "write the statements in the cell, or define a function and call it",
    "eval": "ast.literal_eval(text) or json.loads(text) reads data; call functions by name",
    "compile": "write the code in the cell; for patterns there is re.compile(...)",
    "input": "nobody is there to answer; use llm_query(prompt), or read `context`",
    "breakpoint": "nobody is there to debug; print(...) what you want to see",
    "exit": "FINAL(answer) ends the run; a cell ends by itself after its last line",
    "quit": "FINAL(answer) ends the run; a cell ends by itself after its last line",
    "help": "print(obj.__doc__) or dir(obj) tells what an object is",
}


class PolicyError(Exception):
    """Raised inside a running cell by what could not be judged before it ran."""


class ImportRefusedError(PolicyError, ModuleNotFoundError):
    """An import refused at run time; `except ImportError` catches it, as programs expect."""


def builtins_for(policy: LanguagePolicy) -> dict[str, object]:
    """Returns what a namespace gets as its `__builtins__`.

    Under `open` these are the interpreter's own, not a copy. Under `guarded` it is a new dict each
    time: names are complete, those that cannot work raise a `PolicyError` when they are called, and
    those that take an attribute or a module by name look at the name first.
    """
    if policy == "open":
        return vars(builtins)
    names: dict[str, object] = dict(vars(builtins))
    del names["__loader__"], names["__spec__"]
    names.update((name, _RefusedBuiltin(name, advice)) for name, advice in REFUSED_BUILTINS.items())
    names.update(
        {
            "__import__": _import,
            "getattr": _getattr,
            "hasattr": _hasattr,
            "setattr": _setattr,
            "delattr": _delattr,
        }
    )
    return names


class _RefusedBuiltin:
    """Stands where a builtin was, so that its name tells what to do instead."""

    def __init__(self, name: str, advice: str) -> None:
        self._message = f"`{name}(...)`: {advice}"

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise PolicyError(self._message)

    def __repr__(self) -> str:
        return f"<refused: {self._message}>"


def _import(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002 - the names that __import__ has
    locals: Mapping[str, object] | None = None,  # noqa: A002 - likewise
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> object:
    # The standard library's Python modules have builtins of their own and never come here. Its C
    # modules do: PyImport_Import() takes `__import__` from the calling frame, so a cell that calls
    # datetime.strptime() asks for `_strptime`. It passes a list; a statement passes a tuple.
    if not isinstance(fromlist, list):
        advice = why_module_is_refused(name)
        for member in fromlist or ():
            advice = advice or why_member_is_refused(name, member)
        if advice is not None:
            message = f"`import {name}`: {advice}"
            raise ImportRefusedError(message, name=name)
    return __import__(name, globals, locals, fromlist or (), level)


def _judged_name(name: object) -> str:
    if not isinstance(name, str):
        message = f"attribute name must be string, not {type(name).__name__!r}"
        raise TypeError(message)
    # A subclass of str may lie when it is compared, so it is judged and used as a plain copy.
    plain = str.__str__(name)
    if advice := REFUSED_ATTRIBUTES.get(plain):
        message = f"'{plain}' leads into the interpreter; {advice}"
        raise PolicyError(message)
    return plain


def _getattr(obj: object, name: str, /, *default: object) -> object:
    return getattr(obj, _judged_name(name), *default)


def _hasattr(obj: object, name: str, /) -> bool:
    return hasattr(obj, _judged_name(name))


def _setattr(obj: object, name: str, value: object, /) -> None:
    setattr(obj, _judged_name(name), value)


def _delattr(obj: object, name: str, /) -> None:
    delattr(obj, _judged_name(name))
