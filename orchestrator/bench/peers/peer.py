"""The projects that this one is measured against, and what each of them does not do.

Without it a table would show who is faster and hide what the faster one leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another implementation that can be measured on this machine.

    Attributes:
        name: Names it in reports.
        requirement: What is installed, exactly.
        adapter: The file beside `drivers/drive.py` that knows it.
        lacks: What it does not do, in a phrase for a table.
        cells_a_turn: Empty cells in one turn; fewer of a slow one.
        queries_a_turn: Queries in one turn, likewise.
        changed: What was changed so that it runs in an image made from ours.
    """

    name: str
    requirement: str
    adapter: str
    lacks: str
    cells_a_turn: int
    queries_a_turn: int
    changed: str


RLM_HARNESS: Final = Peer(
    name="rlm-harness",
    requirement="rlm-harness==1.24.1",
    adapter="rlm_harness.py",
    lacks=(
        "no confinement of cells within the container, which is sealed by the engine alone and "
        "writable; no checkpoints: a cell that is killed takes every variable along; queries go "
        "one after the other; what the sandbox says is parsed in the process that has the keys"
    ),
    cells_a_turn=40,
    queries_a_turn=50,
    changed="nothing but its image: ours, as root, with `python` on its path",
)
RLMS: Final = Peer(
    name="rlms",
    requirement="rlms==0.1.3",
    adapter="rlms.py",
    lacks=(
        "cells are root in a container with a network and no limits; a new interpreter for each "
        "cell; state goes through dill, which drops what cannot be pickled"
    ),
    cells_a_turn=3,
    queries_a_turn=20,
    changed=(
        "its image: ours, as root, with `python` on its path, dill and requests beside, and a "
        "program `tail` that waits; `pip install` in the container fails and is not missed"
    ),
)
PEERS: Final = (RLM_HARNESS, RLMS)
