"""`rlm export`: trajectories as rows to train on, or as a log for the reference viewer."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.exit_codes import EXIT_CODES_HELP
from orchestrator.cli.new_command import new_command
from orchestrator.cli.progress import say
from orchestrator.cli.trajectory_files import ReadFile, read_files
from orchestrator.domain import Json
from orchestrator.engine.prompts.figures import counted
from orchestrator.errors import InputError
from orchestrator.trajectory.rl_episodes import rl_episode
from orchestrator.trajectory.run_labels import is_finished
from orchestrator.trajectory.sft_rows import sft_rows
from orchestrator.trajectory.tree import RecordedRun, find_run
from orchestrator.trajectory.visualizer_log import visualizer_rows

_STDOUT = "-"

command = new_command()


class ExportForm(StrEnum):
    """What trajectories are turned into."""

    SFT = "sft"
    RL = "rl"
    VISUALIZER = "visualizer"


@command.command("export", epilog=EXIT_CODES_HELP)
def export(  # noqa: PLR0913, PLR0917 - a command line's options
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Trajectories, or folders with *.jsonl in them."),
    ],
    to: Annotated[
        ExportForm,
        typer.Option(
            help="`sft`: chats; `rl`: episodes without rewards; `visualizer`: one run, for the "
            "viewer of the reference implementation."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH|-",
            help="A file to write, or standard output; for `visualizer` a folder where there are "
            "several runs.",
        ),
    ],
    run: Annotated[
        str, typer.Option("--run", metavar="ID", help="Only this run; a beginning will do.")
    ] = "",
    finished_only: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool, typer.Option("--finished-only", help="Leave out runs that ended without answering.")
    ] = False,
    root_only: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--root-only", help="Leave out child runs.")
    ] = False,
) -> None:
    """Turn trajectories into JSON lines for training, or into a log for a viewer.

    Child runs are rows of their own, but for the viewer, where they are nested. The context is
    never in any of them.
    """
    files = list(read_files(sources))
    for file in files:
        if file.problem:
            raise InputError(file.problem)
    _refuse_overwriting(files, out)
    runs = _chosen(files, run_id=run, is_nested=to is ExportForm.VISUALIZER or root_only)
    kept = [each for each in runs if is_finished(each) or not finished_only]
    if not kept:
        raise InputError("there is no run to export: none of those in the files is meant")
    if to is ExportForm.VISUALIZER:
        _export_logs(kept, out)
        return
    rows = [row for each in kept for row in _rows(each, to)]
    _write(rows, out)
    without = len([each for each in kept if not any(_id(row) == each.run_id for row in rows)])
    nothing_said = f"; {counted(without, 'run')} without a reply of a root model" if without else ""
    say(f"{counted(len(rows), 'row')} of {counted(len(kept), 'run')}{nothing_said}.")


def _chosen(files: Sequence[ReadFile], *, run_id: str, is_nested: bool) -> list[RecordedRun]:
    top = [run for file in files for run in file.runs]
    if run_id:
        top = list(find_run(top, run_id))
    if is_nested or run_id:
        return top
    return [run for each in top for run in each.walk()]


def _rows(run: RecordedRun, form: ExportForm) -> list[dict[str, Json]]:
    if form is ExportForm.SFT:
        return sft_rows(run)
    episode = rl_episode(run)
    return [] if episode is None else [episode]


def _id(row: dict[str, Json]) -> Json:
    metadata = row["metadata"]
    return metadata["run_id"] if isinstance(metadata, dict) else None


def _export_logs(runs: Sequence[RecordedRun], out: str) -> None:
    """Writes one log a run: the viewer reads one from a file."""
    if out != _STDOUT and (Path(out).is_dir() or out.endswith("/")):
        for run in runs:
            _write(visualizer_rows(run), str(Path(out) / _file_name(run)))
        say(f"{counted(len(runs), 'log')} in {out}.")
        return
    if len(runs) > 1:
        raise InputError(
            f"the viewer reads one run a file, and there are {len(runs)}: name one with --run, or "
            "a folder with --out FOLDER/"
        )
    _write(visualizer_rows(runs[0]), out)


def _file_name(run: RecordedRun) -> str:
    """Returns the name of a run's own file; a trajectory from elsewhere may say anything.

    Raises:
        InputError: The run's id could lead out of the folder.
    """
    if not re.fullmatch(r"[\w-]{1,100}", run.run_id):
        raise InputError(f"run {run.run_id!a:.60} has an id that is no file name; use --out FILE")
    return f"{run.run_id}.jsonl"


def _refuse_overwriting(files: Sequence[ReadFile], out: str) -> None:
    """Refuses a target that is one of the sources: a mistyped command must not cost a trajectory.

    Raises:
        InputError: It is one.
    """
    target = Path(out)
    if out == _STDOUT or not target.is_file():
        return
    for file in files:
        if file.path.samefile(target):
            raise InputError(f"--out {out} is one of the trajectories; name another file")


def _write(rows: Sequence[dict[str, Json]], out: str) -> None:
    lines = [f"{json.dumps(row)}\n" for row in rows]
    if out == _STDOUT:
        sys.stdout.writelines(lines)
        return
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # For its owner alone, as trajectories are: it holds the same texts.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
            file.writelines(lines)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another") from error
