"""What the kernel says of processes: which there are, and what they use.

Without it every cell would pay a library's generality twice, at its beginning and at its end: a
figure took 0.1 ms to read where the file behind it takes 0.01, and under gVisor each file opened
takes longer than most cells.
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

_PROC = "/proc"
_STAT_BYTES = 1024  # a line of 52 numbers and a name of 16 bytes (proc_pid_stat(5))
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = resource.getpagesize()
#: Fields of /proc/PID/stat, counted from the one behind the name.
_STATE, _PARENT, _CPU_TIMES, _RESIDENT_PAGES = 0, 1, slice(11, 15), 21
#: Fields of /proc/PID/statm.
_RESIDENT, _SHARED = 1, 2


class Use(NamedTuple):
    """What a process uses, and has used.

    Attributes:
        cpu_s: Seconds of one core, its own and those of children it has waited for.
        resident_bytes: Memory it has now, shared pages included.
    """

    cpu_s: float
    resident_bytes: int


class Meter:
    """Reads what one process uses, from a file that is opened once."""

    def __init__(self, pid: int) -> None:
        """Opens the file.

        Raises:
            OSError: There is no such process.
        """
        self._descriptor = os.open(f"{_PROC}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Use:
        """Returns what the process uses; of one that has ended and was not waited for, no memory.

        Raises:
            OSError: It is gone.
        """
        fields = _fields_of(os.pread(self._descriptor, _STAT_BYTES, 0))
        ticks = sum(map(int, fields[_CPU_TIMES]))
        return Use(ticks / _TICKS_PER_S, int(fields[_RESIDENT_PAGES]) * _PAGE_BYTES)

    def close(self) -> None:
        """Closes the file. To be called once."""
        os.close(self._descriptor)


def anonymous_bytes(pid: int) -> int:
    """Returns the memory of a process that is no file's.

    Raises:
        OSError: There is no such process.
    """
    with open(f"{_PROC}/{pid}/statm", "rb") as file:  # noqa: PTH123 - half the time of pathlib
        pages = file.read().split()
    return (int(pages[_RESIDENT]) - int(pages[_SHARED])) * _PAGE_BYTES


def is_alive(pid: int) -> bool:
    """Says whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return _stat(pid)[_STATE] not in {b"Z", b"X"}
    except (OSError, IndexError):
        return False


def descendants() -> list[int]:
    """Lists the processes below this one.

    As PID 1 every other process of the namespace is one, whatever it did to get away.
    """
    own = os.getpid()
    pids = [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - likewise
    if own == 1:
        return [pid for pid in pids if pid != 1]
    children: dict[int, list[int]] = {}
    for pid in pids:
        try:
            children.setdefault(int(_stat(pid)[_PARENT]), []).append(pid)
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    below: list[int] = []
    waiting = [own]
    while waiting:
        found = children.get(waiting.pop(), [])
        below += found
        waiting += found
    return below


def _stat(pid: int) -> list[bytes]:
    descriptor = os.open(f"{_PROC}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _fields_of(os.read(descriptor, _STAT_BYTES))
    finally:
        os.close(descriptor)


def _fields_of(line: bytes) -> list[bytes]:
    """Returns the fields behind the name, which may hold anything."""
    return line.rpartition(b")")[2].split()
