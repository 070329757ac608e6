import pytest
from support.cell_corpus import namespace_for, run_cell, run_in

from sandbox_image.repl.language import CellRejectedError, compile_cell
from sandbox_image.repl.language_imports import ALLOWED_MODULES

_REFUSED_WITH_ADVICE = [
    ("import subprocess", "do it in Python"),
    ("import os\nos.system('ls')", "do it in Python"),
    ("from os import popen", "do it in Python"),
    ("import asyncio\nasyncio.create_subprocess_exec", "do it in Python"),
    ("import socket", "llm_query(prompt)"),
    ("import urllib.request", "llm_query(prompt)"),
    ("from urllib import request", "llm_query(prompt)"),
    ("import urllib\nurllib.request", "llm_query(prompt)"),
    ("import http.client", "llm_query(prompt)"),
    ("import requests", "llm_query(prompt)"),
    ("from openai import OpenAI", "llm_query(prompt)"),
    ("import numpy as np", "statistics"),
    ("import pandas as pd", "csv"),
    ("import matplotlib.pyplot as plt", "print(...)"),
    ("import pickle", "json.dumps"),
    ("import marshal", "json.dumps"),
    ("import shelve", "json.dumps"),
    ("import asyncio as aio\naio.open_connection()", "llm_query(prompt)"),
    ("import importlib", "`import name`"),
    ("import builtins", "`del name`"),
    ("import gc\ngc.get_objects()", "in variables"),
    ("import ctypes", "in Python"),
    ("import mmap", "open(...)"),
    ("import signal", "less time"),
    ("import resource", "less time"),
    ("import code", "print(...)"),
    ("import pty", "in Python"),
    ("import argparse", "variables"),
    ("import sys\nsys.modules['os']", "import what you need"),
    ("import sys\nsys._getframe()", "traceback.format_exc()"),
    ("import inspect\ninspect.currentframe()", "traceback.format_exc()"),
    ("from llm_query import ask", "without an import"),
    ("import regex", "`re`"),
    ("import coolections", "`collections`"),
    ("import never_heard_of_it", "standard library"),
    ("import _thread", "among the modules"),
    ("from . import sibling", "by full name"),
    ("from .sibling import name", "by full name"),
    ("import re, json, subprocess", "do it in Python"),
    ("__import__('subprocess')", "do it in Python"),
]


@pytest.mark.parametrize(("source", "advice"), _REFUSED_WITH_ADVICE)
def test_refused_import_says_what_to_write(source: str, advice: str) -> None:
    """What cannot be imported is refused before the cell runs, with what to write instead."""
    with pytest.raises(CellRejectedError, match="PolicyError") as refused:
        compile_cell(source, policy="guarded", filename="<cell 1>")

    assert advice in refused.value.message
    last_line = source.splitlines()[-1]
    assert last_line in refused.value.message
    assert f"line {len(source.splitlines())}:" in refused.value.message


@pytest.mark.parametrize("source", [source for source, _ in _REFUSED_WITH_ADVICE])
def test_refused_import_control(source: str) -> None:
    """The same cell compiles under `open`, so it is the policy that refuses it."""
    compile_cell(source, policy="open", filename="<cell 1>")


@pytest.mark.parametrize("module", sorted(ALLOWED_MODULES - {"__future__"}))
def test_allowed_module_can_be_imported(module: str) -> None:
    """Every module of the list is there, by statement and by call."""
    names = run_cell(f"import {module} as statement\ncall = __import__({module!r})", "guarded")

    assert names["statement"] is names["call"]


@pytest.mark.parametrize("name", ["subprocess", "numpy", "urllib.request"])
def test_computed_import_is_refused_when_it_runs(name: str) -> None:
    """A module asked for by a computed name is held to the same list."""
    source = f"name = {name!r}[::-1]\nresult = __import__(name[::-1])"

    with pytest.raises(ImportError, match=f"import {name}"):
        run_cell(source, "guarded")


def test_computed_import_control() -> None:
    """The same call imports under `open`."""
    names = run_cell("name = 'ssecorpbus'[::-1]\nresult = __import__(name)", "open")

    assert getattr(names["result"], "__name__", "") == "subprocess"


def test_computed_submodule_is_refused_when_it_runs() -> None:
    """A refused submodule cannot be had through the list of names to import."""
    with pytest.raises(ImportError, match="no network"):
        run_cell("parts = ['request']\n__import__('urllib', fromlist=tuple(parts))", "guarded")


def test_refused_import_with_a_fallback_takes_the_fallback() -> None:
    """`try: import numpy` fails as if it were not there, and the cell goes on."""
    source = "try:\n    import numpy\nexcept ImportError as error:\n    told = str(error)\n"

    assert "statistics" in str(run_cell(source, "guarded")["told"])


def test_a_try_that_does_not_catch_import_errors_is_no_fallback() -> None:
    """Only a handler that would catch the failure lets a refused import through."""
    source = "try:\n    import numpy\nexcept ValueError:\n    pass\n"

    with pytest.raises(CellRejectedError, match="numpy"):
        compile_cell(source, policy="guarded", filename="<cell 1>")


def test_the_library_imports_for_itself() -> None:
    """Modules outside the list still load where the library needs them, in Python and in C."""
    source = (
        "import datetime, time, sys, collections, dataclasses\n"
        "for name in ('_strptime',): sys.__dict__['modules'].pop(name, None)\n"
        "when = datetime.datetime.strptime('2024-03-05', '%Y-%m-%d')\n"
        "Row = collections.namedtuple('Row', 'a b')\n"
        "Made = dataclasses.make_dataclass('Made', ['a'])\n"
        "total = Row(1, 2).a + Made(3).a\n"
    )

    assert run_cell(source, "guarded")["total"] == 4


def test_member_of_an_own_object_is_no_module_member() -> None:
    """A variable that shares its name with a module is judged as the variable it is."""
    source = "class Talk:\n    system = 'be brief'\nos = Talk()\nresult = os.system\n"

    assert run_cell(source, "guarded")["result"] == "be brief"


def test_module_of_an_earlier_cell_is_still_judged() -> None:
    """An import in one cell does not open its refused members to the next."""
    namespace = namespace_for("guarded")
    run_in(namespace, "import os", "guarded")

    with pytest.raises(CellRejectedError, match=r"os\.system"):
        run_in(namespace, "os.system('ls')", "guarded")


def test_aliased_module_is_still_judged() -> None:
    """A second name for a module changes nothing."""
    source = "import os as operating, concurrent.futures\noperating.popen('ls')"

    with pytest.raises(CellRejectedError, match=r"os\.popen"):
        compile_cell(source, policy="guarded", filename="<cell 1>")
