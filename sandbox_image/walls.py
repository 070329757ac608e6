"""The walls of the container as the worker finds them.

Without it the orchestrator would have to believe that the engine did what it was told.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWalls:
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


def find_walls() -> FoundWalls:
    """Reads what the kernel says of this process (proc(5))."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    net = Path("/sys/class/net")
    interfaces = sorted(path.name for path in net.iterdir()) if net.is_dir() else []
    no_new_privileges = _number(status.get("NoNewPrivs"))
    return FoundWalls(
        seccomp_mode=_number(status.get("Seccomp")),
        has_no_new_privileges=None if no_new_privileges is None else no_new_privileges == 1,
        effective_capabilities=_number(status.get("CapEff"), base=16),
        bounding_capabilities=_number(status.get("CapBnd"), base=16),
        network_interfaces=tuple(interfaces[:64]),
        uid=os.getuid(),
        gid=os.getgid(),
        supplementary_gids=tuple(sorted(set(os.getgroups()) - {os.getgid()}))[:64],
        is_root_read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        kernel_release=platform.release()[:200],
    )


def _number(text: str | None, *, base: int = 10) -> int | None:
    return None if text is None else int(text.strip(), base)
