"""Lets cells share memory although no cell may start the program that would clean up after it.

Without it `multiprocessing.shared_memory` would end in a `BrokenPipeError`: its resource tracker is
a fresh interpreter, and the REPL process has given up starting programs.
"""

from __future__ import annotations

from types import ModuleType


def track_nothing(resource_tracker: ModuleType) -> None:
    """Has the tracker told nothing: what a cell forgets ends with its sandbox."""
    for name in ("ensure_running", "register", "unregister"):
        setattr(resource_tracker, name, _do_nothing)


def _do_nothing(*_arguments: object) -> None:
    pass
