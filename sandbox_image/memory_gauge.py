"""How much of the sandbox's memory is in use, by all its processes together.

Without it nobody could tell when the checkpoints take what the running cell needs. A process's own
figures do not say it: what a checkpoint shares with the live process counts in both of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
#: Something with a limit this much above the sandbox's is not the sandbox, but what it runs in.
_ANOTHERS = 1.25


class _Source(NamedTuple):
    """Where a kernel says it, and what it calls it."""

    used: Path
    most: Path
    figures: Path
    anonymous: bytes
    reclaimable: bytes


def _sources(cgroups: Path) -> tuple[_Source, ...]:
    first, second = cgroups / "memory", cgroups
    return (
        _Source(
            second / "memory.current",
            second / "memory.max",
            second / "memory.stat",
            b"anon",
            b"inactive_file",
        ),
        _Source(
            first / "memory.usage_in_bytes",
            first / "memory.limit_in_bytes",
            first / "memory.stat",
            b"total_rss",
            b"total_inactive_file",
        ),
    )


class MemoryGauge:
    """Reads how much is in use, in some 20 microseconds, or 100 for more than the sum."""

    def __init__(
        self, *, limit_bytes: int, cgroups: Path = _CGROUPS, meminfo: Path = _MEMINFO
    ) -> None:
        """Finds where to read.

        Args:
            limit_bytes: What the sandbox may have.
            cgroups: Where the kernel's control groups are, of either version.
            meminfo: What the kernel has; under gVisor that is the sandbox's memory.
        """
        self._limit_bytes = limit_bytes
        self._meminfo = meminfo
        self._source = next(
            (source for source in _sources(cgroups) if self._is_own(_number(source.most))), None
        )
        self._is_kernels_own = self._is_own(_figures(meminfo).get(b"MemTotal", 0))

    @property
    def used_share(self) -> float:
        """What is in use, from 0 to 1 of the limit; 0 where nothing says it.

        Pages of files count, although the kernel gives those back that nobody needs.
        """
        if self._source is not None:
            return _number(self._source.used) / self._limit_bytes
        if not self._is_kernels_own:
            return 0.0
        figures = _figures(self._meminfo)
        used_bytes = figures.get(b"MemTotal", 0) - figures.get(b"MemFree", 0)
        return used_bytes / self._limit_bytes

    def needed_share(self, *, but_for_bytes: int) -> tuple[float, float]:
        """Returns two shares of the limit: all that is needed, and what others hold of it.

        Args:
            but_for_bytes: The anonymous memory of the processes that are not "others".
        """
        if self._source is not None:
            figures = _figures(self._source.figures)
            used_bytes = _number(self._source.used) - figures.get(self._source.reclaimable, 0)
            anonymous_bytes = figures.get(self._source.anonymous, 0)
        elif self._is_kernels_own:
            figures = _figures(self._meminfo)
            used_bytes = figures.get(b"MemTotal", 0) - figures.get(b"MemFree", 0)
            anonymous_bytes = figures.get(b"AnonPages", 0)
        else:
            return 0.0, 0.0
        others_bytes = max(anonymous_bytes - but_for_bytes, 0)
        return used_bytes / self._limit_bytes, others_bytes / self._limit_bytes

    def _is_own(self, most_bytes: int) -> bool:
        """Whether a limit is the sandbox's own, or lower."""
        return 0 < most_bytes <= _ANOTHERS * self._limit_bytes


def _number(path: Path) -> int:
    """Returns the number that a file of the kernel holds; 0 for any other text, and for none."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0


def _figures(path: Path) -> dict[bytes, int]:
    """Returns figures by name, in bytes: the kernel says some in KiB (proc_meminfo(5))."""
    figures = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            unit_bytes = 1024 if words[2:] == [b"kB"] else 1
            figures[words[0].rstrip(b":")] = int(words[1]) * unit_bytes
    return figures
