"""Holds this process to an amount of memory below the container's.

Without it too much memory in a cell would be met by the container's limit first: under runc that
ends the interpreter, under gVisor the whole sandbox, because there the host's kernel sees one
process, the sentry, in which the memory of all is. With it, it is a `MemoryError` in the cell.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource
from pathlib import Path

_M_ARENA_MAX = -8  # malloc.h of the GNU C library; mallopt(3)


#: Beside what processes have, the sentry has memory of its own, which counts as the sandbox's; it
#: gives what was freed back later than a kernel does.
_SENTRY_BYTES = 64 * 2**20
#: Least that is left of it.
_LEAST_BYTES = 64 * 2**20


def limit_memory(data_bytes: int) -> None:
    """Lets this process and what it forks have `data_bytes` of memory of their own, each.

    RLIMIT_DATA counts private writable memory (setrlimit(2)). gVisor counts only what brk(2) gets
    (a mapping of twice the limit succeeds), so there the limit is RLIMIT_AS, which counts whatever
    is mapped, shared memory too. That must not be memory that nothing is ever written to: glibc
    reserves 64 MiB of addresses for each thread that allocates, so all threads share one arena.
    """
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    if _refuses_to_map(2 * data_bytes):
        return
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    top_bytes = _mapped_bytes() + max(data_bytes - _SENTRY_BYTES, _LEAST_BYTES)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (top_bytes, top_bytes))


def _refuses_to_map(size_bytes: int) -> bool:
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return True
    return False


def _mapped_bytes() -> int:
    """Returns the size of this process's address space (proc_pid_statm(5))."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()
