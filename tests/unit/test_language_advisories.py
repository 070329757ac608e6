"""RestrictedPython's published advisories, as cells.

Each names the gadget; the control shows that it works where nothing holds it back.
"""

import sys

import pytest
from support.cell_corpus import run_cell

from sandbox_image.repl.language import CellRejectedError, PolicyError, compile_cell

# A frame of the generator that reads itself: CVE-2023-37271.
_GENERATOR_FRAME = """\
def walk():
    yield generator.gi_frame.f_back
generator = walk()
frames = [frame for frame in generator]
"""
_FORMAT = "def f(): pass\nresult = '{0.__globals__}'.format(f)"
_FORMAT_MAP = "def f(): pass\nresult = '{f.__globals__}'.format_map({'f': f})"
_NESTED_SPEC = "def f(): pass\nresult = '{0:{1.__globals__}}'.format('', f)"
_FORMATTER = (
    "import string\ndef f(): pass\nresult = string.Formatter().format('{0.__globals__}', f)"
)
_VFORMAT = (
    "import string\ndef f(): pass\nresult = string.Formatter().vformat('{0.__globals__}', [f], {})"
)
_GET_FIELD = (
    "import string\ndef f(): pass\nresult = string.Formatter().get_field('0.__globals__', [f], {})"
)
# An AttributeError hands out the object it was raised for: CVE-2024-47532.
_ERROR_OBJECT = """\
import string
try:
    string.no_such_name
except AttributeError as error:
    result = error.obj.Formatter().format('{0.__globals__}', run)
"""
# A positional-only parameter that takes the name of a guard: CVE-2026-55830.
_SHADOWED_GUARD = """\
def f(_getattr_, _getitem_, _write_, /):
    return (lambda: 0).__globals__
result = f(getattr, None, None)
"""
_SHADOWED_PRINT = """\
def f(_print_, /):
    return (lambda: 0).__globals__
result = f(None)
"""
# A host that hands out modules hands out attrgetter (RestrictedPython's pull request 330).
_ATTRGETTER = "result = __import__('operator').attrgetter('__globals__')(lambda: 0)"
_ADVISORIES = [
    pytest.param(_GENERATOR_FRAME, "gi_frame", id="CVE-2023-37271"),
    pytest.param(_FORMAT, "__globals__", id="CVE-2023-41039-format"),
    pytest.param(_FORMAT_MAP, "__globals__", id="CVE-2023-41039-format_map"),
    pytest.param(_NESTED_SPEC, "__globals__", id="CVE-2023-41039-nested"),
    pytest.param(_FORMATTER, "__globals__", id="CVE-2023-41039-Formatter"),
    pytest.param(_VFORMAT, "__globals__", id="CVE-2026-76825-vformat"),
    pytest.param(_GET_FIELD, "__globals__", id="CVE-2026-76825-get_field"),
    pytest.param(
        "def run(): pass\n" + _ERROR_OBJECT, "__globals__", id="CVE-2024-47532-AttributeError"
    ),
    pytest.param(_SHADOWED_GUARD, "__globals__", id="CVE-2026-55830"),
    pytest.param(_SHADOWED_PRINT, "__globals__", id="CVE-2026-55830-print"),
    pytest.param(_ATTRGETTER, "__globals__", id="import-of-operator"),
]


@pytest.mark.parametrize(("source", "gadget"), _ADVISORIES)
def test_advisory_is_refused(source: str, gadget: str) -> None:
    """The gadget of each advisory is refused before the cell runs."""
    with pytest.raises(CellRejectedError, match=gadget):
        compile_cell(source, policy="guarded", filename="<cell 1>")


@pytest.mark.parametrize("source", [advisory.values[0] for advisory in _ADVISORIES])
def test_advisory_control(source: str) -> None:
    """The same cell reaches what it is after under `open`."""
    try:
        names = run_cell(source, "open")
    except ValueError as error:
        # As a format specification, the namespace has been read and is no valid one.
        assert "format spec" in str(error).lower()  # noqa: PT017 - one probe may raise, not all
    else:
        assert names.get("frames") or names.get("result")


def test_text_that_only_speaks_of_a_gadget_is_text() -> None:
    """Outside the braces a format string may hold any words."""
    source = "result = 'f.__globals__ is read {} times'.format(3)"

    assert run_cell(source, "guarded")["result"] == "f.__globals__ is read 3 times"


def test_computed_walk_through_getattr_is_refused() -> None:
    """The way around `safer_getattr` (fixed in RestrictedPython 7.2) ends at the wrapper."""
    source = "names = ['gi', 'frame']\nresult = getattr((i for i in ()), '_'.join(names))"

    with pytest.raises(PolicyError, match="gi_frame"):
        run_cell(source, "guarded")


def test_computed_walk_through_getattr_control() -> None:
    """The same walk reads the frame under `open`."""
    source = "names = ['gi', 'frame']\nresult = getattr((i for i in ()), '_'.join(names))"

    assert type(run_cell(source, "open")["result"]).__name__ == "frame"


_SPLIT = """\
class Forged(ExceptionGroup):
    def split(self, condition):
        return 42
caught = None
try:
    raise Forged("f", [ValueError()])
except* ValueError as group:
    caught = group
"""


def test_forged_split_is_refused() -> None:
    """CVE-2025-22153: an exception group may not answer `except*` with an object of its own."""
    with pytest.raises(CellRejectedError, match=r"derive\(\)"):
        compile_cell(_SPLIT, policy="guarded", filename="<cell 1>")


@pytest.mark.skipif(
    sys.version_info < (3, 13, 2), reason="CPython mistakes the object for a pair and may crash"
)
def test_forged_split_control() -> None:
    """A CPython with its fix refuses it by itself, so the policy's rule is depth, not the wall."""
    with pytest.raises(TypeError):
        run_cell(_SPLIT, "open")


def test_honest_group_is_caught() -> None:
    """`except*` itself, which RestrictedPython gave up because of that advisory, works."""
    source = _SPLIT.replace("def split(self, condition)", "def derive(self, errors)").replace(
        "return 42", "return Forged(self.message, errors)"
    )

    assert "ValueError()" in repr(run_cell(source, "guarded")["caught"])
