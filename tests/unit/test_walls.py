"""What the worker finds of its own walls."""

from __future__ import annotations

from pathlib import Path

from sandbox_image.walls import find_walls, interfaces_up


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
