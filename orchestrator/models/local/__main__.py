"""The process `local_endpoint` starts: serves until its standard input closes.

Without it the engine would run inside the orchestrator, and its crash would be the run's. A pipe as
the sign to end also holds where the parent was killed and could not say anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.models.local.serve import serve


def main(arguments: list[str]) -> int:
    """Serves the weights and the port named; returns the exit code."""
    weights, port = arguments
    # The engine's own messages go to standard output too; the parent reads one line there.
    parent = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(
            Path(weights),
            port=int(port),
            on_ready=lambda url: os.write(parent, f"{url}\n".encode()),
            wait=sys.stdin.buffer.read,
        )
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
