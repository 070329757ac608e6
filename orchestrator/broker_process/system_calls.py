"""What a broker's process may ask of the kernel once its socket is open.

Without it the filter would be a list of known attacks; this is a list of known needs, so that a
call nobody thought of is refused as well. Found by running the broker's suites with every refusal
logged; what a refusal costs nothing was left out (files of /sys that say how many cores there are).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

# <linux/sched.h>, as glibc and musl make threads; anything else makes processes or namespaces.
_GLIBC_THREAD = 0x003D0F00
_MUSL_THREAD = 0x007D0F00
_PROT_EXEC = 0x4
_FIONREAD, _FIONBIO = 0x541B, 0x5421
# F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL: F_SETOWN would send signals to others.
_FCNTL_COMMANDS = (1030, 1, 2, 3, 4)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS, PR_SET_VMA.
_PRCTL_OPTIONS = (3, 15, 16, 21, 39, 0x53564D41)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """An argument has one of some values, in its lower 32 bits."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """An argument has none of some bits, among its lower 32."""

    argument: int
    bits: int


Condition: TypeAlias = OneOf | Without


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What tells one machine's system calls from another's.

    Attributes:
        audit_arch: What the kernel calls it (<linux/audit.h>).
        seccomp: Number of seccomp(2).
        clone3: Number of clone3(2).
        column: Place of its numbers in `ALLOWED`.
    """

    audit_arch: int
    seccomp: int
    clone3: int
    column: int


#: By what uname(2) calls them.
MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(audit_arch=0xC000003E, seccomp=317, clone3=435, column=0),
    "aarch64": Machine(audit_arch=0xC00000B7, seccomp=277, clone3=435, column=1),
}

#: By name: the number on x86_64 and on aarch64. None: that machine does not have the call.
ALLOWED: Final[Mapping[str, tuple[int | None, int | None]]] = {
    # Bytes, over descriptors that are there.
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "close": (3, 57),
    "shutdown": (48, 210),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    # The sandbox dials; an accepted connection may be handed on to a socket of this process.
    "accept": (43, 202),
    "accept4": (288, 242),
    "socket": (41, 198),
    "connect": (42, 203),
    "socketpair": (53, 199),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "setsockopt": (54, 208),
    "getsockopt": (55, 209),
    # Waiting.
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "eventfd2": (290, 19),
    "pipe2": (293, 59),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    # Memory, none of it executable.
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    # Threads, and the end.
    "clone": (56, 220),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "prctl": (157, 167),
    "gettid": (186, 178),
    "tgkill": (234, 131),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # What is harmless to know.
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "fstat": (5, 80),
    # The socket and the token are removed by the process that made them.
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rmdir": (84, None),
}


def conditions() -> Mapping[str, Sequence[Condition]]:
    """Returns what the arguments of an allowed call have to be, for the calling process."""
    return {
        "socket": (OneOf(argument=0, values=(socket.AF_UNIX,)),),
        "socketpair": (OneOf(argument=0, values=(socket.AF_UNIX,)),),
        "ioctl": (OneOf(argument=1, values=(_FIONREAD, _FIONBIO)),),
        "fcntl": (OneOf(argument=1, values=_FCNTL_COMMANDS),),
        "prctl": (OneOf(argument=0, values=_PRCTL_OPTIONS),),
        "clone": (OneOf(argument=0, values=(_GLIBC_THREAD, _MUSL_THREAD)),),
        # abort(3) and thread libraries signal their own process, and no other.
        "tgkill": (OneOf(argument=0, values=(os.getpid(),)),),
        "mmap": (Without(argument=2, bits=_PROT_EXEC),),
        "mprotect": (Without(argument=2, bits=_PROT_EXEC),),
    }
