"""The image's build scripts, to be called from a test.

Their folder may not be a package, because it would hide the Docker SDK, which has the same name; so
they import each other by bare names, as they do when they run.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

#: A build script, or a value of one: no type checker follows a bare name to that folder.
Script: TypeAlias = Any

FOLDER = Path(__file__).parents[2] / "docker"


def load(name: str) -> Script:
    """Returns the build script `name`, imported as the build itself imports it."""
    return load_from(FOLDER, name)


def load_from(folder: Path, name: str) -> Script:
    """Returns the script `name` of a folder that is no package."""
    with patch.object(sys, "path", [str(folder), *sys.path]):
        return importlib.import_module(name)
