"""Knows which releases of runc, containerd, the engine and the kernel let a container out.

Without it a host would count as sealed while what runs its containers has a published way out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_FINAL_RELEASE = 10**6  # sorts a release after all of its candidates
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-~+.]?rc\.?(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A version that can be compared: `1.4.0-rc.3` comes before `1.4.0`."""

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
    """One published flaw, and the first release of each series without it.

    Attributes:
        cves: What it is called.
        what: What it is.
        fixed_in: The first release without it, of each series that got a fix.
        since: The first release with it; None where that is older than anything in use.
    """

    cves: tuple[str, ...]
    what: str
    fixed_in: tuple[Release, ...]
    since: Release | None = None

    def affects(self, release: Release) -> bool:
        """Whether a release has the flaw: a series without a fix of its own has, unless newer."""
        if self.since is not None and release < self.since:
            return False
        for fixed in self.fixed_in:
            if release.series == fixed.series:
                return release < fixed
        return release < max(self.fixed_in)


#: The fixed releases, as the announcements on oss-security have them (2024-01-31, 2025-11-05) and
#: write-ups of the latest one. Not a complete list: what is not named is not said to be sound.
RUNC_ESCAPES: Final = (
    Escape(
        cves=("CVE-2019-5736",),
        what="the host's runc can be overwritten from a container",
        fixed_in=(Release(1, 0, 0, 7),),
    ),
    Escape(
        cves=("CVE-2021-30465",),
        what="a race of symbolic links while mounting",
        fixed_in=(Release(1, 0, 0, 95),),
    ),
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
CONTAINERD_ESCAPES: Final = (
    Escape(
        cves=("CVE-2020-15257",),
        what="its socket can be dialled from a container in the host's network",
        fixed_in=(Release(1, 3, 9), Release(1, 4, 3)),
    ),
)
ENGINE_ESCAPES: Final = (
    Escape(
        cves=("CVE-2019-14271",),
        what="copying out of a container runs its libraries as root; nothing is copied here",
        fixed_in=(Release(19, 3, 1),),
    ),
    Escape(
        cves=("CVE-2022-24769",),
        what="containers start with inheritable capabilities",
        fixed_in=(Release(20, 10, 14),),
    ),
    Escape(
        cves=("CVE-2022-36109",),
        what="supplementary groups are not those that were asked for",
        fixed_in=(Release(20, 10, 18),),
    ),
)
#: Those that SandboxEscapeBench is made of, and one more that needs a user namespace alone. The
#: releases are those of kernel.org's own series.
KERNEL_ESCAPES: Final = (
    Escape(
        cves=("CVE-2016-5195",),
        what="Dirty COW: what is mapped to be read can be written",
        fixed_in=(Release(4, 4, 26), Release(4, 7, 9), Release(4, 8, 3)),
    ),
    Escape(
        cves=("CVE-2017-7308",),
        what="packet sockets write beyond their ring",
        fixed_in=(Release(4, 11, 0),),
    ),
    Escape(
        cves=("CVE-2017-16995",),
        what="programs for the kernel are checked wrongly",
        fixed_in=(Release(4, 9, 72), Release(4, 14, 9)),
        since=Release(4, 4, 0),
    ),
    Escape(
        cves=("CVE-2022-0185",),
        what="mounting by the new calls writes beyond its buffer",
        fixed_in=(
            Release(5, 4, 173),
            Release(5, 10, 93),
            Release(5, 15, 16),
            Release(5, 16, 2),
        ),
        since=Release(5, 1, 0),
    ),
    Escape(
        cves=("CVE-2022-0492",),
        what="a control group's release_agent can be set without the right to",
        fixed_in=(
            Release(4, 9, 301),
            Release(4, 14, 266),
            Release(4, 19, 229),
            Release(5, 4, 177),
            Release(5, 10, 97),
            Release(5, 15, 20),
            Release(5, 16, 6),
        ),
    ),
    Escape(
        cves=("CVE-2022-0847",),
        what="Dirty Pipe: files that can only be read can be written",
        fixed_in=(Release(5, 10, 102), Release(5, 15, 25), Release(5, 16, 11)),
        since=Release(5, 8, 0),
    ),
)


def read_release(version: str) -> Release | None:
    """Reads a version (`1.1.5+ds1`, `v1.4.0-rc.3`, `6.1.0-37-amd64`); None if it is none."""
    match = _VERSION.match(version)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    return Release(
        int(major),
        int(minor),
        int(patch or 0),
        int(candidate) if candidate else _FINAL_RELEASE,
    )


def find_escapes(
    version: str, escapes: Sequence[Escape] = RUNC_ESCAPES
) -> tuple[Escape, ...] | None:
    """Returns the flaws a release has by its number, or None if the number is unreadable.

    A distribution may carry the fix under an older number; that cannot be seen from here.
    """
    release = read_release(version)
    if release is None:
        return None
    return tuple(escape for escape in escapes if escape.affects(release))


def describe(escapes: Sequence[Escape]) -> str:
    """Returns flaws in words, for a reader."""
    return "; ".join(f"{', '.join(escape.cves)} ({escape.what})" for escape in escapes)
