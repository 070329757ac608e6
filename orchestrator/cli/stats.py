"""`rlm stats`: many trajectories in figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from orchestrator.cli.drawing import draw
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.progress import say
from orchestrator.cli.stats_tables import drawn_groups, drawn_most_expensive, in_one_sentence
from orchestrator.cli.trajectory_files import read_files
from orchestrator.errors import InputError
from orchestrator.trajectory.statistics import (
    GroupFigures,
    RunFigures,
    figures_of,
    group_figures,
    most_expensive,
)

#: Goes up when a reader of the old version could misread the JSON of the new one.
STATS_VERSION: Final = 1

_NAMED_RUNS = 5
_METHOD = "nearest-rank"

command = new_command()


class Grouping(StrEnum):
    """What runs are told apart by."""

    MODEL = "model"
    PROFILE = "profile"


@command.command("stats", epilog=EXIT_CODES_HELP)
def stats(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DIR|FILE…", help="Trajectories, or folders with *.jsonl in them."),
    ],
    by: Annotated[
        Grouping | None,
        typer.Option(help="A table for each root model and its profile, or for each profile."),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """Say what runs usually cost, how long they take, and which ones are the tail.

    Percentiles are by nearest rank: each is the figure of a run that happened. Child runs are in
    the figures of their parents. Ends with 1 if a file could not be read; the others are counted.
    """
    runs: list[RunFigures] = []
    problems: dict[str, str] = {}
    file_count = 0
    for file in read_files(sources):
        file_count += 1
        runs += [figures_of(run, file=str(file.path)) for run in file.runs]
        if file.problem:
            problems[str(file.path)] = file.problem
            say(f"skipped: {file.problem}")
    if not runs:
        raise InputError("none of the files holds a run: there is nothing to count")
    groups = _grouped(runs, by)
    costly = most_expensive(runs, count=_NAMED_RUNS)
    if as_json:
        report = {
            "version": STATS_VERSION,
            "percentiles": _METHOD,
            "file_count": file_count,
            "groups": [asdict(group) for group in groups],
            "most_expensive": [asdict(run) for run in costly],
            "skipped": problems,
        }
        sys.stdout.write(f"{json.dumps(report)}\n")
    else:
        drawn = [in_one_sentence(runs, file_count=file_count), *drawn_groups(groups)]
        draw([*drawn, *drawn_most_expensive(costly)], stream=sys.stdout, width=None)
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _grouped(runs: Sequence[RunFigures], by: Grouping | None) -> list[GroupFigures]:
    """Returns all runs as one group, and as several below where that is asked for."""
    groups = [group_figures("", runs)]
    if by is None:
        return groups
    by_name: dict[str, list[RunFigures]] = {}
    for run in runs:
        by_name.setdefault(_name(run, by), []).append(run)
    return [*groups, *(group_figures(name, by_name[name]) for name in sorted(by_name))]


def _name(run: RunFigures, by: Grouping) -> str:
    profile = f"profile {run.profile}"
    return profile if by is Grouping.PROFILE else f"{run.root_model}, {profile}"
