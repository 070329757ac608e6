"""What is asked of a kernel's Landlock, by its version, and what without one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sandbox_image.repl.landlock import rules_for_files, rules_for_signals

#: From the kernel's own header, linux/landlock.h: the highest file access of each version.
HIGHEST_ACCESS = {2: 13, 3: 14, 4: 14, 5: 15, 6: 15, 7: 15, 8: 15, 99: 15}
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY, MOVE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 13
#: Devices and sockets, which nothing in a sandbox makes.
MAKE_SPECIAL = 1 << 6 | 1 << 9 | 1 << 11


def fields(described: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(described) // 8}Q", described)


@pytest.mark.parametrize("version", [0, 1])
def test_without_it_nothing_is_asked(version: int) -> None:
    """No Landlock, or the first, which would keep honest cells from moving files: none is used."""
    assert rules_for_files(version, Path("/run/rlm")) is None
    assert rules_for_signals(version) is None


@pytest.mark.parametrize("version", HIGHEST_ACCESS)
def test_each_version_is_asked_for_what_it_knows(version: int) -> None:
    """A kernel refuses what is newer than itself, so all it knows is forbidden and no more."""
    ruleset = rules_for_files(version, Path("/run/rlm"))

    assert ruleset is not None
    handled, *rest = fields(ruleset.described)
    assert handled == (1 << (HIGHEST_ACCESS[version] + 1)) - 1
    assert rest == [[], [0b11], [0b11, 0b11]][(version >= 4) + (version >= 6)]
    assert all(access & ~handled == 0 for _, access in ruleset.allowed)


def test_what_is_allowed(tmp_path: Path) -> None:
    """Programs start nowhere, nothing special is made, and only scratch is written."""
    ruleset = rules_for_files(7, tmp_path)

    assert ruleset is not None
    allowed = dict(ruleset.allowed)
    assert not any(access & (EXECUTE | MAKE_SPECIAL) for access in allowed.values())
    writable = {path for path, access in ruleset.allowed if access & WRITE_FILE}
    assert writable == {Path("/tmp"), Path("/dev/shm"), Path("/dev/null")}
    assert allowed[Path("/")] == READ_DIRECTORY
    assert allowed[Path("/proc")] == READ_FILE


def test_what_is_hidden_is_in_no_rule() -> None:
    """Neither the hidden directory nor one above it may be read; what lies beside it may."""
    hidden = Path("/usr/lib")
    ruleset = rules_for_files(7, hidden)

    assert ruleset is not None
    readable = {path for path, access in ruleset.allowed if access & READ_FILE}
    assert not any(hidden.is_relative_to(path) for path in readable)
    assert Path("/usr/bin") in readable
    assert not any(path.is_relative_to(hidden) for path in readable)


@pytest.mark.parametrize("version", [2, 5, 6, 7, 99])
def test_signals_are_parted_where_the_kernel_can(version: int) -> None:
    """The layer for signals takes nothing of the files: it allows the moves it would forbid."""
    ruleset = rules_for_signals(version)

    if version < 6:
        assert ruleset is None
    else:
        assert ruleset is not None
        assert fields(ruleset.described) == (MOVE, 0b11, 0b11)
        assert ruleset.allowed == ((Path("/"), MOVE),)
