"""Gadgets that broke other interpreters, under both policies.

What a sandbox makes of those that get through is tried in tests/security.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.cell_corpus import run_cell
from support.gadgets import GADGETS, Gadget, name_of

from sandbox_image.repl.language import CellRejectedError, PolicyError

_ROOT = Path(__file__).resolve().parents[2]
_REFUSED = [gadget for gadget in GADGETS if gadget.is_refused]
_LET_THROUGH = [gadget for gadget in GADGETS if not gadget.is_refused]


@pytest.mark.parametrize("gadget", _REFUSED, ids=lambda gadget: gadget.name)
def test_gadget_is_refused(gadget: Gadget) -> None:
    """What has no use but as a way into the interpreter is refused, with what to write instead."""
    with pytest.raises((CellRejectedError, PolicyError)):
        run_cell(gadget.source, "guarded")


@pytest.mark.parametrize("gadget", _REFUSED, ids=lambda gadget: gadget.name)
def test_gadget_control(gadget: Gadget) -> None:
    """The same cell gets there under `open`."""
    if gadget.name == "pickle":
        assert callable(run_cell(gadget.source, "open")["reached"])
    else:
        assert name_of(run_cell(gadget.source, "open")["reached"]) == gadget.reaches


@pytest.mark.parametrize("gadget", _LET_THROUGH, ids=lambda gadget: gadget.name)
def test_gadget_that_is_let_through_is_known(gadget: Gadget) -> None:
    """What the policy does not see is stated here, so that nobody takes the policy for a wall."""
    assert name_of(run_cell(gadget.source, "guarded")["reached"]) == gadget.reaches


@pytest.mark.parametrize("path", ["docker/requirements.lock", "requirements.lock"])
def test_restricted_python_has_every_fix(path: str) -> None:
    """Both sides of the wall have the release in which the last advisory is fixed, or a newer."""
    [version] = re.findall(
        r"^restrictedpython==(\d+)\.", (_ROOT / path).read_text(), re.MULTILINE | re.IGNORECASE
    )

    assert int(version) >= 9
