"""What the worker does about its own walls before anything untrusted runs.

Without it a cell could end the worker with a signal or read the session's token from its memory.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_DUMPABLE = 4  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36
#: Nobody has a choice about the first two; the third wakes the worker when a process has ended.
_NOT_IGNORED = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})


def ignore_signals() -> None:
    """Makes this process deaf to every signal a cell could send it, but those nobody can.

    As PID 1 the kernel drops signals without a handler, but Python installs handlers of its own for
    some, and outside a container nothing is dropped. A fault of its own still ends it: the kernel
    does not ask then (signal(7)).
    """
    for number in signal.valid_signals() - _NOT_IGNORED:
        signal.signal(number, signal.SIG_IGN)


def forbid_inspection() -> None:
    """Closes this process's memory and descriptors in /proc to others of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants that lose theirs, as PID 1 is anyway."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
