"""What holds for one call of `rlm`, whichever command is meant.

Without it the options that stand before the command would travel in global variables, and a test
could not put other parts under a command than a real engine and real models.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # both are slow to import, and `rlm --help` needs neither
    from orchestrator.app import Parts


@dataclass(slots=True)
class Invocation:
    """One call of `rlm`.

    Attributes:
        parts: What commands are composed of; None means the real ones.
        config_file: As given with `--config`.
        is_debug: Whether failures show where they come from.
    """

    parts: "Parts | None" = None
    config_file: Path | None = None
    is_debug: bool = False


def invocation_of(ctx: typer.Context) -> Invocation:
    """Returns the call that a command belongs to."""
    found = ctx.find_root().obj
    if not isinstance(found, Invocation):
        raise TypeError(f"expected commands to run under Invocation, got {type(found).__name__}")
    return found
