"""The statement of controls: what of an engine's record it says, and in which form."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.statements import BROKER, CONTAINER, WALLS, controls_of

from orchestrator.controls import ContainerStatement, Controls, MountKind
from orchestrator.domain import SandboxId
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.spec import (
    SANDBOX_GID,
    SANDBOX_UID,
    SOCKET_MOUNT,
    Runtime,
    SandboxSpec,
    container_config,
)
from orchestrator.sandbox.statement import read_container, read_engine

HOST_PATH = "/run/rlm/sockets/secret"
LIMITS = SandboxLimits()
RUNC = Runtime(name="runc", is_gvisor=False)
INFO = {
    "ServerVersion": "20.10.24",
    "KernelVersion": "6.1.0",
    "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=default", "name=rootless", "apparmor"],
}
VERSION = {"Components": [{"Name": "runc", "Version": "1.1.5+ds1"}]}
Record = dict[str, Any]


def record_of(*, seccomp_profile: str = "{}") -> Record:
    """Returns an engine's record of a container that is what was asked for."""
    spec = SandboxSpec(
        image_id="sha256:01",
        limits=LIMITS,
        runtime=RUNC,
        cgroup_version=2,
        seccomp_profile=seccomp_profile,
    )
    config = copy.deepcopy(
        container_config(
            spec,
            sandbox_id=SandboxId("a1"),
            socket_directory=Path(HOST_PATH),
            labels={"rlm-sandbox.owner": "me", "rlm-sandbox.image.inputs": "ab"},
        )
    )
    host_config: Any = config.pop("HostConfig")
    host_config |= {"MaskedPaths": ["/proc/keys", "/proc/kcore"], "ReadonlyPaths": ["/proc/sys"]}
    return {
        "Image": "sha256:01",
        "AppArmorProfile": "docker-default",
        "Config": config,
        "HostConfig": host_config,
        "Mounts": [{"Source": HOST_PATH, "Destination": SOCKET_MOUNT, "RW": False}],
    }


def stated(record: Record) -> ContainerStatement:
    return read_container(record, engine=read_engine(INFO, VERSION), runtime=RUNC)


def test_container_as_asked_is_stated() -> None:
    """Who files the statement reads the limits and walls that the specification has."""
    container = stated(record_of(seccomp_profile='{"defaultAction": "SCMP_ACT_ERRNO"}'))

    assert container.user == f"{SANDBOX_UID}:{SANDBOX_GID}"
    assert (container.capabilities_added, container.capabilities_dropped) == ((), ("ALL",))
    assert container.has_no_new_privileges
    assert not container.is_privileged
    assert container.is_root_read_only
    assert container.network == "none"
    assert set(container.namespaces) == {"cgroup", "ipc", "pid", "user", "uts"}
    assert container.namespaces["pid"] == "private"
    assert container.masked_paths == ("/proc/kcore", "/proc/keys")
    assert container.limits.memory_bytes == LIMITS.memory_bytes
    assert container.limits.memory_and_swap_bytes == LIMITS.memory_bytes
    assert container.limits.process_count == LIMITS.process_count
    assert container.limits.cpu_count == LIMITS.cpu_count
    assert container.limits.ulimits["nofile"] == LIMITS.open_files
    assert container.limits.log_max_size
    assert (container.image_inputs_sha256, container.apparmor_profile) == ("ab", "docker-default")


def test_mounts_are_stated_with_their_bounds() -> None:
    """Each mount says how large it may grow, and which can be written."""
    mounts = {mount.target: mount for mount in stated(record_of()).mounts}

    scratch, sockets = mounts["/tmp"], mounts[SOCKET_MOUNT]
    assert (scratch.kind, scratch.size_bytes, scratch.inode_count) == (
        MountKind.TMPFS,
        LIMITS.tmp_bytes,
        LIMITS.tmp_inodes,
    )
    assert {"noexec", "nosuid", "nodev"} <= set(scratch.options)
    assert (sockets.kind, sockets.is_writable) == (MountKind.BIND, False)
    assert list(mounts) == sorted(mounts)


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"Privileged": True}, "is_privileged", True),
        ({"ReadonlyRootfs": False}, "is_root_read_only", False),
        ({"NetworkMode": "host"}, "network", "host"),
        ({"CapAdd": ["CAP_SYS_ADMIN"]}, "capabilities_added", ("SYS_ADMIN",)),
        ({"CapDrop": None}, "capabilities_dropped", ()),
        ({"SecurityOpt": None}, "has_no_new_privileges", False),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "seccomp_profile", "unconfined"),
        ({"MaskedPaths": None}, "masked_paths", ()),
    ],
)
def test_record_is_stated_and_not_the_wish(change: Record, field: str, value: object) -> None:
    """An engine that set something else is quoted, not vouched for."""
    record = record_of()
    asked = getattr(stated(record), field)
    record["HostConfig"] |= change

    assert getattr(stated(record), field) == value != asked


