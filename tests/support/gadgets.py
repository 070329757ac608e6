"""The known ways from a cell's first line to a module it was not given.

Collected from what broke interpreters that hold code by rules of the language alone: the test
corpus of smolagents' local executor and RestrictedPython's advisories and issues. Each sets
`reached` to what it is after.
"""

from __future__ import annotations

from typing import NamedTuple


class Gadget(NamedTuple):
    """One way out.

    Attributes:
        name: What it goes through.
        reaches: The name of the module it ends at, or of the type of what it ends at.
        source: The cell.
        is_refused: Whether `guarded` refuses it, before it runs or when it gets there. Where it
            does not, the policy says of itself that it only reads (docs/adr/0004), and what is
            reached is what a cell may import anyway or can do nothing with.
    """

    name: str
    reaches: str
    source: str
    is_refused: bool


_FROM_SUBCLASSES = (
    "[found] = [kind for kind in {{}}.__class__.__base__.__subclasses__()"
    " if kind.__name__ == {name!r}]\n"
)
_IMPORTS_OS = "['__builtins__']['__import__']('os')"

GADGETS = (
    Gadget("sys.modules", "os", "import sys\nreached = sys.modules['os']", is_refused=True),
    Gadget("vars(sys)", "os", "import sys\nreached = vars(sys)['modules']['os']", is_refused=False),
    Gadget(
        "importlib",
        "os",
        "import importlib\nreached = importlib.import_module('os')",
        is_refused=True,
    ),
    Gadget(
        "builtins", "os", "import builtins\nreached = builtins.__import__('os')", is_refused=True
    ),
    Gadget(
        "queue.threading", "os", "import queue\nreached = queue.threading._os", is_refused=False
    ),
    Gadget("random._os", "os", "import random\nreached = random._os", is_refused=False),
    Gadget(
        "doctest.inspect", "os", "import doctest\nreached = doctest.inspect.os", is_refused=True
    ),
    Gadget(
        "asyncio.base_events",
        "subprocess",
        "import asyncio\nreached = asyncio.base_events.subprocess",
        is_refused=False,
    ),
    Gadget(
        "asyncio.subprocess",
        "asyncio.subprocess",
        "import asyncio\nreached = asyncio.subprocess",
        is_refused=True,
    ),
    Gadget(
        "map(getattr)",
        "sys",
        "import warnings\n[reached] = map(getattr, [warnings], ['sys'])",
        is_refused=False,
    ),
    Gadget(
        "filter(dir)",
        "sys",
        "import warnings\n[name] = filter(lambda name: name == 'sys', dir(warnings))\n"
        "reached = getattr(warnings, name)",
        is_refused=False,
    ),
    Gadget(
        "partial(getattr)",
        "sys",
        "import functools, warnings\nreached = functools.partial(getattr, warnings)('sys')",
        is_refused=False,
    ),
    Gadget(
        "operator.attrgetter",
        "sys",
        "import operator, warnings\nreached = operator.attrgetter('catch_warnings.__init__.'"
        "'__globals__')(warnings)['sys']",
        is_refused=True,
    ),
    Gadget(
        "computed attrgetter",
        "sys",
        "import operator, warnings\nname = '__glo' + 'bals__'\n"
        "reached = operator.attrgetter('catch_warnings.__init__.' + name)(warnings)['sys']",
        is_refused=False,
    ),
    Gadget(
        "_getframe",
        "os",
        "import sys\nreached = sys._getframe().f_builtins['__import__']('os')",
        is_refused=True,
    ),
    Gadget(
        "traceback frames",
        "dict",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n"
        "    reached = error.__traceback__.tb_frame.f_back.f_globals",
        is_refused=True,
    ),
    Gadget(
        "catch_warnings",
        "sys",
        _FROM_SUBCLASSES.format(name="catch_warnings") + "reached = found()._module.sys",
        is_refused=True,
    ),
    Gadget(
        "BuiltinImporter",
        "posix",
        _FROM_SUBCLASSES.format(name="BuiltinImporter")
        + "import warnings\nwarnings.simplefilter('ignore')\nreached = found.load_module('posix')",
        is_refused=True,
    ),
    Gadget("__builtins__", "os", "reached = __builtins__['__import__']('os')", is_refused=True),
    Gadget("__globals__", "os", f"reached = (lambda: 0).__globals__{_IMPORTS_OS}", is_refused=True),
    Gadget(
        "computed __globals__",
        "os",
        f"reached = getattr(lambda: 0, '__glo' + 'bals__'){_IMPORTS_OS}",
        is_refused=True,
    ),
    Gadget(
        "object.__getattribute__",
        "os",
        f"reached = object.__getattribute__(lambda: 0, '__glo' + 'bals__'){_IMPORTS_OS}",
        is_refused=False,
    ),
    Gadget(
        "format field",
        "str",
        "def f(): pass\nreached = '{0.__globals__}'.format(f)",
        is_refused=True,
    ),
    Gadget(
        "computed format field",
        "str",
        "def f(): pass\nreached = ('{0.__glo' + 'bals__}').format(f)",
        is_refused=False,
    ),
    Gadget("ctypes", "ctypes", "import ctypes\nreached = ctypes", is_refused=True),
    Gadget(
        "pickle",
        "function",
        "import pickle\nreached = pickle.loads(b'cposix\\nsystem\\n.')",
        is_refused=True,
    ),
)


def name_of(reached: object) -> str:
    """Returns what a gadget has reached, in the words of `Gadget.reaches`."""
    kind = type(reached).__name__
    return str(getattr(reached, "__name__", kind)) if kind == "module" else kind
