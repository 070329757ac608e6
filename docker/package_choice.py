"""Decides which versions of the Debian packages go in, and says what to do when they are gone.

Debian replaces packages, for good reasons, and its mirrors forget the old ones. A build that then
took the new ones unasked would make the lock a decoration; one that just failed would leave whoever
installs this a month after its release with nothing.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from build_tools import ToolError, say
from debian_archive import SUITE, Archive, Source, find_snapshots
from package_lock import LockedPackage, PackageLock

#: What the rest of the image is resolved from; the lock has those of their dependencies, too, of
#: which something goes in.
PACKAGES = (
    "base-files",  # the licences and the release file
    "libc6",
    "libgcc-s1",
    "libpython3.13-stdlib",
    "libstdc++6",
    "python3.13-minimal",
    "tzdata",
)


class PackageChoice(StrEnum):
    """Which versions go in."""

    PINNED = "pinned"  # those of the lock, or the build fails
    NEWEST = "newest"  # what the signed archive has now; written down in the image
    PINNED_OR_NEWEST = "pinned-or-newest"  # the latter where the mirror has the former no longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Packages that lie on this disk, each with the hash that the lock says."""

    lock: PackageLock
    debs: Mapping[str, Path]
    is_pinned: bool  # by the lock this release came with


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where packages are fetched from."""

    mirrors: Sequence[Source]  # what the archive has now
    snapshots: str  # address of its past states, for versions that mirrors have no longer


def fetch_packages(
    choice: PackageChoice, lock: PackageLock, places: Places, *, architecture: str, scratch: Path
) -> Fetched:
    """Fetches the packages that `choice` means.

    Args:
        choice: Which versions.
        lock: The lock this release came with.
        places: Where from.
        architecture: Debian's name of it.
        scratch: An existing folder for what is fetched.

    Raises:
        ToolError: They cannot be had; the message has what to do.
    """
    archive = _open(scratch / "archive", architecture, places.mirrors)
    if choice is PackageChoice.NEWEST:
        return fetch_newest(archive, architecture=architecture, scratch=scratch)
    wanted = lock.of(architecture)
    missing = archive.find_missing(wanted)
    if missing and choice is PackageChoice.PINNED_OR_NEWEST:
        say(f"NOTE: the mirror has no longer {_list(missing)}: building from what it has now")
        return fetch_newest(archive, architecture=architecture, scratch=scratch)
    present = [package for package in wanted if package not in missing]
    debs = archive.download(present, scratch / "debs")
    if missing:
        say(f"the mirror has no longer {_list(missing)}: asking {places.snapshots}")
        old = _open_snapshot(scratch / "snapshot", lock, missing, architecture, places.snapshots)
        debs |= old.download(missing, scratch / "old-debs")
    return Fetched(lock=lock, debs=debs, is_pinned=True)


def fetch_newest(archive: Archive, *, architecture: str, scratch: Path) -> Fetched:
    """Fetches what `archive` has now, with everything that depends on, and locks it."""
    resolved = archive.resolve(PACKAGES)
    return Fetched(
        lock=PackageLock(suite=SUITE, moment=archive.moment, packages={architecture: resolved}),
        debs=archive.download(resolved, scratch / "debs"),
        is_pinned=False,
    )


def _open(folder: Path, architecture: str, sources: Sequence[Source]) -> Archive:
    folder.mkdir(parents=True)
    archive = Archive(folder, architecture=architecture, sources=sources)
    archive.update()
    return archive


def _open_snapshot(
    folder: Path,
    lock: PackageLock,
    missing: list[LockedPackage],
    architecture: str,
    snapshots: str,
) -> Archive:
    advice = (
        f"\nThe pinned Debian packages {_list(missing)} could not be had: this host's mirror has "
        "replaced them, as mirrors do. Nothing newer was taken instead. Either\n"
        f"  let this host reach {snapshots}, or a copy of it that RLM_DEBIAN_SNAPSHOTS names;\n"
        "  or build from what the mirror has now, signed by Debian, recorded in the image:\n"
        "    rlm image build --packages newest\n"
        "  or, in a source tree, pin that for everybody: make lock"
    )
    try:
        old = _open(folder, architecture, find_snapshots(snapshots, lock.moment))
    except ToolError as error:
        raise ToolError(f"{error}{advice}") from error
    if still_missing := old.find_missing(missing):
        raise ToolError(f"{snapshots} does not have {_list(still_missing)} either.{advice}")
    return old


def _list(packages: list[LockedPackage]) -> str:
    return ", ".join(map(str, packages))
