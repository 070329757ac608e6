"""The memory of a container, read from its control group."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.bench.container_memory import group_of, read_group
from orchestrator.errors import SandboxLostError

VERSION_1 = "9:name=systemd:/docker/a\n4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"
VERSION_2 = "0::/system.slice/docker-abc.scope\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "folder", "is_version_2"),
    [
        (VERSION_1, "memory/docker/abc", False),
        (VERSION_2, "system.slice/docker-abc.scope", True),
    ],
)
def test_group_of_a_process_is_found(
    tmp_path: Path, text: str, folder: str, *, is_version_2: bool
) -> None:
    """Under either version the group is the one that bounds memory."""
    assert group_of(text, mounts=tmp_path) == (tmp_path / folder, is_version_2)


def test_process_without_a_memory_group_is_an_error() -> None:
    """Where there is no such group nothing is measured, instead of something else."""
    with pytest.raises(SandboxLostError, match="memory group"):
        group_of("9:name=systemd:/docker/a\n")


def test_version_1_leaves_files_out(tmp_path: Path) -> None:
    """Files that could be read again are not the container's own; those of its children count."""
    folder = write(
        tmp_path,
        memory__usage_in_bytes="1000\n",
        memory__max_usage_in_bytes="5000\n",
        memory__stat="active_file 1\ntotal_active_file 100\ntotal_inactive_file 300\n",
    )

    found = read_group(folder, is_version_2=False)

    assert (found.unique_bytes, found.peak_bytes) == (600, 5000)


@pytest.mark.parametrize(("peak", "expected"), [("9000\n", 9000), (None, None)])
def test_version_2_may_have_no_peak(tmp_path: Path, peak: str | None, expected: int | None) -> None:
    """A kernel that does not keep the peak is said not to, not taken for one of zero."""
    folder = write(
        tmp_path, memory__current="1000\n", memory__stat="active_file 100\ninactive_file 300\n"
    )
    if peak is not None:
        write(folder, memory__peak=peak)

    found = read_group(folder, is_version_2=True)

    assert (found.unique_bytes, found.peak_bytes) == (600, expected)
