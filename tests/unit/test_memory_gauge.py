"""What is in use of a sandbox's memory, read as each kernel says it."""

from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox_image.memory_gauge import MemoryGauge

MIB = 2**20
LIMIT_BYTES = 1024 * MIB


def gauge(tmp_path: Path) -> MemoryGauge:
    """Returns a gauge that reads what a test has written."""
    return MemoryGauge(
        limit_bytes=LIMIT_BYTES, cgroups=tmp_path / "cgroup", meminfo=tmp_path / "meminfo"
    )


def write(path: Path, text: str) -> None:
    """Writes a file, and the folders it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Group(NamedTuple):
    """How one version of control groups calls its files, and what is in them."""

    usage: str
    most: str
    stat: str
    anonymous: str
    reclaimable: str


VERSIONS = pytest.mark.parametrize(
    "group",
    [
        Group("memory.current", "memory.max", "memory.stat", "anon", "inactive_file"),
        Group(
            "memory/memory.usage_in_bytes",
            "memory/memory.limit_in_bytes",
            "memory/memory.stat",
            "total_rss",
            "total_inactive_file",
        ),
    ],
    ids=["v2", "v1"],
)


@VERSIONS
def test_control_group_says_it(tmp_path: Path, group: Group) -> None:
    """Of either version; pages of files that the kernel can give back are not needed."""
    write(tmp_path / "cgroup" / group.usage, f"{768 * MIB}\n")
    write(tmp_path / "cgroup" / group.most, f"{LIMIT_BYTES}\n")
    figures = f"{group.anonymous} {384 * MIB}\n{group.reclaimable} {256 * MIB}\nactive_file 5\n"
    write(tmp_path / "cgroup" / group.stat, figures)

    found = gauge(tmp_path)

    assert found.used_share == 0.75
    assert found.needed_share(but_for_bytes=128 * MIB) == (0.5, 0.25)
    assert found.needed_share(but_for_bytes=LIMIT_BYTES) == (0.5, 0.0)


def test_kernel_of_the_sandbox_s_own_says_it(tmp_path: Path) -> None:
    """Under gVisor there are no control groups inside, and all memory is the sandbox's."""
    lines = ["MemTotal:  1048576 kB", "MemFree:   262144 kB", "AnonPages: 524288 kB", "Empty:"]
    write(tmp_path / "meminfo", "\n".join(lines))

    found = gauge(tmp_path)

    assert found.used_share == 0.75
    assert found.needed_share(but_for_bytes=256 * MIB) == (0.75, 0.25)


@VERSIONS
@pytest.mark.parametrize("limit", ["max", f"{64 * 2**30}", "9223372036854771712"])
def test_memory_of_what_it_runs_in_is_not_the_sandbox_s(
    tmp_path: Path, group: Group, limit: str
) -> None:
    """A kernel or a group with far more memory than the limit is the host's."""
    write(tmp_path / "meminfo", "MemTotal: 33554432 kB\nMemFree:   262144 kB\n")
    write(tmp_path / "cgroup" / group.usage, f"{20 * LIMIT_BYTES}")
    write(tmp_path / "cgroup" / group.most, limit)

    found = gauge(tmp_path)

    assert found.used_share == 0.0
    assert found.needed_share(but_for_bytes=0) == (0.0, 0.0)


@pytest.mark.parametrize("text", ["", "max", "-", "\x00"])
def test_nonsense_is_nothing(tmp_path: Path, text: str) -> None:
    """A worker goes on without a figure that a kernel does not give it."""
    write(tmp_path / "cgroup/memory.max", f"{LIMIT_BYTES}")
    write(tmp_path / "cgroup/memory.current", text)

    assert gauge(tmp_path).used_share == 0.0


def test_no_limit_is_never_short(tmp_path: Path) -> None:
    """Before the broker has said the limit, nothing is given up."""
    write(tmp_path / "cgroup/memory.max", f"{LIMIT_BYTES}")
    write(tmp_path / "cgroup/memory.current", f"{768 * MIB}\n")
    unlimited = MemoryGauge(
        limit_bytes=0, cgroups=tmp_path / "cgroup", meminfo=tmp_path / "meminfo"
    )

    assert unlimited.used_share == 0.0
