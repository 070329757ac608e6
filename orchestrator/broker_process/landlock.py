"""Closes the file system with Landlock, where the kernel has it.

Without it an orchestrator without privileges, on a host where it may not make user namespaces,
could close its broker's processes off by their system call filter alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from orchestrator.broker_process.kernel import (
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    system_call,
)

# <linux/landlock.h>
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
_VERSION_FLAG = 1
_PATH_BENEATH = 1
#: How many rights to the file system each version of the interface knows.
_FILE_RIGHT_COUNTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_RIGHTS, _TCP_SINCE_ABI = 0b11, 4  # bind and connect
_SCOPES, _SCOPES_SINCE_ABI = 0b11, 6  # abstract sockets of others, signals to others


def landlock_abi() -> int:
    """Returns the version of Landlock's interface, 0 where the kernel has none."""
    try:
        return system_call(
            SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)
        )
    except OSError:
        return 0


def close_file_system(allowed: Mapping[Path, int]) -> int:
    """Gives up every right to the file system but the `allowed` ones, and TCP altogether.

    For the calling thread and those it starts from here on. `no_new_privs` must be set.

    Args:
        allowed: Rights to a file, or to everything below a directory.

    Returns:
        The version of the interface; 0 where the kernel has none, and nothing was done.

    Raises:
        OSError: The kernel has Landlock and refused.
    """
    abi = landlock_abi()
    if abi == 0:
        return 0
    files = (1 << _FILE_RIGHT_COUNTS.get(abi, max(_FILE_RIGHT_COUNTS.values()))) - 1
    attributes = struct.pack(
        "=QQQ",
        files,
        _TCP_RIGHTS if abi >= _TCP_SINCE_ABI else 0,
        _SCOPES if abi >= _SCOPES_SINCE_ABI else 0,
    )
    # A kernel takes more than it knows as long as the rest is zero (E2BIG otherwise).
    ruleset = system_call(
        SYS_LANDLOCK_CREATE_RULESET,
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint32(0),
    )
    try:
        for path, rights in allowed.items():
            with suppress(FileNotFoundError):
                _add_rule(ruleset, path, rights & files)
        system_call(SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return abi


def _add_rule(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        system_call(
            SYS_LANDLOCK_ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.c_char_p(struct.pack("=Qi", rights, descriptor)),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(descriptor)
