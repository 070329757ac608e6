"""What a cell finds as its builtins, and which of Python's names `guarded` keeps from it.

Without it `input()` would wait for nobody, `exit()` would end the REPL process, and an attribute
or module asked for by a computed name would pass by what was checked before the cell ran.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NoReturn, TypeAlias

from RestrictedPython.transformer import INSPECT_ATTRIBUTES

from sandbox_image.repl.language_imports import advice_against_member, advice_against_module
from sandbox_image.repl.language_refusals import Advice, Refusal, Rule

#: `guarded` holds a cell to the policy; `open` is plain Python. The container is the wall of both.
LanguagePolicy: TypeAlias = Literal["guarded", "open"]

_INTO_THE_INTERPRETER = "it leads into the interpreter"
_FRAMES = "traceback.format_exc() says where an error came from"
_CLASSES = "ask isinstance(...), issubclass(...) or type(x).__name__"
_FUNCTIONS = "inspect.signature(...) and inspect.getsource(...) describe a function"
_STATE = "use your own names, or globals()"

#: Attributes that lead from a value into the interpreter. `INSPECT_ATTRIBUTES` is the list that
#: RestrictedPython keeps up since CVE-2023-37271; the rest are the steps of known gadgets.
REFUSED_ATTRIBUTES: Final[dict[str, Advice]] = {
    name: Advice(_INTO_THE_INTERPRETER, instead)
    for instead, names in (
        (_FRAMES, sorted(INSPECT_ATTRIBUTES)),
        (_CLASSES, ["__subclasses__", "__bases__", "__base__", "__mro__"]),
        (_FUNCTIONS, ["__code__", "__closure__"]),
        (_STATE, ["__globals__", "__builtins__", "__loader__", "__spec__", "__self__"]),
        ("use copy.deepcopy(x) or json.dumps(x)", ["__reduce__", "__reduce_ex__"]),
    )
    for name in names
}

#: Names that a cell finds and that lead into the interpreter.
REFUSED_NAMES: Final[dict[str, Advice]] = dict.fromkeys(
    ("__builtins__", "__loader__", "__spec__"), Advice(_INTO_THE_INTERPRETER, _STATE)
)

_NOBODY = "nobody is there"
_ENDS = Advice(
    "a cell ends by itself after its last line",
    "FINAL(answer) ends the run; `return` leaves a function",
)

#: Builtins that cannot work in a cell, or that a cell has a better way for.
REFUSED_BUILTINS: Final[dict[str, Advice]] = {
    "exec": Advice("", "write the statements in the cell, or define a function and call it"),
    "eval": Advice(
        "", "ast.literal_eval(text) or json.loads(text) reads data; call functions by name"
    ),
    "compile": Advice("", "write the code in the cell; for patterns there is re.compile(...)"),
    "input": Advice(f"{_NOBODY} to answer", "use llm_query(prompt), or read `context`"),
    "breakpoint": Advice(f"{_NOBODY} to debug", "print(...) what you want to see"),
    "exit": _ENDS,
    "quit": _ENDS,
    "help": Advice("", "print(obj.__doc__) or dir(obj) tells what an object is"),
}


def refusal_of_module(name: str) -> Refusal | None:
    """Returns what is said of importing a module, or None where it may be imported."""
    advice = advice_against_module(name)
    return advice and Refusal(Rule.MODULE, f"`import {name}`", advice)


def refusal_of_member(module: str, member: str) -> Refusal | None:
    """Returns what is said of a member of a module, or None where it may be used."""
    advice = advice_against_member(module, member)
    return advice and Refusal(Rule.MEMBER, f"`{module}.{member}`", advice)


def refusal_of_attribute(name: str) -> Refusal | None:
    """Returns what is said of an attribute that is written out, or None where it may be used."""
    advice = REFUSED_ATTRIBUTES.get(name)
    return advice and Refusal(Rule.ATTRIBUTE, f"`.{name}`", advice)


def refusal_of_attribute_name(name: str) -> Refusal | None:
    """Returns what is said of a text that names an attribute, or None where it may be used."""
    advice = REFUSED_ATTRIBUTES.get(name)
    return advice and Refusal(Rule.ATTRIBUTE_NAME, f"'{name}'", advice)


def refusal_of_builtin(name: str) -> Refusal:
    """Returns what is said of calling one of `REFUSED_BUILTINS`."""
    return Refusal(Rule.BUILTIN, f"`{name}(...)`", REFUSED_BUILTINS[name])


class PolicyError(Exception):
    """Raised inside a running cell by what could not be judged before it ran.

    Attributes:
        refusal: What is refused and what to write instead.
    """

    def __init__(self, refusal: Refusal) -> None:
        """Says it."""
        super().__init__(str(refusal))
        self.refusal = refusal


class ImportRefusedError(PolicyError, ModuleNotFoundError):
    """An import refused at run time; `except ImportError` catches it, as programs expect."""

    def __init__(self, refusal: Refusal, *, name: str | None = None) -> None:
        """Says it; `name` is the module's, as on any error of an import."""
        super().__init__(refusal)
        self.name = name


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
    names.update((name, _RefusedBuiltin(name)) for name in REFUSED_BUILTINS)
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

    def __init__(self, name: str) -> None:
        self._refusal = refusal_of_builtin(name)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise PolicyError(self._refusal)

    def __repr__(self) -> str:
        return f"<refused: {self._refusal}>"


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
        refusal = refusal_of_module(name)
        for member in fromlist or ():
            refusal = refusal or refusal_of_member(name, member)
        if refusal is not None:
            raise ImportRefusedError(refusal, name=name)
    return __import__(name, globals, locals, fromlist or (), level)


def _judged_name(name: object) -> str:
    if not isinstance(name, str):
        message = f"attribute name must be string, not {type(name).__name__!r}"
        raise TypeError(message)
    # A subclass of str may lie when it is compared, so it is judged and used as a plain copy.
    plain = str.__str__(name)
    if refusal := refusal_of_attribute_name(plain):
        raise PolicyError(refusal)
    return plain


def _getattr(obj: object, name: str, /, *default: object) -> object:
    return getattr(obj, _judged_name(name), *default)


def _hasattr(obj: object, name: str, /) -> bool:
    return hasattr(obj, _judged_name(name))


def _setattr(obj: object, name: str, value: object, /) -> None:
    setattr(obj, _judged_name(name), value)


def _delattr(obj: object, name: str, /) -> None:
    delattr(obj, _judged_name(name))
