"""Sets a module of the standard library up when a cell first imports it.

Without it what has to be set up would be imported into every REPL process, by those that never
use it too: `multiprocessing` and SQLite together take longer than all else at its start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A tenth of what the process imports hangs from it, by way of `tempfile`.
    from importlib.abc import Loader


def after_first_import(name: str, set_up: Callable[[ModuleType], None]) -> None:
    """Has `set_up` called with the module `name` once it has been loaded for the first time."""
    sys.meta_path.insert(0, _Finder(name, set_up))


class _Finder:
    """Finds one module, where everybody would, and steps aside."""

    def __init__(self, name: str, set_up: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._set_up = set_up

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            # One by what it does, not by its class: to import that would take longer than all this.
            spec.loader = _Loader(spec.loader, self._set_up)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads as another loader does, and sets the module up."""

    def __init__(self, loader: Loader, set_up: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._set_up = set_up

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader.create_module`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader.exec_module`."""
        self._loader.exec_module(module)
        # Whoever asks later asks the loader that knows the source (inspect.getsource).
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._set_up(module)
