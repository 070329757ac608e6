"""What a hardened container is, line by line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import SandboxId
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.spec import (
    SOCKET_MOUNT,
    Runtime,
    SandboxSpec,
    container_config,
    promised_walls,
)

LIMITS = SandboxLimits(
    memory_bytes=512 * 2**20,
    process_count=33,
    cpu_count=1.5,
    tmp_bytes=7 * 2**20,
    tmp_inodes=99,
    open_files=111,
    file_bytes=5 * 2**20,
)
RUNC = Runtime(name="runc", is_gvisor=False)
GVISOR = Runtime(name="runsc", is_gvisor=True)
SPEC = SandboxSpec(
    image_id="sha256:0123",
    limits=LIMITS,
    runtime=RUNC,
    cgroup_version=2,
    seccomp_profile='{"defaultAction":"x"}',
)


def config_of(spec: SandboxSpec = SPEC) -> dict[str, Any]:
    return container_config(
        spec,
        sandbox_id=SandboxId("a1"),
        socket_directory=Path("/run/rlm/sockets/o/s"),
        labels={"owner": "me"},
    )


def host_config_of(spec: SandboxSpec = SPEC) -> dict[str, Any]:
    host_config: dict[str, Any] = config_of(spec)["HostConfig"]
    return host_config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NetworkMode", "none"),
        ("Dns", ["127.0.0.1"]),
        ("CapDrop", ["ALL"]),
        ("CapAdd", []),
        ("Privileged", False),
        ("SecurityOpt", ["no-new-privileges", 'seccomp={"defaultAction":"x"}']),
        ("ReadonlyRootfs", True),
        ("Binds", [f"/run/rlm/sockets/o/s:{SOCKET_MOUNT}:ro"]),
        ("Devices", []),
        ("ShmSize", 2**20),
        ("Memory", LIMITS.memory_bytes),
        ("MemorySwap", LIMITS.memory_bytes),
        ("OomKillDisable", False),
        ("OomScoreAdj", 500),
        ("PidsLimit", LIMITS.process_count),
        ("NanoCpus", 1_500_000_000),
        ("LogConfig", {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}}),
        ("IpcMode", "private"),
        ("CgroupnsMode", "private"),
        ("PidMode", ""),
        ("UTSMode", ""),
        ("UsernsMode", ""),
        ("Init", False),
        ("AutoRemove", False),
        ("RestartPolicy", {"Name": "no", "MaximumRetryCount": 0}),
        ("Runtime", "runc"),
    ],
)
def test_host_config(name: str, expected: object) -> None:
    """Each wall of the host's side is asked for as promised."""
    assert host_config_of()[name] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Image", "sha256:0123"),
        ("User", "10001:10001"),
        ("Env", []),
        ("Hostname", "sandbox"),
        ("Domainname", ""),
        ("AttachStdin", False),
        ("OpenStdin", False),
        ("Tty", False),
        ("NetworkDisabled", True),
        ("Healthcheck", {"Test": ["NONE"]}),
        ("StopSignal", "SIGKILL"),
        ("Labels", {"owner": "me", "rlm-sandbox.sandbox-id": "a1"}),
    ],
)
def test_container_config(name: str, expected: object) -> None:
    """Each wall of the container's side is asked for as promised."""
    assert config_of()[name] == expected


@pytest.mark.parametrize(
    ("mount", "size", "inodes"),
    [
        ("/tmp", 7 * 2**20, 99),
        ("/dev/shm", 2**20, 256),
    ],
)
def test_writable_mounts_are_bounded(mount: str, size: int, inodes: int) -> None:
    """What can be written is in memory, bounded in bytes and names, and can hold no program."""
    options = host_config_of()["Tmpfs"][mount].split(",")

    assert set(options) == {
        f"size={size}",
        f"nr_inodes={inodes}",
        "mode=0700",
        "uid=10001",
        "gid=10001",
        "noexec",
        "nosuid",
        "nodev",
    }


def test_only_two_mounts_are_writable() -> None:
    """Nothing else is made writable: every other mount would be a place nobody bounded."""
    assert set(host_config_of()["Tmpfs"]) == {"/tmp", "/dev/shm"}


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        ("core", 0),
        ("fsize", LIMITS.file_bytes),
        ("memlock", 0),
        ("msgqueue", 0),
        ("nofile", LIMITS.open_files),
    ],
)
def test_ulimits(name: str, ceiling: int) -> None:
    """Each process is bounded as well, and cannot raise its own bound."""
    assert {"Name": name, "Soft": ceiling, "Hard": ceiling} in host_config_of()["Ulimits"]


def test_processes_are_not_counted_over_all_sandboxes() -> None:
    """A fork bomb must not use up another sandbox's processes, and nproc counts by user id."""
    assert "nproc" not in {limit["Name"] for limit in host_config_of()["Ulimits"]}


