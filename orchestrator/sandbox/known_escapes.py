"""Knows which releases of runc let a container reach its host.

Without it a host would count as sealed while its runtime has a published way out.
"""

import re
from dataclasses import dataclass
from typing import Final

_FINAL_RELEASE = 10**6  # sorts a release after all of its candidates
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-~+.]?rc\.?(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A version of runc that can be compared: `1.4.0-rc.3` comes before `1.4.0`."""

    major: int
    minor: int
    patch: int
    candidate: int = _FINAL_RELEASE

    @property
    def series(self) -> tuple[int, int]:
        """The line of releases that gets its own fixes."""
        return (self.major, self.minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """One published flaw, and the first release of each series without it."""

    cves: tuple[str, ...]
    what: str
    fixed_in: tuple[Release, ...]

    def affects(self, release: Release) -> bool:
        """Whether a release has the flaw: a series without a fix of its own has, unless newer."""
        for fixed in self.fixed_in:
            if release.series == fixed.series:
                return release < fixed
        return release < max(self.fixed_in)


#: The fixed releases, as the announcements on oss-security have them (2024-01-31, 2025-11-05) and
#: write-ups of the latest one. Not a complete list: what is not named is not said to be sound.
RUNC_ESCAPES: Final = (
    Escape(
        cves=("CVE-2024-21626",),
        what="a file descriptor of the host leaks into the container",
        fixed_in=(Release(1, 1, 12),),
    ),
    Escape(
        cves=("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
        what="races around masked paths, /dev/console and writes to /proc",
        fixed_in=(Release(1, 2, 8), Release(1, 3, 3), Release(1, 4, 0, 3)),
    ),
    Escape(
        cves=("CVE-2026-41579",),
        what="a symlinked /dev in an image; rated low, and not reachable under Docker",
        fixed_in=(Release(1, 3, 6), Release(1, 4, 3), Release(1, 5, 0, 3)),
    ),
)


def read_release(version: str) -> Release | None:
    """Reads a version as an engine reports it (`1.1.5+ds1`, `v1.4.0-rc.3`); None if it is none."""
    match = _VERSION.match(version)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    return Release(
        int(major), int(minor), int(patch), int(candidate) if candidate else _FINAL_RELEASE
    )


def find_escapes(version: str) -> tuple[Escape, ...] | None:
    """Returns the flaws a release of runc has by its number, or None if the number is unreadable.

    A distribution may carry the fix under an older number; that cannot be seen from here.
    """
    release = read_release(version)
    if release is None:
        return None
    return tuple(escape for escape in RUNC_ESCAPES if escape.affects(release))
