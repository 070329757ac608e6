"""Where this program keeps what it can make again.

Without it what is made once would be made anew each time, or lie where a backup takes it along.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Returns the folder for what can be made again; it need not be there yet."""
    # Not a setting: the variable is the system's own, and everybody's caches follow it.
    chosen = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251 - settings read the environment
    base = Path(chosen) if chosen else Path.home() / ".cache"
    return base / "rlm-sandbox"
