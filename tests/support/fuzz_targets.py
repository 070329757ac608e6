"""Finds the fuzz targets and what each has been fed with so far.

Without it the fuzzer and the tests that replay its corpus would each have a list of their own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"


class FuzzTarget(NamedTuple):
    """One parser and its properties.

    Attributes:
        name: What it is about.
        path: The module.
    """

    name: str
    path: Path

    @property
    def corpus(self) -> Path:
        """The folder of its inputs, one a file."""
        return FUZZ / "corpus" / self.name

    def load(self) -> ModuleType:
        """Imports the module anew."""
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def entry(self) -> Callable[[bytes], None]:
        """Returns what is called with each input; it raises where a property does not hold."""
        entry: Callable[[bytes], None] = self.load().TestOneInput
        return entry

    def inputs(self) -> list[bytes]:
        """Returns the corpus."""
        return [path.read_bytes() for path in sorted(self.corpus.glob("*"))]


def fuzz_targets() -> list[FuzzTarget]:
    """Returns every target."""
    return [
        FuzzTarget(path.stem.removeprefix("fuzz_"), path) for path in sorted(FUZZ.glob("fuzz_*.py"))
    ]
