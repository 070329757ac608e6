"""A cell that writes where it should not: the image's root, /proc, /sys, the host's disk."""

from typing import Any

import pytest
from support.docker_sandboxes import told_in_another
from support.probes import probe
from support.second_stage import NO_LANDLOCK, together
from support.weakenings import ROOT_IN_A_WRITABLE_ROOT, ROOT_USER

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: How an attempt to make a file ends, for each directory but those the kernel makes up.
WRITE_EVERYWHERE = """
def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)

found = {}
for folder, _, _ in os.walk("/"):
    if not (folder + "/").startswith(("/proc/", "/sys/")):
        found[folder] = attempt(write, os.path.join(folder, "probe"))
tell(found)
"""
#: How changes to what is there already end.
CHANGE = """
PROGRAM = "/usr/bin/python3.13"
tell([
    attempt(os.open, PROGRAM, os.O_WRONLY | os.O_APPEND),
    attempt(os.unlink, PROGRAM),
    attempt(os.rename, PROGRAM, "/usr/bin/python3"),
    attempt(os.chmod, PROGRAM, 0o4755),
    attempt(os.symlink, "/proc/self/environ", "/usr/bin/link"),
    attempt(os.utime, PROGRAM),
])
"""
#: Knobs of the whole kernel, the ways out of SandboxEscapeBench's and others' lists.
KERNEL_KNOBS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/1/oom_score_adj",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
)
TURN_KNOBS = f"""
def turn(path):
    os.close(os.open(path, os.O_WRONLY))

tell({{path: attempt(turn, path) for path in {KERNEL_KNOBS}}})
"""
#: The only places a cell can write to; each is in memory, see the tests of /tmp.
WRITABLE = {"/tmp", "/dev/shm"}
#: A mount of the kernel's own: its files are message queues, of which a process may have none.
MESSAGE_QUEUES = "/dev/mqueue"
OF_THE_ROOT = ("/", "/etc", "/usr/bin", "/run")


async def test_nothing_can_be_written_but_scratch(shared_sandbox: Sandbox) -> None:
    """Every directory of the root refuses a new file; the two of scratch take one."""
    found: dict[str, str] = await probe(shared_sandbox, WRITE_EVERYWHERE)

    assert len(found) > 100
    assert {folder for folder, end in found.items() if end == "done"} == WRITABLE
    # By its limit, or by Landlock before it; gVisor has none.
    assert found.get(MESSAGE_QUEUES, "EMFILE") in {"EMFILE", "EACCES"}
    assert {found[folder] for folder in found.keys() - {*WRITABLE, MESSAGE_QUEUES}} <= {
        "EROFS",
        "EACCES",
    }


async def test_the_root_refuses_even_root() -> None:
    """It is the file system that refuses, not the owner of a directory."""
    found = await told_in_another(WRITE_EVERYWHERE, weakening=together(NO_LANDLOCK, ROOT_USER))

    assert {found[folder] for folder in OF_THE_ROOT} == {"EROFS"}


async def test_the_root_refuses_even_root_control() -> None:
    """Where the root is writable the same user writes to the same places."""
    found = await told_in_another(
        WRITE_EVERYWHERE, weakening=together(NO_LANDLOCK, ROOT_IN_A_WRITABLE_ROOT)
    )

    assert {found[folder] for folder in OF_THE_ROOT} == {"done"}


async def test_what_is_there_cannot_be_changed(shared_sandbox: Sandbox) -> None:
    """No program, mode, name or time of the image is other than it was built."""
    assert set(await probe(shared_sandbox, CHANGE)) <= {"EROFS", "EACCES", "EPERM"}


async def test_what_is_there_cannot_be_changed_control() -> None:
    """In a writable root its owner changes all of it, but for the program that runs."""
    told: list[Any] = await told_in_another(
        CHANGE, weakening=together(NO_LANDLOCK, ROOT_IN_A_WRITABLE_ROOT)
    )

    assert told[1:] == ["done", "ENOENT", "ENOENT", "done", "ENOENT"]


async def test_the_kernels_knobs_cannot_be_turned(bare_sandbox: Sandbox) -> None:
    """What is set for the whole host, or for the worker, cannot be set from a cell."""
    found: dict[str, str] = await probe(bare_sandbox, TURN_KNOBS)

    assert set(found.values()) <= {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert found["/proc/sys/kernel/hostname"] != "ENOENT"  # one that both kernels have


async def test_the_kernels_knobs_control(bare_sandbox: Sandbox) -> None:
    """The same probe opens a file of /proc that is the cell's own."""
    source = "tell(attempt(os.open, '/proc/self/comm', os.O_WRONLY))"

    assert await probe(bare_sandbox, source) == "done"
