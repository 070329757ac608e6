"""`rlm trace`: one trajectory, to be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from orchestrator.cli.drawing import draw
from orchestrator.cli.exit_codes import EXIT_CODES_HELP
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.trace_spending import drawn_spending
from orchestrator.cli.trace_view import RunView
from orchestrator.errors import InputError
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records
from orchestrator.trajectory.tree import RecordedRun, find_run
from orchestrator.trajectory.tree_json import run_to_json

command = new_command()

_LEAST_COLUMNS = 40


@command.command("trace", epilog=EXIT_CODES_HELP)
def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trajectory.")],
    run: Annotated[
        str, typer.Option("--run", metavar="ID", help="Only this run; a beginning will do.")
    ] = "",
    width: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=_LEAST_COLUMNS,
            help="Columns to draw in.",
            show_default="the terminal's; 120 in a pipe",
        ),
    ] = None,
    full: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--full", help="Cut nothing.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
) -> None:
    """Show what happened in the runs of a trajectory.

    Each turn with its cells, what they asked and printed, child runs where they were started, and
    where the money and the time went. Also of a run that was killed, up to there.
    """
    runs = read_runs(file, run_id=run)
    if as_json:
        sys.stdout.write(f"{json.dumps({'runs': [run_to_json(each) for each in runs]})}\n")
        return
    view = RunView(is_full=full)
    drawn: list[RenderableType] = []
    for each in runs:
        if drawn:
            drawn += [Text(), Text()]
        drawn += [*view.drawn(each), Text(), *drawn_spending(each)]
    draw(drawn, stream=sys.stdout, width=width)


def read_runs(path: Path, *, run_id: str) -> tuple[RecordedRun, ...]:
    """Returns the runs of a trajectory, or the one that is meant.

    Raises:
        InputError: The file cannot be read, holds no run, or not one that is meant.
    """
    runs = runs_of(read_records(path))
    if not runs:
        raise InputError(f"{path} holds no run: nothing was recorded in it")
    if not run_id:
        return runs
    found = find_run(runs, run_id)
    if len(found) != 1:
        known = [each.run_id for top in found or runs for each in top.walk()]
        count = "no run" if not found else f"{len(found)} runs"
        raise InputError(
            f"{path} has {count} whose id begins with {run_id!r:.60}; there are: "
            f"{', '.join(known[:10])}"
        )
    return found
