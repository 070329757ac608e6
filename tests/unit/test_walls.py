"""What the worker finds of its own walls."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_image.walls import find_walls, interfaces_up, mounted_read_only

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
