"""What bounds this container, as the kernel tells those who are in it.

Without it an engine that takes a limit, writes it down and does not set it would never be found
out: its own record of the container says what it was told.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

#: What stands for "no limit".
UNLIMITED = 2**63 - 1

_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS_LIMITS = ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE", "NPROC")
_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - the container's
#: What engines hide because it tells of the host or reaches it; each version hides a few more, so
#: only what all of them hide is here.
_HIDDEN = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
)


def find_ceilings(cgroups: Path = _CGROUPS) -> dict[str, int]:
    """Returns the most there may be of each thing, by its name; what cannot be seen is left out.

    Names are those of getrlimit(2), of cgroup version 2 for both versions, and of directories. Time
    of processors is in microseconds a second.

    Args:
        cgroups: Where the container's own control groups are mounted.
    """
    found = {
        f"RLIMIT_{name}": _limit(resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1])
        for name in _PROCESS_LIMITS
    }
    found |= dict(_version_2(cgroups) if (cgroups / "cgroup.controllers").exists() else ())
    found |= dict(_version_1(cgroups) if (cgroups / "memory").is_dir() else ())
    for place in _SCRATCH:
        figures = os.statvfs(place)
        found[f"{place} bytes"] = figures.f_blocks * figures.f_frsize
        # 0: the file system does not count names, as gVisor's does not; or nobody bounded them.
        if figures.f_files:
            found[f"{place} names"] = figures.f_files
    found["unhidden paths"] = sum(map(_tells_something, _HIDDEN))
    return found


def _version_2(group: Path) -> Iterator[tuple[str, int]]:
    for name in ("memory.max", "memory.swap.max", "pids.max"):
        value = _read(group / name)
        if value is not None:
            yield name, _number(value)
    quota = _read(group / "cpu.max")
    if quota is not None:
        most, period = quota.split()
        yield "cpu.max", _share(_number(most), int(period))


def _version_1(groups: Path) -> Iterator[tuple[str, int]]:
    memory = _read(groups / "memory/memory.limit_in_bytes")
    if memory is not None:
        yield "memory.max", int(memory)
        with_swap = _read(groups / "memory/memory.memsw.limit_in_bytes")
        if with_swap is not None:
            yield "memory.swap.max", int(with_swap) - int(memory)
    processes = _read(groups / "pids/pids.max")
    if processes is not None:
        yield "pids.max", _number(processes)
    quota, period = (
        _read(groups / "cpu/cpu.cfs_quota_us"),
        _read(groups / "cpu/cpu.cfs_period_us"),
    )
    if quota is not None and period is not None:
        yield "cpu.max", _share(_limit(int(quota)), int(period))


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _number(text: str) -> int:
    return UNLIMITED if text == "max" else int(text)


def _limit(number: int) -> int:
    return UNLIMITED if number < 0 else number


def _share(quota: int, period: int) -> int:
    return UNLIMITED if quota == UNLIMITED else quota * 10**6 // period


def _tells_something(path: str) -> bool:
    """Says whether anything can be learnt at a path that is to be hidden."""
    try:
        if os.path.isdir(path):  # noqa: PTH112 - no error is lost here
            return bool(os.listdir(path))  # noqa: PTH208 - likewise
        with open(path, "rb") as file:  # noqa: PTH123 - likewise
            return bool(file.read(1))
    except OSError:
        return False
