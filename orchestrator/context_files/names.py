"""What documents are called: never more of a host's paths than tells them apart.

Without it a model would be shown where on the host a caller keeps things, or two documents of one
name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def sendable_name(name: str) -> str:
    """Returns a name as text that can be sent: on Linux it is bytes, and need not be UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Returns a name for each of some different paths: its last part, or more where two agree."""
    ways = [Path(os.path.realpath(path)).parts[1:] for path in paths]
    depth = 1
    while True:
        labels = ["/".join(way[-depth:]) for way in ways]
        if len(set(labels)) == len(set(ways)):
            return labels
        depth += 1