def test_seccomp_profile_is_stated_by_its_digest() -> None:
    """The digest is that of the very text the engine has; the engine's own profile has none."""
    text = '{"defaultAction":"SCMP_ACT_ERRNO"}'

    without = record_of()
    without["HostConfig"]["SecurityOpt"] = ["no-new-privileges"]

    own, default = stated(record_of(seccomp_profile=text)), stated(without)

    assert own.seccomp_profile == "rlm-sandbox"
    assert own.seccomp_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (default.seccomp_profile, default.seccomp_sha256) == ("engine default", None)


def test_engine_is_stated() -> None:
    """What starts containers is named by version, kernel and what it builds into each."""
    engine = read_engine(INFO, VERSION)

    assert (engine.version, engine.runc_version) == ("20.10.24", "1.1.5+ds1")
    assert (engine.kernel_release, engine.cgroup_version) == ("6.1.0", 2)
    assert engine.is_rootless
    assert engine.security_options == ("apparmor", "rootless", "seccomp")


def test_engine_that_says_nothing_is_stated_as_such() -> None:
    """A silent engine costs the words, not the run."""
    engine = read_engine({}, {})

    assert (engine.version, engine.runc_version, engine.cgroup_version) == ("", "", 0)


def controls_of_record(record: Record) -> Controls:
    return Controls(
        sandbox_id=SandboxId("s1"),
        lifetime_s=60.0,
        container=stated(record),
        broker=BROKER,
        walls=WALLS,
    )


def test_statement_holds_no_path_of_the_host() -> None:
    """Where sockets lie on the host is in the engine's record and in no statement."""
    record = record_of()
    assert HOST_PATH in json.dumps(record)

    assert HOST_PATH not in json.dumps(controls_of_record(record).to_json())


def test_statement_is_json_and_its_digest_is_of_it() -> None:
    """Who reads the JSON back computes the same digest, by the recipe of the documentation."""
    controls = controls_of("s1")

    read = json.loads(json.dumps(controls.to_json()))

    canonical = json.dumps(read, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == controls.sha256_hex
    assert read["version"] == 1
    assert read["container"]["limits"]["memory_bytes"] == 2**30
    assert read["walls"]["network_interfaces"] == ["lo"]
    assert read["broker"]["language_policy"] == "guarded"


def test_order_of_the_statement_is_stable() -> None:
    """Sets and mappings come out sorted, whatever order they were filled in."""
    one = replace(CONTAINER, namespaces={"b": "1", "a": "2"})
    other = replace(CONTAINER, namespaces={"a": "2", "b": "1"})

    texts = {
        json.dumps(replace(controls_of("s1"), container=container).to_json())
        for container in (one, other)
    }

    assert len(texts) == 1


def test_digest_tells_statements_apart() -> None:
    """One limit more or less is another statement."""
    controls = controls_of("s1")
    limits = replace(CONTAINER.limits, memory_bytes=2**31)

    other = replace(controls, container=replace(CONTAINER, limits=limits))

    assert controls.sha256_hex == controls_of("s1").sha256_hex != other.sha256_hex


def keys_of(value: Any, prefix: str = "") -> list[str]:  # noqa: ANN401 - JSON
    """Returns the path of each value, but that what is described as a whole is one."""
    if prefix in {"container.namespaces", "container.limits.ulimits", "walls.ceilings"}:
        return [prefix]
    if prefix in {"broker.cell_limits", "broker.query_limits"}:
        return [prefix]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys_of(value[0], f"{prefix}[]")
    if not isinstance(value, dict):
        return [prefix]
    return [
        key
        for name, item in value.items()
        for key in keys_of(item, f"{prefix}.{name}" if prefix else name)
    ]


def test_documentation_names_every_field() -> None:
    """docs/controls.md describes each key of the JSON."""
    page = (Path(__file__).resolve().parents[2] / "docs/controls.md").read_text(encoding="utf-8")
    described = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}

    assert set(keys_of(controls_of("s1").to_json())) - described == set()
