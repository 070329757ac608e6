"""Finds and reads the trajectories that a command is given: files, and folders of files.

Without it one file that a killed process or another release left would keep a command from reading
the thousand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records
from orchestrator.trajectory.tree import RecordedRun

_PATTERN = "*.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """One file, and the runs of callers' in it; or why it could not be read.

    Attributes:
        path: As it was given, or as it was found in a folder.
        runs: Empty where there are none, or it could not be read.
        problem: Empty where there is none.
    """

    path: Path
    runs: tuple[RecordedRun, ...] = ()
    problem: str = ""


def read_files(sources: Sequence[Path]) -> Iterator[ReadFile]:
    """Yields each file in turn; nothing of the one before is kept.

    Args:
        sources: Files, and folders of which every `*.jsonl` is read, at any depth.
    """
    for path in _files_of(sources):
        if path.is_dir():
            yield ReadFile(path=path, problem=f"no {_PATTERN} in this folder")
            continue
        try:
            yield ReadFile(path=path, runs=runs_of(read_records(path)))
        except InputError as error:
            yield ReadFile(path=path, problem=str(error))


def _files_of(sources: Sequence[Path]) -> Iterator[Path]:
    """Yields the files; a folder without any stands for itself."""
    for source in sources:
        if not source.is_dir():
            yield source
            continue
        found = sorted(path for path in source.rglob(_PATTERN) if path.is_file())
        yield from found or [source]
