"""The options that several commands have, and the settings they lead to.

Without it the same option would have two spellings, or two meanings.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.app import REAL_PARTS, Parts
from orchestrator.cli.invocation import invocation_of
from orchestrator.domain import LanguagePolicy
from orchestrator.settings import Settings, load, parse_size

#: What holds where neither a file nor the environment says otherwise.
DEFAULTS: Final = Settings()


def _parse_memory(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, got {text!r}") from error


def parse_seconds(text: str) -> float:
    """Reads a duration for an option.

    Raises:
        typer.BadParameter: It is not a number above zero, or has no end.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise typer.BadParameter(f"expected seconds, a number above zero, got {text!r}")
    return seconds


def parse_usd(text: str) -> float:
    """Reads an amount of money for an option.

    Raises:
        typer.BadParameter: It is not a number above zero, or has no end.
    """
    try:
        usd = float(text.removeprefix("$"))
    except ValueError:
        usd = math.nan
    if not (math.isfinite(usd) and usd > 0):
        raise typer.BadParameter(f"expected US dollars, a number above zero, got {text!r}")
    return usd


def default_is(value: float | str) -> str:
    """Returns what help says of a default that the settings file may change."""
    return f"[default: {value:g}]" if isinstance(value, float) else f"[default: {value}]"


PolicyOption = Annotated[
    LanguagePolicy | None,
    typer.Option("--policy", help=f"What of Python a cell may use. {default_is(DEFAULTS.policy)}"),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="`auto`, `runc`, `gvisor`, `required`, or the engine's name for another. "
        f"{default_is(DEFAULTS.runtime)}",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=parse_seconds,
        help="What one cell may take, not counting its queries. "
        f"{default_is(DEFAULTS.cell.wall_s)}",
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=_parse_memory,
        help="Memory of the sandbox: 512m, 2g. "
        f"{default_is(f'{DEFAULTS.sandbox.memory_bytes // 2**20}m')}",
    ),
]


def read_settings(ctx: typer.Context, overrides: dict[str, Any] | None = None) -> Settings:
    """Reads the settings for a command; options that were not given are None in `overrides`."""
    config_file: Path | None = invocation_of(ctx).config_file
    return load(config_file=config_file, overrides=overrides)


def parts_of(ctx: typer.Context) -> Parts:
    """Returns what the command is composed of."""
    return invocation_of(ctx).parts or REAL_PARTS
