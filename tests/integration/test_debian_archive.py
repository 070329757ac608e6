"""What is fetched from Debian's archive is what was locked, or the build ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.build_scripts import Script, load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

archives = load("debian_archive")
choices = load("package_choice")
locks = load("package_lock")
tools = load("build_tools")

ARCHITECTURE = "amd64"
NOBODY = "http://127.0.0.1:9"  # the port of discard, where nobody listens


@pytest.fixture(scope="module")
def sources() -> list[Script]:
    return list(archives.find_sources())


@pytest.fixture(scope="module")
def archive(sources: list[Script], tmp_path_factory: pytest.TempPathFactory) -> Script:
    """The archive that this host's mirror has, its indexes fetched and their signatures checked."""
    opened = archives.Archive(
        tmp_path_factory.mktemp("archive"), architecture=ARCHITECTURE, sources=sources
    )
    opened.update()
    return opened


@pytest.fixture(scope="module")
def tzdata(archive: Script) -> Script:
    """One package that the mirror has, and that depends on little."""
    return next(package for package in archive.resolve(["tzdata"]) if package.name == "tzdata")


def lock_of(*packages: object, moment: object) -> Script:
    return locks.PackageLock(
        suite="trixie", moment=moment, packages={ARCHITECTURE: tuple(packages)}
    )


def of_security(sources: list[Script]) -> list[Script]:
    """Returns a mirror that lacks what is not replaced for security; its index is a small one."""
    return [source for source in sources if source.suite == "trixie-security"]


def test_locked_package_is_fetched(archive: Script, tzdata: Script, tmp_path: Path) -> None:
    """The control of all that follows: a package that is what the lock says is let through."""
    assert archive.find_missing([tzdata]) == []

    assert list(archive.download([tzdata], tmp_path / "debs")) == ["tzdata"]


def test_package_with_another_content_is_not_unpacked(
    archive: Script, tzdata: Script, tmp_path: Path
) -> None:
    """A .deb that is not the locked one ends the build, although Debian signed for it."""
    other = replace(tzdata, sha256="0" * 64)

    with pytest.raises(SystemExit, match=r"expected sha256:0+ as locked.*not unpacked"):
        archive.download([other], tmp_path / "debs")


def test_index_that_knows_the_version_by_another_hash_is_refused(
    archive: Script, tzdata: Script
) -> None:
    """One version with two contents is no update: it ends the build before anything is fetched."""
    with pytest.raises(SystemExit, match="One version has one content"):
        archive.find_missing([replace(tzdata, sha256="0" * 64)])


def test_version_that_the_mirror_lost_is_missed(archive: Script, tzdata: Script) -> None:
    """A version that was replaced is found out, and so is a package that is there no more."""
    old = replace(tzdata, version="2020a-0+deb11u1")
    gone = replace(tzdata, name="no-such-package")

    assert archive.find_missing([old, tzdata, gone]) == [old, gone]


def test_lost_version_without_snapshots_fails_and_says_what_to_do(
    archive: Script, sources: list[Script], tzdata: Script, tmp_path: Path
) -> None:
    """Nothing newer is taken in the place of what is pinned; the error has each of the ways on."""
    old = replace(tzdata, version="2020a-0+deb11u1")

    with pytest.raises(tools.ToolError) as error:
        choices.fetch_packages(
            choices.PackageChoice.PINNED,
            lock_of(old, moment=archive.moment),
            choices.Places(mirrors=of_security(sources), snapshots=NOBODY),
            architecture=ARCHITECTURE,
            scratch=tmp_path,
        )

    said = str(error.value)
    assert "tzdata=2020a-0+deb11u1 could not be had" in said
    for way in (NOBODY, "RLM_DEBIAN_SNAPSHOTS", "--packages newest", "make lock"):
        assert way in said


class _Snapshots(BaseHTTPRequestHandler):
    """Stands in for past states: whatever moment is asked for, it sends on to today's mirrors."""

    def do_GET(self) -> None:  # the name is http.server's
        """Redirects `/ARCHIVE/MOMENT/…`."""
        assert isinstance(self.server, _SnapshotServer)
        _, archive, moment, rest = self.path.split("/", 3)
        self.server.asked.add((archive, moment))
        self.send_response(302)
        self.send_header("Location", f"{self.server.mirrors[archive].rstrip('/')}/{rest}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's
        """Stays silent."""


class _SnapshotServer(ThreadingHTTPServer):
    mirrors: dict[str, str]
    asked: set[tuple[str, str]]


@pytest.fixture
def snapshots(sources: list[Script]) -> Iterator[_SnapshotServer]:
    with _SnapshotServer(("127.0.0.1", 0), _Snapshots) as server:
        by_suite = {source.suite: source.mirror for source in sources}
        server.mirrors = {
            "debian": by_suite["trixie"],
            "debian-security": by_suite["trixie-security"],
        }
        server.asked = set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_lost_version_is_taken_from_the_snapshots(
    archive: Script, sources: list[Script], snapshots: _SnapshotServer, tmp_path: Path
) -> None:
    """What the mirror has no longer is fetched from soon after the lock was made, hash and all."""
    wanted = next(item for item in archive.resolve(["libgcc-s1"]) if item.name == "libgcc-s1")

    fetched = choices.fetch_packages(
        choices.PackageChoice.PINNED,
        lock_of(wanted, moment=archive.moment),
        choices.Places(
            mirrors=of_security(sources), snapshots=f"http://127.0.0.1:{snapshots.server_port}"
        ),
        architecture=ARCHITECTURE,
        scratch=tmp_path,
    )

    assert fetched.is_pinned
    assert list(fetched.debs) == ["libgcc-s1"]
    assert {archive for archive, _ in snapshots.asked} == {"debian", "debian-security"}
    moments = {moment for _, moment in snapshots.asked}
    assert len(moments) == 2
    assert min(moments) > f"{archive.moment:%Y%m%dT%H%M%SZ}"
