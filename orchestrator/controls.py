"""The statement of the controls in force for one sandbox, in a form that can be filed.

Without it a reviewer would have to infer from settings and release notes what held for the sandbox
that read a certain text. What the engine set is as read back from the engine, not as asked for;
what the worker found is as seen from inside. Nothing in it is secret: no key, no token, no path of
the host. Every field, with its unit, is described in docs/controls.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final

from orchestrator.domain import Json, LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, QueryLimits

#: Goes up when a reader of the old version could misread a statement of the new one.
CONTROLS_VERSION: Final = 1


class BrokerIsolation(StrEnum):
    """Where the bytes that a sandbox sends are parsed.

    In process, gRPC's server lives in the caller's event loop and does not outlive it: what was
    opened must be left before that loop ends (docs/adr/0014).
    """

    IN_PROCESS = "in_process"  # by the orchestrator, which holds keys and reaches the engine
    OWN_PROCESS = "own_process"  # by a process that does neither


class MountKind(StrEnum):
    """What lies behind a mount."""

    BIND = "bind"  # a directory of the host
    TMPFS = "tmpfs"  # memory of the sandbox's own


@dataclass(frozen=True, slots=True, kw_only=True)
class MountStatement:
    """One mount that the image does not bring along, the kernel's own file systems left out.

    Attributes:
        target: Where it is in the sandbox. Where it comes from is the host's own business.
        size_bytes: Its bound; None where it has none of its own.
        inode_count: Likewise.
        options: As the engine has them, the two bounds left out.
    """

    target: str
    kind: MountKind
    is_writable: bool
    size_bytes: int | None
    inode_count: int | None
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatement:
    """What starts the containers, by its own account.

    Attributes:
        version: The engine's.
        runc_version: As the engine reports it; empty where it does not.
        kernel_release: The host's.
        cgroup_version: 1 or 2; 0 where the engine does not say.
        is_rootless: Whether the engine itself runs as an ordinary user.
        security_options: Names of what the engine builds into every container: `seccomp`,
            `apparmor`, `selinux`, `userns`, `cgroupns`.
    """

    version: str
    runc_version: str
    kernel_release: str
    cgroup_version: int
    is_rootless: bool
    security_options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatement:
    """What one container may use, as the engine has it."""

    memory_bytes: int
    memory_and_swap_bytes: int  # equal to memory_bytes: no swap
    memory_swappiness: int | None  # None under cgroup version 2, which has none of a group's own
    process_count: int  # threads count
    cpu_count: float  # of one core each period
    ulimits: dict[str, int]  # getrlimit(2), the hard one, by its name without RLIMIT_
    log_driver: str
    log_max_size: str  # of the container's log, as the engine writes sizes; empty: not bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatement:
    """What one container is, read back from its engine before it was started.

    Attributes:
        engine: What started it.
        runtime: The engine's name for what runs it.
        is_gvisor: Whether that is a kernel of its own.
        image_id: The image by digest.
        image_inputs_sha256: Digest of everything the image was made from; empty for an image that
            does not say.
        seccomp_profile: `rlm-sandbox` for the product's own, `engine default`, or `unconfined`.
        seccomp_sha256: Of the profile's text as the engine has it; None where it has none.
        apparmor_profile: Empty where there is none.
        user: Uid and gid.
        capabilities_added: Empty.
        capabilities_dropped: `ALL`.
        network: The engine's network: `none`.
        namespaces: What is shared with whom, by kind: `private`, `host`, or for `user` what the
            engine does by itself.
        mounts: Every one, in order of their targets.
        masked_paths: What of /proc and /sys cannot be read.
        read_only_paths: What of /proc cannot be written.
    """

    engine: EngineStatement
    runtime: str
    is_gvisor: bool
    image_id: str
    image_inputs_sha256: str
    seccomp_profile: str
    seccomp_sha256: str | None
    apparmor_profile: str
    user: str
    capabilities_added: tuple[str, ...]
    capabilities_dropped: tuple[str, ...]
    has_no_new_privileges: bool
    is_privileged: bool
    is_root_read_only: bool
    network: str
    namespaces: dict[str, str]
    mounts: tuple[MountStatement, ...]
    masked_paths: tuple[str, ...]
    read_only_paths: tuple[str, ...]
    limits: LimitStatement

    def to_json(self) -> dict[str, Json]:
        """Returns it as JSON, in the form it has in `Controls.to_json()["container"]`."""
        return _fields_to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerStatement:
    """What the orchestrator's end of the socket enforces.

    Attributes:
        isolation: Where the bytes that a sandbox sends are parsed.
        walls: What shuts that process in, by name; empty where it is the orchestrator's own.
    """

    isolation: BrokerIsolation
    walls: tuple[str, ...] = ()
    language_policy: LanguagePolicy  # a guard rail in the sandbox, not a wall
    cell_limits: CellLimits
    query_limits: QueryLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Every control in force for one sandbox.

    Attributes:
        version: Of this form of statement.
        sandbox_id: Whose controls these are.
        lifetime_s: When it is destroyed, whatever it does, counted from its start; of one that
            waited in a pool, from when a session was given it.
        container: What the engine set.
        broker: What the orchestrator enforces.
        walls: What the worker found around itself before the first cell.
    """

    version: int = CONTROLS_VERSION
    sandbox_id: SandboxId
    lifetime_s: float
    container: ContainerStatement
    broker: BrokerStatement
    walls: Walls

    def to_json(self) -> dict[str, Json]:
        """Returns the statement as JSON: keys in the order of the fields, sets sorted.

        The same controls give the same JSON, in this process and in any other.
        """
        return _fields_to_json(self)

    @property
    def sha256_hex(self) -> str:
        """Digest of the statement, by which it can be filed and found again.

        Of the UTF-8 bytes of `to_json()` with keys sorted, no spaces and ASCII alone:
        `json.dumps(value, sort_keys=True, separators=(",", ":"))`.
        """
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _fields_to_json(value: Any) -> dict[str, Json]:  # noqa: ANN401 - any dataclass of this module
    return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}


def _to_json(value: object) -> Json:
    if is_dataclass(value):
        return _fields_to_json(value)
    if isinstance(value, frozenset):
        return [_to_json(item) for item in sorted(value)]
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in sorted(value.items())}
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a statement of controls holds no {type(value).__name__}")
