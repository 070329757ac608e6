"""What the engine says it has set, against what was asked of it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import SandboxId
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.readback import find_differences, find_missing_seccomp
from orchestrator.sandbox.spec import Runtime, SandboxSpec, container_config

Record = dict[str, Any]


def asked() -> Record:
    spec = SandboxSpec(
        image_id="sha256:01",
        limits=SandboxLimits(),
        runtime=Runtime(name="runc", is_gvisor=False),
        cgroup_version=1,
        seccomp_profile='{"defaultAction":"SCMP_ACT_ERRNO"}',
    )
    return container_config(
        spec, sandbox_id=SandboxId("a1"), socket_directory=Path("/s"), labels={"owner": "me"}
    )


def record() -> Record:
    """Returns an engine's record as Docker 20.10 writes it: empty lists are null, extra fields."""
    container = asked()
    host_config = container.pop("HostConfig")
    host_config |= {
        "CapAdd": None,
        "Devices": None,
        "MaskedPaths": ["/proc/kcore"],
        "ReadonlyPaths": ["/proc/sys"],
        "Ulimits": list(reversed(host_config["Ulimits"])),
    }
    container["Labels"] = container["Labels"] | {"of the image": "yes"}
    container["Env"] = ["PATH=/usr/bin"]
    return {
        "Image": "sha256:01",
        "Config": container,
        "HostConfig": host_config,
        "Mounts": [{"Destination": "/run/rlm", "RW": False}],
        "NetworkSettings": {"Networks": {"none": {}}},
    }


def test_record_as_asked_has_no_differences() -> None:
    """An engine that did as it was told is believed, in its own way of writing it down."""
    assert find_differences(asked(), record()) == ()


def test_capability_names_may_gain_their_prefix() -> None:
    """Newer engines write CAP_ALL for ALL; that is the same wall."""
    found = record()
    found["HostConfig"]["CapDrop"] = ["CAP_ALL"]

    assert find_differences(asked(), found) == ()


def host(**values: object) -> Callable[[Record], None]:
    return lambda found: found["HostConfig"].update(values)


def config(**values: object) -> Callable[[Record], None]:
    return lambda found: found["Config"].update(values)


def engine(**values: object) -> Callable[[Record], None]:
    return lambda found: found.update(values)


@pytest.mark.parametrize(
    ("wall", "change"),
    [
        ("Memory", host(Memory=0)),
        ("MemorySwap", host(MemorySwap=-1)),
        ("MemorySwappiness", host(MemorySwappiness=None)),
        ("PidsLimit", host(PidsLimit=None)),
        ("NanoCpus", host(NanoCpus=0)),
        ("CapDrop", host(CapDrop=None)),
        ("CapAdd", host(CapAdd=["SYS_PTRACE"])),
        ("Privileged", host(Privileged=True)),
        ("SecurityOpt", host(SecurityOpt=["seccomp=unconfined", "no-new-privileges"])),
        ("SecurityOpt", host(SecurityOpt=["seccomp={}", "no-new-privileges"])),
        ("SecurityOpt", host(SecurityOpt=["no-new-privileges"])),
        ("ReadonlyRootfs", host(ReadonlyRootfs=False)),
        ("NetworkMode", host(NetworkMode="bridge")),
        ("Ulimits", host(Ulimits=None)),
        ("Tmpfs", host(Tmpfs={"/tmp": ""})),
        ("Runtime", host(Runtime="crun")),
        ("IpcMode", host(IpcMode="host")),
        ("PidMode", host(PidMode="host")),
        ("UsernsMode", host(UsernsMode="host")),
        ("LogConfig", host(LogConfig={"Type": "json-file", "Config": {}})),
        ("Devices", host(Devices=[{"PathOnHost": "/dev/kvm"}])),
        ("MaskedPaths", host(MaskedPaths=[])),
        ("ReadonlyPaths", host(ReadonlyPaths=None)),
        ("User", config(User="")),
        ("NetworkDisabled", config(NetworkDisabled=False)),
        ("Labels", config(Labels={"owner": "somebody else"})),
        ("Image", engine(Image="sha256:02")),
        ("Networks", engine(NetworkSettings={"Networks": {"none": {}, "bridge": {}}})),
        ("Mounts", engine(Mounts=[{"Destination": "/run/rlm", "RW": True}])),
        (
            "Mounts",
            engine(
                Mounts=[
                    {"Destination": "/run/rlm", "RW": False},
                    {"Destination": "/data", "RW": True},
                ],
            ),
        ),
    ],
)
def test_each_wall_that_differs_is_named(wall: str, change: Callable[[Record], None]) -> None:
    """A wall that the engine left out or set otherwise is found, and it alone."""
    found = copy.deepcopy(record())
    change(found)

    differences = find_differences(asked(), found)

    assert {difference.split(":")[0] for difference in differences} == {wall}


@pytest.mark.parametrize(
    "options",
    [
        ["name=seccomp,profile=default"],
        ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
        ["name=seccomp,profile=unconfined"],
    ],
)
def test_engine_with_seccomp_is_accepted(options: list[str]) -> None:
    """Whatever the engine's own default is called, or is: every sandbox brings its own profile."""
    assert find_missing_seccomp({"SecurityOptions": options}) is None


@pytest.mark.parametrize("options", [None, [], ["name=apparmor"]])
def test_missing_seccomp_is_found(options: list[str] | None) -> None:
    """An engine without seccomp seals nothing."""
    assert find_missing_seccomp({"SecurityOptions": options}) is not None
