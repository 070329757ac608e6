"""What a broker's process gives up before a sandbox can speak to it.

Without it a broker's process would be a second orchestrator in all but name: same user, same files,
same sockets. In the order in which it is done: the nursery leaves the network (`isolate`); each
child leaves the file system, its user and its privileges (`enclose`); when its socket is open it
leaves all but a few system calls (`seal`).
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from orchestrator.broker_process import kernel, landlock
from orchestrator.broker_process.system_call_filter import install_filter

#: No user and no container of any tool has these (systemd, "Users, Groups, UIDs and GIDs"). With
#: the process id added, no two broker processes of a host are of one user.
_FIRST_UID: Final = 0x70000000
#: Where so large an id is unknown: a container whose user namespace maps the first 65,536.
_NOBODY: Final = 65534
_SECCOMP_MODE_FILTER = 2
_ENTROPY_DEVICE = Path("/dev/urandom")
#: Abseil reads 2 KiB when gRPC's first server is made, and never again.
_ENTROPY_BYTES = 32 * 2**10

_LIMITS: Final = {
    # Connections are what a sandbox can make of them; a server and its threads hold about twenty.
    resource.RLIMIT_NOFILE: 256,
    resource.RLIMIT_CORE: 0,  # it holds what a sandbox sent, and what it was told
    resource.RLIMIT_FSIZE: 4096,  # the token is all it writes
}
#: A sandbox whose flood gets past every bound ends its own broker.
_DATA_BYTES: Final = 512 * 2**20
#: Threads of one user, and each process has a user of its own.
_THREAD_COUNT: Final = 64
#: gRPC starts threads by the number of cores: seven on two. The stack of each counts as data,
#: 8 MiB, although next to nothing of it is ever touched.
_THREADS_A_CORE: Final = 4
_STACK_BYTES: Final = 8 * 2**20


class ConfinementError(Exception):
    """A wall of a broker's process does not stand; it must not serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the nursery found it may do for its children.

    Attributes:
        can_change_user: Whether each child gets a user of its own: the orchestrator is root.
        can_change_root: Whether each child is shut into its directory with chroot(2).
        has_own_network: Whether the children have a network of their own, with nothing in it.
    """

    can_change_user: bool
    can_change_root: bool
    has_own_network: bool


def die_with(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent dies; it dies now if that has happened.

    To be called again after each change of user: the kernel forgets it then (prctl(2)).
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def isolate() -> Ground:
    """Takes this process out of the host's network, as far as the kernel lets it.

    Its children share what it gets: an empty network, so that there is no address and no abstract
    socket to reach. Without privileges that takes a user namespace, which a host may refuse.
    """
    if os.geteuid() != 0:
        may_leave = _can(_enter_user_namespace, lambda: os.chroot("/"))
        if may_leave:
            _enter_user_namespace()
        return Ground(can_change_user=False, can_change_root=may_leave, has_own_network=may_leave)
    # Root in a container may have none of these privileges, or some.
    leave_network = partial(kernel.unshare, kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    ground = Ground(
        can_change_user=_can(partial(_become, _NOBODY)),
        can_change_root=_can(lambda: os.chroot("/")),
        has_own_network=_can(leave_network),
    )
    if ground.has_own_network:
        leave_network()
    return ground


class Enclosure:
    """A process that is shut into its directory, and not sealed yet."""

    def __init__(self, root: Path, *, walls: tuple[str, ...], entropy: int | None) -> None:
        """Takes over the writing end of what stands for the entropy device, if there is one."""
        self.root = root
        self._walls = walls
        self._entropy = entropy

    def seal(self) -> tuple[str, ...]:
        """Gives up every system call that serving does not need, in every thread, for good.

        To be called when the socket is open and nobody can have dialled it yet.

        Returns:
            The walls that stand, by the names of docs/controls.md.

        Raises:
            OSError: The kernel refused.
            ConfinementError: A wall does not stand.
        """
        if self._entropy is not None:
            os.close(self._entropy)
            inside = self.root / _ENTROPY_DEVICE.relative_to("/")
            inside.unlink()
            inside.parent.rmdir()
        install_filter()
        _try_walls()
        return (*self._walls, "system_call_filter")


def enclose(directory: Path, ground: Ground) -> Enclosure:
    """Shuts this process into `directory`, and gives up every privilege.

    Raises:
        OSError: The kernel refused.
    """
    entropy = _lay_entropy(directory) if ground.can_change_root else None
    uid = _FIRST_UID + os.getpid()
    has_own_user = ground.can_change_user and _is_mapped(uid)
    if not has_own_user:
        uid = _NOBODY
    if ground.can_change_user:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, uid, uid)
    root = directory
    if ground.can_change_root:
        os.chroot(directory)
        root = Path("/")
    os.chdir(root)
    if ground.can_change_user:
        _become(uid)
    # Root has lost them with its user; in a user namespace of its own a process still has them.
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    core_threads = _THREADS_A_CORE * (os.cpu_count() or 1)
    for limit, value in _LIMITS.items():
        _limit(limit, value)
    _limit(resource.RLIMIT_DATA, _DATA_BYTES + core_threads * _STACK_BYTES)
    if has_own_user:
        _limit(resource.RLIMIT_NPROC, _THREAD_COUNT + core_threads)
    abi = landlock.close_file_system(
        {
            root: landlock.WRITE_FILE
            | landlock.READ_FILE
            | landlock.REMOVE_DIR
            | landlock.REMOVE_FILE
            | landlock.MAKE_DIR
            | landlock.MAKE_REG
            | landlock.MAKE_SOCK,
            _ENTROPY_DEVICE: landlock.READ_FILE,
        }
    )
    walls = {
        "own_user": has_own_user,
        "own_root": ground.can_change_root,
        "own_network": ground.has_own_network,
        f"landlock_{abi}": abi > 0,
        "resource_limits": True,
        "no_new_privileges": True,
        "not_inspectable": True,
    }
    return Enclosure(
        root, walls=tuple(wall for wall, stands in walls.items() if stands), entropy=entropy
    )


def _limit(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (value, value))


def _lay_entropy(directory: Path) -> int:
    """Puts a pipe with random bytes where gRPC looks for the device, and returns its other end.

    Abseil in gRPC's wheels knows neither getrandom(2) nor getentropy(3), and aborts when it cannot
    open the device. A device of one's own takes a privilege, and a file system that takes devices.
    """
    inside = directory / _ENTROPY_DEVICE.relative_to("/")
    inside.parent.mkdir()
    os.mkfifo(inside)
    # Both ways, or opening would wait for a reader. Never so much that it waits for room.
    descriptor = os.open(inside, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(descriptor, os.urandom(_ENTROPY_BYTES))
    return descriptor


def _is_mapped(uid: int) -> bool:
    """Whether this user namespace knows the id, as user and as group."""
    return all(
        any(
            int(first) <= uid < int(first) + int(count)
            for first, _, count in map(str.split, Path(table).read_text("ascii").splitlines())
        )
        for table in ("/proc/self/uid_map", "/proc/self/gid_map")
    )


def _become(uid: int) -> None:
    """Changes user and group for good, and leaves every other group."""
    descriptor = os.memfd_create("")
    os.fchown(descriptor, uid, uid)  # the directory will be given away: may it be?
    os.close(descriptor)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _can(*steps: Callable[[], object]) -> bool:
    """Whether the kernel lets this process do these things, one after the other.

    Tried in a child, because there is no way back from any of them. Only trying tells: a host may
    give a user namespace and then no privilege in it (AppArmor's
    `apparmor_restrict_unprivileged_userns`), a container may map no other user.
    """
    pid = os.fork()
    if pid == 0:
        try:
            for step in steps:
                step()
        except OSError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return status == 0


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    # user_namespaces(7): without this a user who is denied something by a group could leave it.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")


def _try_walls() -> None:
    """Tries what must not work any more: a filter that was taken and does nothing is none."""
    facts = {
        "a filter of system calls": kernel.prctl(kernel.PR_GET_SECCOMP) == _SECCOMP_MODE_FILTER,
        "no new privileges": kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) == 1,
        "not inspectable": kernel.prctl(kernel.PR_GET_DUMPABLE) == 0,
        "no files": _is_refused(lambda: os.open(".", os.O_RDONLY)),
        "no network": _is_refused(lambda: socket.socket(socket.AF_INET)),
        "no signals to others": _is_refused(lambda: os.kill(os.getppid(), 0)),
    }
    missing = [wall for wall, stands in facts.items() if not stands]
    if missing:
        raise ConfinementError(f"walls of a broker's process do not stand: {', '.join(missing)}")


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    return False
