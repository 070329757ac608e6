"""Reads an engine's records into the statement of controls.

Without it the statement would repeat what was asked for, and an engine that did otherwise would
be vouched for.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from orchestrator.controls import (
    ContainerStatement,
    EngineStatement,
    LimitStatement,
    MountKind,
    MountStatement,
)
from orchestrator.sandbox.image import INPUTS_LABEL
from orchestrator.sandbox.spec import Runtime

#: What a statement calls the profile that this project ships.
OWN_PROFILE: Final = "rlm-sandbox"
_DEFAULT_PROFILE = "engine default"
_UNCONFINED = "unconfined"
_SECCOMP = "seccomp="
_NO_NEW_PRIVILEGES = frozenset({"no-new-privileges", "no-new-privileges:true"})

_BOUNDS = {"size": "size_bytes", "nr_inodes": "inode_count"}
# What an absent mode stands for: under cgroup version 1 the engine shares its own cgroup namespace.
_NAMESPACES = {
    "cgroup": ("CgroupnsMode", "host"),
    "ipc": ("IpcMode", "private"),
    "pid": ("PidMode", "private"),
    "user": ("UsernsMode", "the engine's"),
    "uts": ("UTSMode", "private"),
}


def read_engine(info: Mapping[str, Any], version: Mapping[str, Any]) -> EngineStatement:
    """Reads what an engine says of itself.

    Args:
        info: The engine's answer to `/info`.
        version: The engine's answer to `/version`.
    """
    options = security_options(info)
    return EngineStatement(
        version=str(info.get("ServerVersion") or ""),
        runc_version=component_version(version, "runc"),
        kernel_release=str(info.get("KernelVersion") or ""),
        cgroup_version=_read_cgroup_version(info),
        is_rootless="rootless" in options,
        security_options=options,
    )


def security_options(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of what an engine builds into each container, as `seccomp`."""
    names = set()
    for option in info.get("SecurityOptions") or ():
        for part in str(option).split(","):
            key, _, value = part.partition("=")
            if key == "name":
                names.add(value)
            elif not value:  # engines before API 1.25 list bare names
                names.add(key)
    return tuple(sorted(names))


def component_version(version: Mapping[str, Any], name: str) -> str:
    """Returns the version of one part of an engine (`runc`, `containerd`), or nothing."""
    for part in version.get("Components") or ():
        if part.get("Name") == name:
            return str(part.get("Version") or "")
    return ""


def _read_cgroup_version(info: Mapping[str, Any]) -> int:
    text = str(info.get("CgroupVersion") or "")
    return int(text) if text.isdecimal() else 0


def read_container(
    record: Mapping[str, Any], *, engine: EngineStatement, runtime: Runtime
) -> ContainerStatement:
    """Reads an engine's record of one container.

    Args:
        record: As `GET /containers/{id}/json` of the Engine API returns it.
        engine: What the engine says of itself.
        runtime: What the container was to run under; whether that is gVisor the record cannot say.
    """
    config, host = record["Config"], record["HostConfig"]
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    profile, profile_sha256 = _read_seccomp(options)
    return ContainerStatement(
        engine=engine,
        runtime=str(host.get("Runtime") or ""),
        is_gvisor=runtime.is_gvisor,
        image_id=str(record["Image"]),
        image_inputs_sha256=str((config.get("Labels") or {}).get(INPUTS_LABEL, "")),
        seccomp_profile=profile,
        seccomp_sha256=profile_sha256,
        apparmor_profile=str(record.get("AppArmorProfile") or ""),
        user=str(config.get("User") or "0:0"),
        capabilities_added=_read_capabilities(host.get("CapAdd")),
        capabilities_dropped=_read_capabilities(host.get("CapDrop")),
        has_no_new_privileges=not _NO_NEW_PRIVILEGES.isdisjoint(options),
        is_privileged=bool(host.get("Privileged")),
        is_root_read_only=bool(host.get("ReadonlyRootfs")),
        network=str(host.get("NetworkMode") or ""),
        namespaces={
            kind: str(host.get(key) or absent) for kind, (key, absent) in _NAMESPACES.items()
        },
        mounts=_read_mounts(record),
        masked_paths=tuple(sorted(host.get("MaskedPaths") or ())),
        read_only_paths=tuple(sorted(host.get("ReadonlyPaths") or ())),
        limits=_read_limits(host),
    )


def _read_seccomp(options: list[str]) -> tuple[str, str | None]:
    text = next((item.removeprefix(_SECCOMP) for item in options if item.startswith(_SECCOMP)), "")
    if not text:
        return _DEFAULT_PROFILE, None
    if text == _UNCONFINED:
        return _UNCONFINED, None
    return OWN_PROFILE, hashlib.sha256(text.encode()).hexdigest()


def _read_capabilities(names: list[str] | None) -> tuple[str, ...]:
    # Newer engines write CAP_ALL for ALL.
    return tuple(sorted(name.upper().removeprefix("CAP_") for name in names or ()))


def _read_mounts(record: Mapping[str, Any]) -> tuple[MountStatement, ...]:
    mounts = [
        MountStatement(
            target=str(mount["Destination"]),
            kind=MountKind.BIND,
            is_writable=bool(mount["RW"]),
            size_bytes=None,
            inode_count=None,
            options=(),
        )
        for mount in record.get("Mounts") or ()
    ]
    tmpfs = record["HostConfig"].get("Tmpfs") or {}
    mounts += [_read_tmpfs(target, options) for target, options in tmpfs.items()]
    return tuple(sorted(mounts, key=lambda mount: mount.target))


def _read_tmpfs(target: str, text: str) -> MountStatement:
    options = [option for option in text.split(",") if option]
    bounds: dict[str, int | None] = dict.fromkeys(_BOUNDS.values())
    for option in options:
        name, _, value = option.partition("=")
        if name in _BOUNDS and value.isdecimal():
            bounds[_BOUNDS[name]] = int(value)
    return MountStatement(
        target=target,
        kind=MountKind.TMPFS,
        is_writable="ro" not in options,
        size_bytes=bounds["size_bytes"],
        inode_count=bounds["inode_count"],
        options=tuple(option for option in options if option.partition("=")[0] not in _BOUNDS),
    )


def _read_limits(host: Mapping[str, Any]) -> LimitStatement:
    swappiness = host.get("MemorySwappiness")
    log = host.get("LogConfig") or {}
    return LimitStatement(
        memory_bytes=int(host.get("Memory") or 0),
        memory_and_swap_bytes=int(host.get("MemorySwap") or 0),
        memory_swappiness=None if swappiness is None else int(swappiness),
        process_count=int(host.get("PidsLimit") or 0),
        cpu_count=int(host.get("NanoCpus") or 0) / 10**9,
        ulimits={str(item["Name"]): int(item["Hard"]) for item in host.get("Ulimits") or ()},
        log_driver=str(log.get("Type") or ""),
        log_max_size=str((log.get("Config") or {}).get("max-size", "")),
    )
