"""A cell that looks for a mount it can write to, run a program from, or make a device on."""

import pytest
from support.docker_sandboxes import LIMITS, told_in_another
from support.probes import probe
from support.runtimes import RuntimeUnderTest
from support.weakenings import EXECUTABLE_TMP, WRITABLE_ROOT, WRITABLE_SOCKET_DIRECTORY

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: proc_pid_mountinfo(5): the sixth field of a line has the mount's own flags.
MOUNTS = """
def mounts():
    found = {}
    for line in open("/proc/self/mountinfo"):
        fields = line.split()
        found[fields[4]] = sorted(fields[5].split(","))
    return found

def shape(path):
    size, status = os.statvfs(path), os.stat(path)
    return [size.f_blocks * size.f_frsize, size.f_files, oct(status.st_mode), status.st_uid]
"""
FLAGS = f"{MOUNTS}\ntell(mounts())"
SHAPES = f"{MOUNTS}\ntell([shape('/tmp'), shape('/dev/shm')])"

NARROW = {"nodev", "noexec", "nosuid"}
#: Mounts of the engine's own that are not read-only, and why that is no door.
NOT_READ_ONLY = {
    "/dev": "root's: the sandbox's user can make nothing in it",
    "/dev/mqueue": "no queue can be made: the limit on their bytes is 0",
    "/dev/pts": "an instance of its own, with no terminal in it",
    "/dev/shm": "bounded",
    "/proc": "what can be written there is bound read-only over it, or root's",
    "/proc/keys": "the null device",
    "/proc/kcore": "the null device",
    "/proc/latency_stats": "the null device",
    "/proc/sched_debug": "the null device",
    "/proc/timer_list": "the null device",
    "/proc/timer_stats": "the null device",
    "/sys/fs/cgroup": "root's, and every hierarchy in it is read-only",
    "/tmp": "bounded",
}


async def test_every_mount_is_as_narrow_as_it_can_be(
    shared_sandbox: Sandbox, runtime: RuntimeUnderTest
) -> None:
    """Read-only but for a known few; what a cell can write to executes nothing, has no devices.

    gVisor's kernel lists of the three flags the one alone that it does not always have.
    """
    flags: dict[str, list[str]] = await probe(shared_sandbox, FLAGS)

    narrow = {"noexec"} if runtime.is_gvisor else NARROW
    assert {path for path, own in flags.items() if "ro" not in own} <= set(NOT_READ_ONLY)
    assert {path for path in ("/tmp", "/dev/shm") if not set(flags[path]) >= narrow} == set()
    assert "ro" in flags["/run/rlm"]


async def test_every_mount_control() -> None:
    """The flags are read where they are: with a wall down each of them is another."""
    wide = await told_in_another(FLAGS, weakening=EXECUTABLE_TMP)
    assert "noexec" not in wide["/tmp"]

    writable = await told_in_another(FLAGS, weakening=WRITABLE_ROOT)
    assert "ro" not in writable["/"]

    open_door = await told_in_another(FLAGS, weakening=WRITABLE_SOCKET_DIRECTORY)
    assert "ro" not in open_door["/run/rlm"]


async def test_scratch_is_the_sandboxs_own_and_no_larger_than_asked_for(
    shared_sandbox: Sandbox, runtime: RuntimeUnderTest
) -> None:
    """Both have the size and the number of names asked for, and belong to the sandbox's user.

    The mode of /tmp is the one of the image's own folder, whatever was asked for: runc copies it.
    Nobody else is in there. gVisor sets the mode, and counts no names: what they take is memory of
    the sandbox's own.
    """
    told = await probe(shared_sandbox, SHAPES)

    if runtime.is_gvisor:
        assert told == [[LIMITS.tmp_bytes, 0, "0o40700", 10001], [2**20, 0, "0o40700", 10001]]
    else:
        assert told == [
            [LIMITS.tmp_bytes, LIMITS.tmp_inodes, "0o41777", 10001],
            [2**20, 256, "0o40700", 10001],
        ]
