"""What the worker finds of its own walls."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from sandbox_image.ceilings import find_ceilings
from sandbox_image.walls import find_walls, interfaces_up, mounted_read_only, scratch_options

#: As runc's and gVisor's kernels have them for a root that is read-only.
RUNC_ROOT = "74 49 0:39 / / ro,relatime master:2 - overlay overlay rw,lowerdir=/l,workdir=/w"
GVISOR_ROOT = "8 8 0:8 / / ro  - 9p none ro,trans=fd,rfdno=4,wfdno=4,aname=/"
TMP = "11 8 0:11 / /tmp rw,noexec  - tmpfs none rw"


def test_only_interfaces_that_are_up_count(tmp_path: Path) -> None:
    """A tunnel the kernel made and nobody brought up is no network; what cannot be read counts."""
    for name, flags in {"lo": "0x9", "tunl0": "0x80", "eth0": "0x1003"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "flags").write_text(f"{flags}\n")
    (tmp_path / "odd0").mkdir()

    assert interfaces_up(tmp_path) == ("eth0", "lo", "odd0")


def test_host_without_sysfs_has_none_to_show(tmp_path: Path) -> None:
    """Nothing is made up: no folder, no names, and the orchestrator misses `lo`."""
    assert interfaces_up(tmp_path / "net") == ()


def test_walls_of_this_process_are_read() -> None:
    """On this host the loopback device is up and the root file system says what it is."""
    walls = find_walls()

    assert "lo" in walls.network_interfaces
    assert isinstance(walls.is_root_read_only, bool)


@pytest.mark.parametrize("root", [RUNC_ROOT, GVISOR_ROOT])
def test_root_that_is_read_only_is_seen(root: str) -> None:
    """Both kernels say it of the mount, whatever they say of the file system under it."""
    assert mounted_read_only("/", f"{root}\n{TMP}\n".encode())


@pytest.mark.parametrize("root", [RUNC_ROOT, GVISOR_ROOT])
def test_root_that_can_be_written_is_seen(root: str) -> None:
    """Neither another mount, nor one that a later mount hides, counts for it."""
    writable = root.replace("/ / ro", "/ / rw")

    assert not mounted_read_only("/", f"{writable}\n{TMP.replace('rw', 'ro')}\n".encode())
    assert not mounted_read_only("/", f"{root}\n{writable}\n".encode())
    assert not mounted_read_only("/", b"")


MOUNTINFO = b"""\
22 1 0:1 / / ro,relatime - overlay overlay rw
23 22 0:2 / /tmp rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=65536k
24 22 0:3 / /dev/shm rw,nosuid - tmpfs tmpfs rw,noexec,nodev
"""


def test_options_of_scratch_are_those_of_the_mount() -> None:
    """What counts is what this mount forbids, not what its file system was made with."""
    assert scratch_options(MOUNTINFO) == (
        "/tmp nodev",
        "/tmp noexec",
        "/tmp nosuid",
        "/dev/shm nosuid",
    )


VERSION_2 = {
    "cgroup.controllers": "cpu memory pids",
    "memory.max": "1073741824",
    "memory.swap.max": "0",
    "pids.max": "64",
    "cpu.max": "150000 100000",
}
VERSION_1 = {
    "memory/memory.limit_in_bytes": "1073741824",
    "memory/memory.memsw.limit_in_bytes": "1073741824",
    "pids/pids.max": "64",
    "cpu/cpu.cfs_quota_us": "150000",
    "cpu/cpu.cfs_period_us": "100000",
}
BOUNDED = {"memory.max": 2**30, "memory.swap.max": 0, "pids.max": 64, "cpu.max": 1_500_000}
UNBOUNDED_2 = {"memory.max": "max", "memory.swap.max": "max", "pids.max": "max"}
UNBOUNDED_1 = {
    "memory/memory.limit_in_bytes": "9223372036854771712",
    "pids/pids.max": "max",
    "cpu/cpu.cfs_quota_us": "-1",
}


def cgroups(folder: Path, files: dict[str, str]) -> dict[str, int]:
    """Returns the ceilings of a container with these control groups."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content}\n")
    found = find_ceilings(folder)
    return {name: found[name] for name in found.keys() & BOUNDED.keys()}


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_control_groups_of_both_versions_read_alike(tmp_path: Path, files: dict[str, str]) -> None:
    """Whichever version a host has, a ceiling has one name and one unit."""
    assert cgroups(tmp_path, files) == BOUNDED


@pytest.mark.parametrize(
    "files",
    [
        VERSION_1 | UNBOUNDED_1,
        VERSION_2 | UNBOUNDED_2 | {"cpu.max": "max 100000"},
    ],
    ids=["version 1", "version 2"],
)
def test_missing_limit_reads_as_higher_than_any(tmp_path: Path, files: dict[str, str]) -> None:
    """No limit is not a small number: it breaks whatever was promised."""
    found = cgroups(tmp_path, files)

    assert min(found[name] for name in ("memory.max", "pids.max", "cpu.max")) > 2**62


@pytest.mark.parametrize(
    ("files", "absent"),
    [
        (VERSION_1, "memory/memory.memsw.limit_in_bytes"),
        (VERSION_2, "memory.swap.max"),
    ],
    ids=["version 1", "version 2"],
)
def test_kernel_without_swap_accounting_claims_none(
    tmp_path: Path, files: dict[str, str], absent: str
) -> None:
    """Swap that nobody counts is not said to be bounded, whatever the engine was told."""
    found = cgroups(tmp_path, {name: text for name, text in files.items() if name != absent})

    assert BOUNDED.keys() - found.keys() == {"memory.swap.max"}


def test_control_groups_that_cannot_be_seen_are_left_out(tmp_path: Path) -> None:
    """Nothing is made up: the orchestrator misses what was promised."""
    assert cgroups(tmp_path, {}) == {}


def test_limits_of_this_process_are_read() -> None:
    """They are the hard ones: the soft ones a process raises by itself."""
    assert find_ceilings()["RLIMIT_NOFILE"] == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
