"""The memory a REPL process holds itself to, below the container's."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Sets a limit in a process of its own, and tells what may be had under it.
TRY = """
import mmap, resource, sys
from sandbox_image.repl import memory_limit
{before}
memory_limit.limit_memory(64 * 2**20)
for name, size, flags in (
    ("a value", 96, mmap.MAP_PRIVATE),
    ("half a value", 32, mmap.MAP_PRIVATE),
    ("shared pages", 96, mmap.MAP_SHARED),
):
    try:
        mmap.mmap(-1, size * 2**20, flags=flags | mmap.MAP_ANONYMOUS).close()
        print(name)
    except OSError:
        pass
"""
#: What gVisor's kernel does: it takes the limit, and lets any mapping pass.
AS_UNDER_GVISOR = """
limits = memory_limit.resource.setrlimit
memory_limit.resource.setrlimit = (
    lambda which, pair: None if which == resource.RLIMIT_DATA else limits(which, pair)
)
"""


@pytest.mark.parametrize(
    ("before", "granted"),
    [("", ["half a value", "shared pages"]), (AS_UNDER_GVISOR, ["half a value"])],
    ids=["data", "addresses"],
)
def test_more_memory_than_the_limit_is_refused(before: str, granted: list[str]) -> None:
    """The kernel's own count is used where it counts; elsewhere addresses are, of any mapping."""
    done = subprocess.run(
        [sys.executable, "-c", TRY.format(before=before)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == granted
