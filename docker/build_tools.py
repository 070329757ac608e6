"""Runs the tools that the build stands on, and ends the build with their own words if one fails.

Without it a failing apt-get would surface as a Python traceback that says nothing of the mirror.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 20


class ToolError(SystemExit):
    """A tool is missing or failed. Not caught, it ends this program with the tool's last words."""


def say(line: str) -> None:
    """Prints one line of progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Runs a tool to its end and returns its standard output.

    Args:
        command: The tool and its arguments.
        environment: Instead of this program's own.
        folder: Where to run it.

    Raises:
        ToolError: It is missing or exited with an error.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the build's literals and locked names, no shell
            command, check=False, capture_output=True, text=True, env=environment, cwd=folder
        )
    except FileNotFoundError:
        raise ToolError(
            f"{command[0]} is needed to build the image and was not found. Install it."
        ) from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        raise ToolError(f"{shlex.join(command)}\nfailed with exit code {done.returncode}:\n{tail}")
    return done.stdout
