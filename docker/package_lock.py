"""Reads and writes the lock of the image's Debian packages: name, version and hash of each.

Debian's archive keeps only the newest version of a package. Without a lock every build would hold
whatever was newest on its day, and nobody could tell whether two hosts run the same image.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_HEADER = """\
# The Debian packages of the sandbox image: name, version, and the SHA-256 of the .deb.
# `make lock` writes this file; `moment` is when the newest index it was made from was signed.
"""
_SECTION = re.compile(r"\[([a-z0-9]+)\]")
# Debian Policy 5.6.1 and 5.6.12 say which characters names and versions are made of. The names end
# up in command lines, so nothing else is let through.
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9+.-]+) ([0-9][A-Za-z0-9.+~:-]*) sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LockedPackage:
    """One Debian package, named by what is in it."""

    name: str
    version: str
    sha256: str  # of the .deb, in hexadecimal

    def __str__(self) -> str:
        """Returns the package as apt names one version."""
        return f"{self.name}={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLock:
    """What the image is made of, for each architecture; and when that was what the archive had."""

    suite: str
    moment: datetime
    packages: Mapping[str, tuple[LockedPackage, ...]]  # by Debian's name of an architecture

    def of(self, architecture: str) -> tuple[LockedPackage, ...]:
        """Returns the packages for one architecture.

        Raises:
            ValueError: The lock has none for it.
        """
        if architecture not in self.packages:
            known = ", ".join(sorted(self.packages))
            raise ValueError(
                f"the package lock is for {known}, and this machine is {architecture}. "
                "Build with `--packages newest`, which locks what the archive has for it."
            )
        return self.packages[architecture]


def parse_lock(text: str) -> PackageLock:
    """Reads a lock.

    Raises:
        ValueError: A line is not of the form, or the lock is incomplete; the message has the line.
    """
    values: dict[str, str] = {}
    packages: dict[str, list[LockedPackage]] = {}
    section: list[LockedPackage] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if heading := _SECTION.fullmatch(line):
            section = packages.setdefault(heading[1], [])
        elif section is None:
            key, _, value = line.partition(" ")
            values[key] = value
        elif match := _PACKAGE.fullmatch(line):
            name, version, sha256 = match.groups()
            section.append(LockedPackage(name=name, version=version, sha256=sha256))
        else:
            raise ValueError(
                f"package lock, line {number}: expected `name version sha256:…`, got {line!r}"
            )
    if values.keys() != {"suite", "moment"} or not packages or not all(packages.values()):
        raise ValueError(
            "package lock: expected `suite`, `moment` and a section of packages for each "
            f"architecture, got the keys {sorted(values)} and the sections {sorted(packages)}"
        )
    return PackageLock(
        suite=values["suite"],
        moment=datetime.strptime(values["moment"], _STAMP).replace(tzinfo=UTC),
        packages={name: tuple(sorted(listed)) for name, listed in packages.items()},
    )


def format_lock(lock: PackageLock) -> str:
    """Returns the text of a lock; the same lock always gives the same text."""
    lines = [f"{_HEADER}suite {lock.suite}", f"moment {lock.moment.strftime(_STAMP)}"]
    for architecture, packages in sorted(lock.packages.items()):
        lines += ["", f"[{architecture}]"]
        lines += [f"{item.name} {item.version} sha256:{item.sha256}" for item in sorted(packages)]
    return "\n".join(lines) + "\n"
