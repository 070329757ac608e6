"""The trajectory of a run as a file: one event a line, written as it happens.

Without it a run that was killed would leave nothing to find out why.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from orchestrator.errors import InputError
from orchestrator.events import LIVE_EVENTS, RunEvent
from orchestrator.trajectory.lines import RecordedEvent, line_of, record_of

_logger = logging.getLogger(__name__)

#: Put after what a killed process left of a line, before anything is appended. No line of JSON
#: ends with it, so a reader can tell what was cut off from what is wrong.
_CUT_MARK = b" (cut off)"


class TrajectoryFile:
    """An `EventSink` that appends to a file. A context manager; leaving it closes the file.

    A disk that fills up costs the trajectory, never the run: the first line that cannot be written
    is the last that is tried, and `written_path` is None from then on.
    """

    def __init__(self, path: Path, *, records_text: bool) -> None:
        """Opens the file for appending and makes the folders above it; see `open_trajectory`."""
        self._path = path
        self._records_text = records_text
        self._is_whole = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # For its owner alone: it holds what a user asked and what the context said.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            file = os.fdopen(descriptor, "a", encoding="ascii", newline="\n")
            try:
                _end_last_line(path, descriptor)
            except OSError:
                file.close()
                raise
        except OSError as error:
            raise InputError(
                f"the trajectory cannot be written to {path}: {error.strerror}; name another file"
            ) from error
        self._file: IO[str] | None = file

    @property
    def written_path(self) -> Path | None:
        """The file, or None where something of the run is missing in it."""
        return self._path if self._is_whole else None

    def __call__(self, event: RunEvent) -> None:
        """Writes one event through to the file; those of a moment are left out.

        Raises nothing: a sink must not.
        """
        if self._file is None or not self._is_whole or isinstance(event, LIVE_EVENTS):
            return
        line = line_of(event, time=datetime.now(UTC), records_text=self._records_text)
        try:
            self._file.write(f"{line}\n")
            self._file.flush()
        except OSError as error:
            self._is_whole = False
            _logger.warning(
                "the trajectory %s ends here, the run goes on: %s", self._path, error.strerror
            )

    def __enter__(self) -> Self:
        """Returns the sink."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file. Idempotent."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            # What a full disk did not take is still in the buffer; that has been said.
            if self._is_whole:
                _logger.warning("the trajectory %s is not whole: %s", self._path, error.strerror)
            self._is_whole = False


def open_trajectory(path: Path, *, records_text: bool = True) -> TrajectoryFile:
    """Opens a file to append a trajectory to.

    Args:
        path: Made, with its folders, where it is not there.
        records_text: Whether questions, prompts, cells, output and answers are kept; else each is
            replaced by its digest and length. The context itself is never in a trajectory.

    Raises:
        InputError: The file cannot be written. Later failures to write raise nothing.
    """
    return TrajectoryFile(path, records_text=records_text)


def read_trajectory(path: Path) -> tuple[RunEvent, ...]:
    """Returns the events in a file; see `read_records`."""
    return tuple(record.event for record in read_records(path))


def read_records(path: Path) -> Iterator[RecordedEvent]:
    """Yields what each line of a file holds, one at a time.

    What a killed process left of its last line is left out.

    Raises:
        InputError: The file cannot be read, or a line is not an event of a known version.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") or line.endswith(_CUT_MARK + b"\n"):
                    continue
                try:
                    yield record_of(line.decode())
                except (UnicodeDecodeError, InputError) as error:
                    raise InputError(f"{path}, line {number}: {error}") from None
    except OSError as error:
        raise InputError(f"the trajectory {path} cannot be read: {error.strerror}") from error


def _end_last_line(path: Path, descriptor: int) -> None:
    """Ends what a killed process left of a line, so that the next event has one of its own."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            os.write(descriptor, _CUT_MARK + b"\n")
