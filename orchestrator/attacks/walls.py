"""The walls an attack can meet, and how it is known that each of them stands.

Without it a report could say that an attack was stopped and not by what, and a reader could not
tell a wall from luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.controls import ContainerStatement
from orchestrator.domain import Json, Walls

_FILTERED = 2  # Seccomp: in /proc/self/status (proc(5))


class Wall(StrEnum):
    """What can stop an attack. The value is its id in reports."""

    NETWORK = "network-namespace"
    SYSTEM_CALLS = "system-call-filter"
    REPL_SYSTEM_CALLS = "repl-system-call-filter"
    LANDLOCK = "landlock"
    CAPABILITIES = "no-capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    USER = "unprivileged-user"
    READ_ONLY_ROOT = "read-only-root"
    MASKED_PATHS = "masked-paths"
    MOUNTS = "mounts"
    NAMESPACES = "namespaces"
    MEMORY_LIMIT = "memory-limit"
    PROCESS_LIMIT = "process-limit"
    CPU_LIMIT = "cpu-limit"
    RLIMITS = "rlimits"
    IMAGE = "image"
    WORKER = "worker"
    BROKER = "broker"
    KERNEL = "kernel"
    GVISOR = "gvisor-kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class WallRecord:
    """One wall: what it is, where it is defined, and what of a statement shows that it stands.

    Attributes:
        title: For a reader.
        source: The file of this project that defines it.
        settings: Paths into the JSON of `Controls`, read back from the engine or found by the
            worker.
        proof: Names the line of the kernel's own that shows it from inside; see `prelude.PROOFS`.
            Empty where no file does.
        stands: Whether it does, by what the engine set and, where a worker said so, what it found.
        is_guard_rail: Whether it stands inside the sandbox, and so counts for nothing where the
            worker itself is hostile.
    """

    title: str
    source: str
    settings: tuple[str, ...]
    proof: str
    stands: Callable[[ContainerStatement, Walls | None], bool]
    is_guard_rail: bool = False


def _always(_container: ContainerStatement, _walls: Walls | None) -> bool:
    return True


_SPEC = "orchestrator/sandbox/spec.py"
_IMAGE_ID = "container.image_id"

WALLS: Final[Mapping[Wall, WallRecord]] = {
    Wall.NETWORK: WallRecord(
        title="no network but loopback",
        source=_SPEC,
        settings=("container.network", "walls.network_interfaces"),
        proof="/proc/net/dev",
        stands=lambda container, _: container.network == "none",
    ),
    Wall.SYSTEM_CALLS: WallRecord(
        title="the container's filter",
        source="docker/seccomp.json",
        settings=(
            "container.seccomp_profile",
            "container.seccomp_sha256",
            "walls.seccomp_mode",
            "walls.open_calls",
        ),
        proof="/proc/self/status Seccomp",
        # gVisor's kernel answers system calls itself, and has the filter only if told to.
        stands=lambda container, _: (
            container.seccomp_profile != "unconfined" and not container.is_gvisor
        ),
    ),
    Wall.REPL_SYSTEM_CALLS: WallRecord(
        title="the REPL process's filter",
        source="sandbox_image/repl/refused_calls.py",
        settings=("walls.repl_seccomp_mode", "walls.repl_open_calls"),
        proof="",
        stands=lambda _, walls: walls is not None and walls.repl_seccomp_mode == _FILTERED,
        is_guard_rail=True,
    ),
    Wall.LANDLOCK: WallRecord(
        title="Landlock",
        source="sandbox_image/repl/landlock.py",
        settings=("walls.landlock_abi",),
        proof="",
        stands=lambda _, walls: walls is not None and bool(walls.landlock_abi),
        is_guard_rail=True,
    ),
    Wall.CAPABILITIES: WallRecord(
        title="no capabilities",
        source=_SPEC,
        settings=(
            "container.capabilities_dropped",
            "container.capabilities_added",
            "walls.bounding_capabilities",
        ),
        proof="/proc/self/status CapBnd",
        stands=lambda container, _: (
            "ALL" in container.capabilities_dropped and not container.is_privileged
        ),
    ),
    Wall.NO_NEW_PRIVILEGES: WallRecord(
        title="no new privileges",
        source=_SPEC,
        settings=("container.has_no_new_privileges", "walls.has_no_new_privileges"),
        proof="/proc/self/status NoNewPrivs",
        stands=lambda container, _: container.has_no_new_privileges,
    ),
    Wall.USER: WallRecord(
        title="a user that owns nothing",
        source=_SPEC,
        settings=("container.user", "walls.uid", "walls.supplementary_gids"),
        proof="/proc/self/status Uid",
        stands=lambda container, _: container.user.partition(":")[0] not in {"", "0", "root"},
    ),
    Wall.READ_ONLY_ROOT: WallRecord(
        title="a read-only root",
        source=_SPEC,
        settings=("container.is_root_read_only", "walls.is_root_read_only"),
        proof="/proc/self/mountinfo /",
        stands=lambda container, _: container.is_root_read_only,
    ),
    Wall.MASKED_PATHS: WallRecord(
        title="masked paths",
        source="orchestrator/sandbox/readback.py",
        settings=("container.masked_paths", "container.read_only_paths"),
        proof="/proc/self/mountinfo /proc/sys",
        stands=lambda container, _: bool(container.masked_paths and container.read_only_paths),
    ),
    Wall.MOUNTS: WallRecord(
        title="mounts",
        source=_SPEC,
        settings=("container.mounts",),
        proof="/proc/self/mountinfo /tmp",
        stands=_always,
    ),
    Wall.NAMESPACES: WallRecord(
        title="namespaces of its own",
        source=_SPEC,
        settings=("container.namespaces",),
        proof="/proc/self/ns",
        stands=lambda container, _: "host" not in container.namespaces.values(),
    ),
    Wall.MEMORY_LIMIT: WallRecord(
        title="limit of memory, no swap",
        source=_SPEC,
        settings=("container.limits.memory_bytes", "container.limits.memory_and_swap_bytes"),
        proof="memory limit",
        stands=lambda container, _: (
            0 < container.limits.memory_bytes == container.limits.memory_and_swap_bytes
        ),
    ),
    Wall.PROCESS_LIMIT: WallRecord(
        title="limit of processes",
        source=_SPEC,
        settings=("container.limits.process_count",),
        proof="process limit",
        stands=lambda container, _: container.limits.process_count > 0,
    ),
    Wall.CPU_LIMIT: WallRecord(
        title="ration of CPU time",
        source=_SPEC,
        settings=("container.limits.cpu_count",),
        proof="CPU limit",
        stands=lambda container, _: container.limits.cpu_count > 0,
    ),
    Wall.RLIMITS: WallRecord(
        title="limits of each process",
        source=_SPEC,
        settings=("container.limits.ulimits",),
        proof="/proc/self/limits",
        stands=lambda container, _: bool(container.limits.ulimits),
        is_guard_rail=True,
    ),
    Wall.IMAGE: WallRecord(
        title="it is not there",
        source="docker/build_rootfs.py",
        settings=(_IMAGE_ID, "container.image_inputs_sha256"),
        proof="",
        stands=_always,
    ),
    Wall.WORKER: WallRecord(
        title="the worker",
        source="sandbox_image/worker.py",
        settings=(_IMAGE_ID, "container.image_inputs_sha256"),
        proof="",
        stands=lambda _, walls: walls is not None,
        is_guard_rail=True,
    ),
    Wall.BROKER: WallRecord(
        title="the broker",
        source="orchestrator/broker/service.py",
        settings=("broker.isolation", "broker.cell_limits"),
        proof="",
        stands=lambda _, walls: walls is not None,
    ),
    Wall.KERNEL: WallRecord(
        title="the kernel itself",
        source="",
        settings=("container.engine.kernel_release",),
        proof="/proc/version",
        stands=lambda container, _: not container.is_gvisor,
    ),
    Wall.GVISOR: WallRecord(
        title="gVisor's kernel",
        source="orchestrator/sandbox/runtimes.py",
        settings=("container.is_gvisor", "container.runtime"),
        proof="/proc/version",
        stands=lambda container, _: container.is_gvisor,
    ),
}


def read_settings(statement: Mapping[str, Json], wall: Wall) -> dict[str, Json]:
    """Returns what a statement's JSON says of one wall, by path; what it does not have is left out.

    Args:
        statement: `Controls.to_json()`, or the part of it there is.
        wall: Which.
    """
    found: dict[str, Json] = {}
    for path in WALLS[wall].settings:
        value: Json = dict(statement)
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                break
            value = value[name]
        else:
            found[path] = value
    return found
