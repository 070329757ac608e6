"""The walls of the container as the worker finds them.

Without it the orchestrator would have to believe that the engine did what it was told.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sandbox_image.ceilings import find_ceilings
from sandbox_image.first_stage import open_calls

_IFF_UP = 0x1  # linux/if.h
_PLACE_FIELD = 4  # of a line of mountinfo, proc_pid_mountinfo(5)
_OPTIONS_FIELD = 5
_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - the container's
_FORBIDDING = frozenset({b"noexec", b"nosuid", b"nodev"})


class FoundWalls(NamedTuple):
    """The walls as this process finds them; None where the kernel does not say."""

    seccomp_mode: int | None
    has_no_new_privileges: bool | None
    effective_capabilities: int | None
    bounding_capabilities: int | None
    network_interfaces: tuple[str, ...]
    uid: int
    gid: int
    supplementary_gids: tuple[int, ...]
    is_root_read_only: bool
    kernel_release: str
    ceilings: Mapping[str, int]
    scratch_options: tuple[str, ...]
    open_calls: tuple[str, ...] | None = None
    repl_open_calls: tuple[str, ...] | None = None
    repl_seccomp_mode: int | None = None
    is_repl_inspectable: bool | None = None
    landlock_abi: int | None = None


def find_walls() -> FoundWalls:
    """Reads what the kernel says of this process (proc(5)), and tries what it has to refuse."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    no_new_privileges = _number(status.get("NoNewPrivs"))
    mountinfo = Path("/proc/self/mountinfo").read_bytes()
    return FoundWalls(
        seccomp_mode=_number(status.get("Seccomp")),
        has_no_new_privileges=None if no_new_privileges is None else no_new_privileges == 1,
        effective_capabilities=_number(status.get("CapEff"), base=16),
        bounding_capabilities=_number(status.get("CapBnd"), base=16),
        network_interfaces=interfaces_up(Path("/sys/class/net"))[:64],
        uid=os.getuid(),
        gid=os.getgid(),
        supplementary_gids=tuple(sorted(set(os.getgroups()) - {os.getgid()}))[:64],
        is_root_read_only=mounted_read_only("/", mountinfo),
        kernel_release=platform.release()[:200],
        ceilings=find_ceilings(),
        scratch_options=scratch_options(mountinfo),
        open_calls=open_calls(),
    )


def mounted_read_only(place: str, mountinfo: bytes) -> bool:
    """Says whether what is mounted at `place` is mounted read-only.

    Not statvfs(3): gVisor's answer has no flags, whatever the mount is. Not an attempt to write:
    gVisor looks at the owner of a directory first, and its answer would be about that.

    Args:
        place: Where it is mounted; of several mounts at one place the last one counts.
        mountinfo: The contents of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    return b"ro" in _mount_options(place, mountinfo)


def scratch_options(mountinfo: bytes) -> tuple[str, ...]:
    """Returns what is forbidden of files in each directory that can be written, as `/tmp noexec`.

    Args:
        mountinfo: See `mounted_read_only`.
    """
    return tuple(
        f"{place} {option.decode()}"
        for place in _SCRATCH
        for option in sorted(_FORBIDDING & _mount_options(place, mountinfo))
    )


def _mount_options(place: str, mountinfo: bytes) -> frozenset[bytes]:
    found: frozenset[bytes] = frozenset()
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) > _OPTIONS_FIELD and fields[_PLACE_FIELD] == os.fsencode(place):
            found = frozenset(fields[_OPTIONS_FIELD].split(b","))
    return found


def interfaces_up(folder: Path) -> tuple[str, ...]:
    """Returns the names of the network interfaces that are up.

    A kernel with tunnel modules puts `tunl0`, `sit0` and the like into every new network namespace.
    They are down, and without CAP_NET_ADMIN they stay down (netdevice(7)).

    Args:
        folder: Holds one folder for each interface, with its flags in `flags` (sysfs(5)).
    """
    if not folder.is_dir():
        return ()
    names = []
    for interface in sorted(folder.iterdir()):
        try:
            flags = int((interface / "flags").read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            # Not readable is not down: it counts, and the orchestrator will refuse it.
            flags = _IFF_UP
        if flags & _IFF_UP:
            names.append(interface.name)
    return tuple(names)


def _number(text: str | None, *, base: int = 10) -> int | None:
    return None if text is None else int(text.strip(), base)
