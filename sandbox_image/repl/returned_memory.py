"""Gives memory that is free back to the kernel.

Without it the worker would keep what the pieces of a context have passed through, 30 to 60 MiB
after one of 400 MB, which no cell could have; and the REPL process would share with its spares what
is free, which is then copied when it is used.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h of the GNU C library; mallopt(3)


def return_memory() -> None:
    """Has the allocator of this process give back what it keeps for later (malloc_trim(3))."""
    ctypes.CDLL(None).malloc_trim(0)


def use_one_arena() -> None:
    """Has all threads of this process, which are to be started yet, share what is free.

    Each would have memory of its own to keep: of the worker, 30 MiB after a context of 400 MB.
    """
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
