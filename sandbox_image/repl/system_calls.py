"""System calls by name: their numbers on each machine, and a way to make one.

Without it the filter and the try-outs of it would each have numbers of their own, and a wrong one
would refuse something else in silence.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from dataclasses import dataclass

#: By name, the number on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and on aarch64
#: (include/uapi/asm-generic/unistd.h); None where the machine has no such call.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "add_key": (248, 217),
    "bind": (49, 200),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "listen": (50, 201),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of a machine's system calls a filter has to know.

    Attributes:
        audit_architecture: What the kernel calls it in `seccomp_data` (linux/audit.h).
        foreign_from: The lowest number that belongs to another way of calling; None where every
            number is the machine's own. On x86_64 the x32 way has a bit of its own.
        numbers: By name.
    """

    audit_architecture: int
    foreign_from: int | None
    numbers: Mapping[str, int]


MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(
        audit_architecture=0xC000003E,
        foreign_from=0x40000000,
        numbers={name: x86_64 for name, (x86_64, _) in _NUMBERS.items()},
    ),
    "aarch64": Machine(
        audit_architecture=0xC00000B7,
        foreign_from=None,
        numbers={name: arm for name, (_, arm) in _NUMBERS.items() if arm is not None},
    ),
}


def this_machine() -> Machine:
    """Returns the machine this process runs on.

    Raises:
        OSError: It is one whose numbers are not known here, so nothing could be refused on it.
    """
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(f"the machine is {name}; system calls are known of {', '.join(MACHINES)}")
    return MACHINES[name]


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def make_system_call(number: int, *arguments: int | bytes) -> tuple[int, int]:
    """Makes a system call as it stands (syscall(2)).

    Args:
        number: Of the call.
        arguments: Integers, or bytes that are handed over as their address and only read.

    Returns:
        What it returned, and the error's number, which is 0 where there was none.
    """
    ctypes.set_errno(0)
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *passed))
    return result, ctypes.get_errno() if result == -1 else 0
