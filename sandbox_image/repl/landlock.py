"""Landlock: which files a process may open, and whom it may signal, where the kernel has it.

Without it a seccomp filter would be alone, and that one sees numbers only: not which file a path
names, not whose process a number is. Each process may put it on itself (landlock(7)); gVisor and
kernels before 5.19 do without it here.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sandbox_image.repl.system_calls import make_system_call, this_machine

_ASK_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_RULE_PATH_BENEATH = 1
#: The first version that lets files be moved between directories by those it allows to; the one
#: before forbids it to everybody, which would break honest cells.
_LEAST_VERSION = 2

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIRECTORY = 1 << 3
_REMOVE_DIRECTORY = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_CHARACTER_DEVICE = 1 << 6
_MAKE_DIRECTORY = 1 << 7
_MAKE_FILE = 1 << 8
_MAKE_SOCKET = 1 << 9
_MAKE_FIFO = 1 << 10
_MAKE_BLOCK_DEVICE = 1 << 11
_MAKE_LINK = 1 << 12
_MOVE = 1 << 13  # LANDLOCK_ACCESS_FS_REFER
_TRUNCATE = 1 << 14
_DEVICE_CONTROL = 1 << 15
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL
#: By version, what it can forbid of files; the newest one that is known here stands for all later.
_FILE_ACCESS = {
    2: _MOVE * 2 - 1,
    3: _TRUNCATE * 2 - 1,
    4: _TRUNCATE * 2 - 1,
    5: _DEVICE_CONTROL * 2 - 1,
}
_TCP = 0b11  # to bind and to connect, from version 4
_SCOPES = 0b11  # abstract Unix sockets and signals, from version 6
_TCP_VERSION = 4
_SCOPE_VERSION = 6

#: Neither programs, nor devices, nor sockets: nothing of these is made in a sandbox.
_WRITE = (
    _READ_FILE
    | _WRITE_FILE
    | _REMOVE_DIRECTORY
    | _REMOVE_FILE
    | _MAKE_DIRECTORY
    | _MAKE_FILE
    | _MAKE_FIFO
    | _MAKE_LINK
    | _MOVE
    | _TRUNCATE
)
_WRITABLE = (Path("/tmp"), Path("/dev/shm"), Path("/dev/null"))  # noqa: S108 - the container's


class Ruleset(NamedTuple):
    """What is forbidden, and what of it is allowed all the same.

    Attributes:
        described: struct landlock_ruleset_attr, as long as the kernel's version has it.
        allowed: Below each path, a set of file accesses.
    """

    described: bytes
    allowed: tuple[tuple[Path, int], ...]


def version() -> int:
    """Returns the kernel's version of Landlock (its ABI), 0 where there is none."""
    number = this_machine().numbers["landlock_create_ruleset"]
    found, _ = make_system_call(number, 0, 0, _ASK_VERSION)
    return max(found, 0)


def restrict_files(hidden: Path) -> int:
    """Forbids this thread, and all it starts, what of the file system no cell needs.

    See `rules_for_files`. Nothing happens where the kernel cannot do it.

    Returns:
        The version in force, 0 where there is none.

    Raises:
        OSError: The kernel has Landlock and refused.
    """
    found = version()
    ruleset = rules_for_files(found, hidden)
    if ruleset is None:
        return 0
    _enforce(ruleset)
    return found


def leave_signals_behind() -> None:
    """Forbids this thread, and all it starts, to signal any process that is there already.

    Does nothing where the kernel cannot do it, or where it was done as often as it can be.
    """
    ruleset = rules_for_signals(version())
    if ruleset is None:
        return
    try:
        _enforce(ruleset)
    except OSError as error:
        # Sixteen layers are the most that the kernel stacks (landlock(7)).
        if error.errno != errno.E2BIG:
            raise


def rules_for_files(found: int, hidden: Path) -> Ruleset | None:
    """Returns what a kernel of version `found` is asked for; None where it cannot do it.

    What stays: listing any directory; reading any file but those below `hidden`; writing to the
    scratch directories. Starting programs, TCP, abstract sockets and signals to processes that are
    not below this one go as well.

    Args:
        found: The kernel's version of Landlock.
        hidden: The directory that is out of reach. One below a scratch directory is not hidden:
            what a rule allows cannot be taken away further down.
    """
    if found < _LEAST_VERSION:
        return None
    handled = _FILE_ACCESS[min(found, max(_FILE_ACCESS))]
    return Ruleset(
        described=_described(found, handled),
        allowed=(
            (Path("/"), _READ_DIRECTORY),
            *((path, _READ_FILE) for path in _all_but(hidden)),
            *((path, _WRITE & handled) for path in _WRITABLE),
        ),
    )


def rules_for_signals(found: int) -> Ruleset | None:
    """Returns what parts a process from those before it; None where the kernel cannot do it."""
    if found < _SCOPE_VERSION:
        return None
    # Every ruleset forbids moves between directories unless it says otherwise (landlock(7)).
    return Ruleset(described=_described(found, _MOVE), allowed=((Path("/"), _MOVE),))


def _described(found: int, handled: int) -> bytes:
    fields = [handled]
    if found >= _TCP_VERSION:
        fields.append(_TCP)
    if found >= _SCOPE_VERSION:
        fields.append(_SCOPES)
    return struct.pack(f"={len(fields)}Q", *fields)


def _all_but(hidden: Path, below: Path = Path("/")) -> Iterator[Path]:
    """Finds the highest paths that together hold everything but `hidden`."""
    for path in sorted(below.iterdir()):
        if path == hidden or path.is_symlink():
            continue
        if hidden.is_relative_to(path):
            yield from _all_but(hidden, path)
        else:
            yield path


def _enforce(ruleset: Ruleset) -> None:
    descriptor = _call("landlock_create_ruleset", ruleset.described, len(ruleset.described), 0)
    try:
        for path, access in ruleset.allowed:
            _allow(descriptor, path, access)
        _call("landlock_restrict_self", descriptor, 0)
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        # Not every place has each of them.
        return
    try:
        if not path.is_dir():
            access &= _OF_A_FILE
        rule = struct.pack("=Qi", access, descriptor)
        _call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: int | bytes) -> int:
    result, error = make_system_call(this_machine().numbers[name], *arguments)
    if result < 0:
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result
