"""Modules of the standard library that are set up when a cell first imports them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PRELUDE = """
import json, sys
from sandbox_image.repl.first_import import after_first_import
seen = []
"""


def told(source: str) -> Any:  # noqa: ANN401 - JSON
    """Runs a script in an interpreter that has imported nothing of it yet."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + source], capture_output=True, check=True, timeout=60
    )
    return json.loads(ended.stdout)


def test_module_is_set_up_once_and_after_it_is_loaded() -> None:
    """What is called finds the whole module, and is called for no other and not again."""
    assert told(
        "after_first_import('colorsys', lambda part: seen.append(part.hls_to_rgb(0, 1, 0)[0]))\n"
        "import tomllib\nbefore = list(seen)\n"
        "import colorsys, importlib\nfrom colorsys import hsv_to_rgb\nimportlib.reload(colorsys)\n"
        "print(json.dumps([before, seen]))"
    ) == [[], [1]]


def test_submodule_and_extension_module() -> None:
    """It works for a part of a package, and for a module written in C."""
    assert told(
        "after_first_import('xml.sax.saxutils', lambda module: seen.append(module.escape('<')))\n"
        "after_first_import('_zoneinfo', lambda module: seen.append(module.ZoneInfo.__name__))\n"
        "import xml.sax.saxutils, zoneinfo\nprint(json.dumps(seen))"
    ) == ["&lt;", "ZoneInfo"]


def test_module_shows_no_trace_of_it() -> None:
    """Its source is found as ever, and the way it was loaded is what it would have been."""
    assert told(
        "after_first_import('colorsys', seen.append)\n"
        "import colorsys, inspect\n"
        "print(json.dumps(['def rgb_to_hsv' in inspect.getsource(colorsys),"
        " type(colorsys.__loader__).__name__, type(colorsys.__spec__.loader).__name__]))"
    ) == [True, "SourceFileLoader", "SourceFileLoader"]


def test_module_that_is_not_there() -> None:
    """It stays the error it was."""
    assert told(
        "after_first_import('no_such_module', seen.append)\n"
        "try: import no_such_module\n"
        "except ModuleNotFoundError as error: print(json.dumps([str(error), seen]))"
    ) == ["No module named 'no_such_module'", []]