def test_swappiness_is_asked_for_where_it_exists() -> None:
    """Cgroup version 1 swaps within a limit unless told not to; version 2 has no such knob."""
    assert host_config_of(replace(SPEC, cgroup_version=1))["MemorySwappiness"] == 0
    assert "MemorySwappiness" not in host_config_of(SPEC)


def test_gvisor_keeps_the_engines_network_namespace() -> None:
    """Under gVisor the loopback device comes from the engine's namespace, and nothing else."""
    gvisor = config_of(replace(SPEC, runtime=GVISOR))

    assert gvisor["NetworkDisabled"] is False
    assert gvisor["HostConfig"]["NetworkMode"] == "none"
    assert gvisor["HostConfig"]["Runtime"] == "runsc"


def test_gvisor_counts_processes_itself() -> None:
    """Its kernel holds the sandbox to the limit; the host's leaves the sentry room beyond it."""
    gvisor = host_config_of(replace(SPEC, runtime=GVISOR))
    count = LIMITS.process_count

    assert {"Name": "nproc", "Soft": count, "Hard": count} in gvisor["Ulimits"]
    assert gvisor["PidsLimit"] > 8 * count


def test_config_is_pure() -> None:
    """The same description gives the same container, and no two share a mutable part."""
    first, second = config_of(), config_of()
    assert first == second

    first["HostConfig"]["CapAdd"].append("SYS_ADMIN")
    first["Labels"]["owner"] = "somebody"

    assert config_of() == second


def test_command_replaces_the_entry_point_only_when_given() -> None:
    """The image says what runs; only a test of the walls puts a probe in its place."""
    assert "Entrypoint" not in config_of()

    probing = config_of(replace(SPEC, command=("/probe", "x")))

    assert (probing["Entrypoint"], probing["Cmd"]) == (["/probe", "x"], [])
    assert probing["HostConfig"] == host_config_of()


def test_runc_promises_every_wall() -> None:
    """Under runc the kernel reports every wall, so a promise is made for each."""
    walls = promised_walls(SPEC)

    assert walls.seccomp_mode == 2
    assert walls.has_no_new_privileges is True
    assert (walls.effective_capabilities, walls.bounding_capabilities) == (0, 0)
    assert walls.network_interfaces == {"lo"}
    assert (walls.uid, walls.gid, walls.supplementary_gids) == (10001, 10001, frozenset())
    assert walls.is_root_read_only is True


def test_gvisor_promises_all_but_what_it_does_not_report() -> None:
    """What gVisor's own kernel stands in for is not promised; the rest is as under runc."""
    ours, theirs = promised_walls(SPEC), promised_walls(replace(SPEC, runtime=GVISOR))

    expected = replace(
        ours,
        has_no_new_privileges=None,
        is_host_kernel=False,
        ceilings=theirs.ceilings,
        scratch_options=frozenset({"/tmp noexec", "/dev/shm noexec"}),
    )
    assert theirs == expected
    assert ours.ceilings.keys() - theirs.ceilings.keys() == {
        "memory.max",
        "memory.swap.max",
        "pids.max",
        "cpu.max",
        "/tmp names",
        "/dev/shm names",
    }
    assert theirs.ceilings.keys() - ours.ceilings.keys() == {"RLIMIT_NPROC"}


def test_every_limit_is_promised_from_inside_too() -> None:
    """What the engine is asked to bound is what a worker must find bounded."""
    assert promised_walls(SPEC).ceilings == {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": LIMITS.file_bytes,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NOFILE": LIMITS.open_files,
        "/tmp bytes": LIMITS.tmp_bytes,
        "/tmp names": LIMITS.tmp_inodes,
        "/dev/shm bytes": 2**20,
        "/dev/shm names": 256,
        "memory.max": LIMITS.memory_bytes,
        "memory.swap.max": 0,
        "pids.max": LIMITS.process_count,
        "cpu.max": 1_500_000,
        "unhidden paths": 0,
    }
    assert promised_walls(SPEC).scratch_options == frozenset(
        f"{place} {option}"
        for place in ("/tmp", "/dev/shm")
        for option in ("noexec", "nosuid", "nodev")
    )


def test_odd_limits_are_promised_as_the_kernel_rounds_them() -> None:
    """A limit that is no whole page, or no hundredth of a processor, refuses no honest engine."""
    limits = replace(LIMITS, tmp_bytes=7 * 2**20 + 1, cpu_count=1.234567)
    ceilings = promised_walls(replace(SPEC, limits=limits)).ceilings

    assert ceilings["/tmp bytes"] == 7 * 2**20 + 2**16
    assert ceilings["cpu.max"] == 1_240_000
