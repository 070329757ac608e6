"""How much memory a container has, as the kernel of the host counts it.

Without it a sandbox's own word would be taken for what it costs its host. Reads control groups of
either version, by the process that the engine names.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import SandboxId
from orchestrator.errors import SandboxLostError
from orchestrator.sandbox.docker_client import connect, engine_errors

_MOUNTS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMemory:
    """The memory of one container's control group.

    Attributes:
        unique_bytes: What is charged to it, files that could be read again left out.
        peak_bytes: The most that was ever charged to it, files included; None where the kernel
            does not say (version 2 before Linux 5.19).
    """

    unique_bytes: int
    peak_bytes: int | None


def group_of(cgroup_text: str, *, mounts: Path = _MOUNTS) -> tuple[Path, bool]:
    """Returns the folder of a process's memory group, and whether it is of version 2.

    Args:
        cgroup_text: What /proc/PID/cgroup holds (cgroups(7)).
        mounts: Where control groups are mounted.

    Raises:
        SandboxLostError: It names no memory group.
    """
    lines = [line.split(":", 2) for line in cgroup_text.splitlines() if line.count(":") > 1]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return mounts / "memory" / path.lstrip("/"), False
    for number, controllers, path in lines:
        if number == "0" and not controllers:
            return mounts / path.lstrip("/"), True
    raise SandboxLostError(f"expected a memory group in /proc/PID/cgroup, got {cgroup_text!r}")


def read_group(folder: Path, *, is_version_2: bool) -> ContainerMemory:
    """Reads the figures of a memory group.

    Raises:
        OSError: The group is gone, or may not be read.
    """
    prefix = "" if is_version_2 else "total_"
    usage, peak = (
        ("memory.current", "memory.peak")
        if is_version_2
        else ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
    )
    figures = dict(
        line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines()
    )
    file_bytes = sum(int(figures[f"{prefix}{name}_file"]) for name in ("active", "inactive"))
    peak_file = folder / peak
    return ContainerMemory(
        unique_bytes=int((folder / usage).read_text("ascii")) - file_bytes,
        peak_bytes=int(peak_file.read_text("ascii")) if peak_file.exists() else None,
    )


async def memory_of(endpoint: str, container: str) -> ContainerMemory:
    """Returns the memory of a running container.

    Args:
        endpoint: Where the engine listens.
        container: Its id, or its name.

    Raises:
        SandboxLostError: The engine does not know it, or it does not run.
        OSError: Its group may not be read.
    """
    return await asyncio.to_thread(_memory_of, endpoint, container)


def name_of(sandbox_id: SandboxId) -> str:
    """Returns the name of a sandbox's container, as the engine has it."""
    return f"rlm-sandbox-{sandbox_id}"


def _memory_of(endpoint: str, container: str) -> ContainerMemory:
    client = connect(endpoint)
    try:
        with engine_errors("looking at a container", raises=SandboxLostError):
            pid = int(client.api.inspect_container(container)["State"]["Pid"])
    finally:
        client.close()
    if not pid:
        raise SandboxLostError(f"expected the container {container} to run; it has ended")
    folder, is_version_2 = group_of(Path(f"/proc/{pid}/cgroup").read_text("ascii"))
    return read_group(folder, is_version_2=is_version_2)
