"""The system calls that no seccomp profile of this product may allow, in named groups.

Without it a profile would be checked against nothing but itself: a file in which somebody had moved
`ptrace` to what is allowed would be as good as the one that was reviewed. The reason of each group
stands beside its calls in `docker/seccomp.json`, for those who review that file.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

_AF_UNIX = 1  # socket(2)
#: clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME is clone3's alone.
_CLONE_NEW_ANYTHING = 0x7E020000
_EQUAL, _MASKED_EQUAL = "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"  # seccomp_rule_add(3)
#: ioctl_tty(2) and asm-generic/ioctls.h; the same numbers on x86_64 and aarch64.
_REQUESTS = {
    "TCGETS": 0x5401,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentTest:
    """What one argument of a call has to be for the call to be allowed.

    Attributes:
        index: Of the argument, from 0.
        operator: As libseccomp writes it.
        value: What the argument is compared with; for a masked comparison, the mask.
        second_value: For a masked comparison, what has to be left under the mask; else 0.
    """

    index: int
    operator: str
    value: int
    second_value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorGroup:
    """Calls that are refused together, for one reason.

    Attributes:
        calls: By the kernel's names; one that a machine does not have is no gap.
        unless: The only arguments with which they may be allowed; empty where there are none.
        error: What a refused call is told.
    """

    calls: frozenset[str]
    unless: frozenset[ArgumentTest] = frozenset()
    error: int = errno.EPERM


#: The machines a profile has to be for, each without the rules of 32 bits.
MACHINES: Final = frozenset({"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"})

Floor: TypeAlias = Mapping[str, FloorGroup]


def _refused(calls: str, *unless: ArgumentTest, error: int = errno.EPERM) -> FloorGroup:
    return FloorGroup(calls=frozenset(calls.split()), unless=frozenset(unless), error=error)


FLOOR: Final[Floor] = {
    "inspection": _refused(
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp "
        "pidfd_getfd get_robust_list",
    ),
    "process-handles": _refused("pidfd_open pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo"),
    "hidden-programs": _refused("execveat memfd_create memfd_secret"),
    "file-handles": _refused("name_to_handle_at open_by_handle_at"),
    "personality": _refused("personality"),
    "processor-tables": _refused(
        "modify_ldt set_thread_area get_thread_area iopl ioperm vm86 vm86old",
    ),
    "file-watches": _refused(
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init fanotify_mark",
    ),
    "keys": _refused("add_key request_key keyctl"),
    "system-v-ipc": _refused(
        "shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl",
    ),
    "message-queues": _refused(
        "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    "asynchronous-io": _refused(
        "io_uring_setup io_uring_enter io_uring_register io_setup io_destroy io_submit "
        "io_cancel io_getevents io_pgetevents",
    ),
    "page-faults": _refused("userfaultfd"),
    "kernel-instruments": _refused("bpf perf_event_open"),
    "mounts": _refused(
        "mount umount umount2 pivot_root chroot open_tree open_tree_attr move_mount "
        "mount_setattr fsopen fsconfig fsmount fspick statmount listmount",
    ),
    "namespaces": _refused("unshare setns"),
    "child-namespaces": _refused(
        "clone",
        ArgumentTest(index=0, operator=_MASKED_EQUAL, value=_CLONE_NEW_ANYTHING),
    ),
    "clone3": _refused(
        "clone3",
        error=errno.ENOSYS,  # the one error after which the C library falls back to clone(2)
    ),
    "page-moves": _refused("splice tee vmsplice"),
    "page-cache": _refused("cachestat mincore fadvise64 readahead"),
    "write-back": _refused("sync syncfs sync_file_range"),
    "memory-placement": _refused(
        "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    ),
    "scheduling": _refused(
        "sched_setaffinity sched_setattr sched_setparam sched_setscheduler ioprio_set membarrier",
    ),
    "posix-timers": _refused(
        "timer_create timer_settime timer_gettime timer_getoverrun timer_delete",
    ),
    "clock": _refused("adjtimex clock_adjtime clock_settime settimeofday stime"),
    "host-administration": _refused(
        "reboot kexec_load kexec_file_load init_module finit_module delete_module "
        "create_module acct quotactl quotactl_fd swapon swapoff syslog sethostname "
        "setdomainname vhangup lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    ),
    "obsolete": _refused(
        "remap_file_pages uselib ustat sysfs _sysctl nfsservctl lookup_dcookie "
        "get_kernel_syms query_module epoll_ctl_old epoll_wait_old socketcall ipc",
    ),
    "socket-families": _refused(
        "socket socketpair",
        ArgumentTest(index=0, operator=_EQUAL, value=_AF_UNIX),
    ),
    "device-control": _refused(
        "ioctl",
        *(ArgumentTest(index=1, operator=_EQUAL, value=request) for request in _REQUESTS.values()),
    ),
    "limits-of-others": _refused(
        "prlimit64",
        ArgumentTest(index=0, operator=_EQUAL, value=0),
    ),
}
