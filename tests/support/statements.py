"""A statement of controls for fakes, which have no engine to read one back from."""

from __future__ import annotations

from support.specs import SPEC

from orchestrator.controls import (
    BrokerIsolation,
    BrokerStatement,
    ContainerStatement,
    Controls,
    EngineStatement,
    LimitStatement,
    MountKind,
    MountStatement,
)
from orchestrator.domain import LanguagePolicy, SandboxId
from orchestrator.limits import CellLimits, QueryLimits
from orchestrator.sandbox.spec import promised_walls

ENGINE = EngineStatement(
    version="20.10.24",
    runc_version="1.1.5",
    kernel_release="6.1.0",
    cgroup_version=2,
    is_rootless=False,
    security_options=("cgroupns", "seccomp"),
)
CONTAINER = ContainerStatement(
    engine=ENGINE,
    runtime="runc",
    is_gvisor=False,
    image_id="sha256:" + "0" * 64,
    image_inputs_sha256="1" * 64,
    seccomp_profile="rlm-sandbox",
    seccomp_sha256="2" * 64,
    apparmor_profile="",
    user="10001:10001",
    capabilities_added=(),
    capabilities_dropped=("ALL",),
    has_no_new_privileges=True,
    is_privileged=False,
    is_root_read_only=True,
    network="none",
    namespaces={"pid": "private", "user": "the engine's"},
    mounts=(
        MountStatement(
            target="/tmp",
            kind=MountKind.TMPFS,
            is_writable=True,
            size_bytes=2**20,
            inode_count=64,
            options=("noexec", "nosuid"),
        ),
    ),
    masked_paths=("/proc/kcore",),
    read_only_paths=("/proc/sys",),
    limits=LimitStatement(
        memory_bytes=2**30,
        memory_and_swap_bytes=2**30,
        memory_swappiness=None,
        process_count=64,
        cpu_count=1.0,
        ulimits={"core": 0, "nofile": 256},
        log_driver="json-file",
        log_max_size="64k",
    ),
)
BROKER = BrokerStatement(
    isolation=BrokerIsolation.IN_PROCESS,
    language_policy=LanguagePolicy.GUARDED,
    cell_limits=CellLimits(),
    query_limits=QueryLimits(),
)
WALLS = promised_walls(SPEC)


def controls_of(sandbox_id: str) -> Controls:
    """Returns the statement of a sandbox that nothing stands behind."""
    return Controls(
        sandbox_id=SandboxId(sandbox_id),
        lifetime_s=3600.0,
        container=CONTAINER,
        broker=BROKER,
        walls=WALLS,
    )
