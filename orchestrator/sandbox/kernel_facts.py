"""Reads what this host's kernel is and how it is set.

Without it the settings that decide what is left of a wall once it has a hole would never be looked
at: a container engine neither sets nor reports them.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Settings of the kernel that are looked at, as paths below /proc/sys.
SETTINGS: Final = (
    "fs/protected_hardlinks",
    "fs/protected_symlinks",
    "fs/protected_fifos",
    "fs/protected_regular",
    "fs/suid_dumpable",
    "kernel/yama/ptrace_scope",
    "kernel/kptr_restrict",
    "kernel/dmesg_restrict",
    "kernel/perf_event_paranoid",
    "kernel/unprivileged_bpf_disabled",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "vm/unprivileged_userfaultfd",
    "vm/mmap_min_addr",
)

_SYSTEM_SETTINGS = Path("/proc/sys")
_SWAPS = Path("/proc/swaps")
# landlock_create_ruleset(2): the same number on every architecture, as of all newer calls.
_LANDLOCK_CALL = 444
_LANDLOCK_ASK_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFacts:
    """What was found of the kernel, not yet judged.

    Attributes:
        release: As uname(2) has it.
        settings: The number that each of `SETTINGS` has; those that this kernel lacks are left out.
        core_pattern: core(5); empty where it cannot be read.
        swap_bytes: Swap space in use or not; None where it cannot be read.
        landlock_abi: 0 where the kernel has none, or has it switched off.
    """

    release: str = ""
    settings: Mapping[str, int] = field(default_factory=dict)
    core_pattern: str = ""
    swap_bytes: int | None = None
    landlock_abi: int = 0


def collect_kernel_facts() -> KernelFacts:
    """Looks at the kernel that this process runs on; changes nothing."""
    settings = {}
    for name in SETTINGS:
        value = _read(_SYSTEM_SETTINGS / name)
        if value.lstrip("-").isdecimal():
            settings[name] = int(value)
    return KernelFacts(
        release=platform.release(),
        settings=settings,
        core_pattern=_read(_SYSTEM_SETTINGS / "kernel/core_pattern"),
        swap_bytes=read_swaps(_read(_SWAPS)),
        landlock_abi=_ask_landlock(),
    )


def read_swaps(text: str) -> int | None:
    """Returns the bytes of all swap spaces in the text of /proc/swaps; None where it is none."""
    header, *lines = text.splitlines() or [""]
    if not header.startswith("Filename"):
        return None
    sizes = [line.split()[2] for line in lines if len(line.split()) > 2]  # noqa: PLR2004 - name, type, size
    return 1024 * sum(int(size) for size in sizes if size.isdecimal())


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _ask_landlock() -> int:
    if os.name != "posix" or platform.system() != "Linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(_LANDLOCK_CALL, None, ctypes.c_size_t(0), _LANDLOCK_ASK_VERSION)
    return max(int(found), 0)
