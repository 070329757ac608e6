"""The few calls to the kernel that Python has no words for.

Without it each wall of a broker's process would carry its own ctypes, and its own way to get the
error number wrong.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.restype = ctypes.c_int

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_GET_SECCOMP = 21
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

# <linux/sched.h>
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# The same numbers on every machine: calls that are younger than the common table.
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446

_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, argument: int = 0) -> int:
    """Changes one of the process's attributes; all arguments but one are zero.

    Raises:
        OSError: The kernel refused.
    """
    # All five, as unsigned longs: some options refuse a call whose unused arguments are not zero,
    # and a C `int` leaves the upper half of a register to chance.
    rest = (ctypes.c_ulong(0),) * 3
    return _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), *rest))


def system_call(number: int, *arguments: object) -> int:
    """Calls the kernel by number; `arguments` are ctypes values.

    Raises:
        OSError: The kernel refused.
    """
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments))


def unshare(flags: int) -> None:
    """Gives this process namespaces of its own.

    Raises:
        OSError: The kernel refused.
    """
    _checked(_libc.unshare(ctypes.c_int(flags)))


def drop_capabilities() -> None:
    """Empties the effective, permitted and inheritable sets of the calling thread.

    Raises:
        OSError: The kernel refused.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, data))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
