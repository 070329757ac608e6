"""The system calls that nothing in a container may make, tried, and refused where need be.

Without it the orchestrator would have to believe that the engine used the profile it was given:
Docker takes an empty one and switches seccomp off, and gVisor takes none at all unless it was
started with `--oci-seccomp`, and then, in older releases, with an error after which no thread
starts. There the worker refuses the same calls to itself and to all it starts.

The groups are those of `docker/seccomp.json`, which has the reason of each; a test compares the two
with the floor that the orchestrator checks that file against.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from sandbox_image.repl.system_call_filter import Comparison, Condition, Rule, assemble, install
from sandbox_image.repl.system_calls import make_system_call, this_machine

#: Arguments that no call can do anything with, whatever it is.
_NO_DESCRIPTOR, _NO_POINTER, _NO_FLAG, _NOBODY = -1, 0, -1, 0x7FFFFFFF
_REFUSALS = frozenset({errno.EPERM, errno.ENOSYS})
_PR_SET_NO_NEW_PRIVS = 38  # prctl(2)
_PTRACE_SEIZE = 0x4206  # ptrace(2)
_ASK_PERSONALITY = 0xFFFFFFFF  # personality(2): changes nothing
_AF_UNIX, _AF_INET = 1, 2  # socket(2)
_CLONE_NEW_ANYTHING = 0x7E020000  # clone(2): every flag that asks for a namespace
_CLONE_THREAD, _CLONE_NEWUSER = 0x00010000, 0x10000000
_TIOCSTI = 0x5412  # ioctl_tty(2)
#: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python asks of descriptors.
_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


class RefusedGroup(NamedTuple):
    """Calls that are refused together.

    Attributes:
        calls: By the kernel's names.
        conditions: What has to hold of the arguments for the calls to be refused; without any they
            always are.
        error: What a refused call is told.
        attempt: The one of the calls that is tried, and arguments that would fail, or change
            nothing, if it was let through.
        detail: The telling argument of the attempt, where there is one.
    """

    calls: tuple[str, ...]
    conditions: tuple[Condition, ...]
    error: int
    attempt: tuple[str, tuple[int, ...]]
    detail: str

    @property
    def label(self) -> str:
        """What the attempt is called in a report: `ptrace`, `socket(AF_INET)`."""
        return f"{self.attempt[0]}({self.detail})" if self.detail else self.attempt[0]


def _refused(  # noqa: PLR0913 - one argument for each part of a group
    calls: str,
    call: str,
    arguments: tuple[int, ...],
    *,
    detail: str = "",
    conditions: tuple[Condition, ...] = (),
    error: int = errno.EPERM,
) -> RefusedGroup:
    return RefusedGroup(
        calls=tuple(calls.split()),
        conditions=conditions,
        error=error,
        attempt=(call, arguments),
        detail=detail,
    )


GROUPS: Final[Mapping[str, RefusedGroup]] = {
    "inspection": _refused(
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease "
        "kcmp pidfd_getfd get_robust_list",
        "ptrace",
        (_PTRACE_SEIZE, 0, 0, 0),
    ),
    "process-handles": _refused(
        "pidfd_open pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo",
        "rt_sigqueueinfo",
        (_NOBODY, 0, _NO_POINTER),
    ),
    "hidden-programs": _refused(
        "execveat memfd_create memfd_secret", "memfd_create", (_NO_POINTER, _NO_FLAG)
    ),
    "file-handles": _refused(
        "name_to_handle_at open_by_handle_at",
        "name_to_handle_at",
        (_NO_DESCRIPTOR, _NO_POINTER, _NO_POINTER, _NO_POINTER, _NO_FLAG),
    ),
    "personality": _refused("personality", "personality", (_ASK_PERSONALITY,)),
    "processor-tables": _refused(
        "modify_ldt set_thread_area get_thread_area iopl ioperm", "modify_ldt", (0, _NO_POINTER, 0)
    ),
    "file-watches": _refused(
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init fanotify_mark",
        "inotify_init1",
        (_NO_FLAG,),
    ),
    "keys": _refused("add_key request_key keyctl", "keyctl", (_NO_FLAG, 0, 0, 0, 0)),
    "system-v-ipc": _refused(
        "shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl",
        "semget",
        (0, -1, 0),
    ),
    "message-queues": _refused(
        "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
        "mq_open",
        (_NO_POINTER, 0, 0, _NO_POINTER),
    ),
    "asynchronous-io": _refused(
        "io_uring_setup io_uring_enter io_uring_register io_setup io_destroy io_submit "
        "io_cancel io_getevents io_pgetevents",
        "io_setup",
        (0, _NO_POINTER),
    ),
    "page-faults": _refused("userfaultfd", "userfaultfd", (_NO_FLAG,)),
    "kernel-instruments": _refused(
        "bpf perf_event_open", "perf_event_open", (_NO_POINTER, 0, -1, _NO_DESCRIPTOR, _NO_FLAG)
    ),
    "mounts": _refused(
        "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount "
        "mount_setattr fsopen fsconfig fsmount fspick statmount listmount",
        "mount",
        (_NO_POINTER, _NO_POINTER, _NO_POINTER, 0, _NO_POINTER),
    ),
    "namespaces": _refused("unshare setns", "unshare", (0,)),
    "child-namespaces": _refused(
        "clone",
        "clone",
        (_CLONE_NEWUSER | _CLONE_THREAD, 0, 0, 0, 0),
        detail="CLONE_NEWUSER",
        conditions=(Condition(0, Comparison.HAS_ANY_BIT_OF, _CLONE_NEW_ANYTHING),),
    ),
    "clone3": _refused("clone3", "clone3", (_NO_POINTER, 0), error=errno.ENOSYS),
    "page-moves": _refused(
        "splice tee vmsplice", "tee", (_NO_DESCRIPTOR, _NO_DESCRIPTOR, 0, _NO_FLAG)
    ),
    "page-cache": _refused("cachestat mincore fadvise64 readahead", "mincore", (1, 0, _NO_POINTER)),
    "write-back": _refused("sync syncfs sync_file_range", "syncfs", (_NO_DESCRIPTOR,)),
    "memory-placement": _refused(
        "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
        "mbind",
        (_NO_POINTER, 0, -1, _NO_POINTER, 0, _NO_FLAG),
    ),
    "scheduling": _refused(
        "sched_setaffinity sched_setattr sched_setparam sched_setscheduler ioprio_set membarrier",
        "sched_setscheduler",
        (-1, 0, _NO_POINTER),
    ),
    "posix-timers": _refused(
        "timer_create timer_settime timer_gettime timer_getoverrun timer_delete",
        "timer_delete",
        (_NO_DESCRIPTOR,),
    ),
    "clock": _refused(
        "adjtimex clock_adjtime clock_settime settimeofday", "clock_adjtime", (0, _NO_POINTER)
    ),
    "host-administration": _refused(
        "reboot kexec_load kexec_file_load init_module finit_module delete_module "
        "create_module acct quotactl quotactl_fd swapon swapoff syslog sethostname "
        "setdomainname vhangup lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
        "quotactl",
        (_NO_FLAG, _NO_POINTER, 0, _NO_POINTER),
    ),
    "obsolete": _refused(
        "remap_file_pages uselib ustat sysfs _sysctl nfsservctl lookup_dcookie "
        "get_kernel_syms query_module epoll_ctl_old epoll_wait_old",
        "remap_file_pages",
        (_NO_POINTER, 0, -1, 0, 0),
    ),
    "socket-families": _refused(
        "socket socketpair",
        "socket",
        (_AF_INET, -1, 0),
        detail="AF_INET",
        conditions=(Condition(0, Comparison.EQUALS, _AF_UNIX, is_expected=False),),
    ),
    "device-control": _refused(
        "ioctl",
        "ioctl",
        (_NO_DESCRIPTOR, _TIOCSTI, _NO_POINTER),
        detail="TIOCSTI",
        conditions=tuple(
            Condition(1, Comparison.EQUALS, request, is_expected=False) for request in _REQUESTS
        ),
    ),
    "limits-of-others": _refused(
        "prlimit64",
        "prlimit64",
        (_NOBODY, 0, _NO_POINTER, _NO_POINTER),
        detail="another",
        conditions=(Condition(0, Comparison.EQUALS, 0, is_expected=False),),
    ),
}


def open_calls() -> tuple[str, ...]:
    """Tries one call of each group; returns the labels of those that were not refused."""
    numbers = this_machine().numbers
    return tuple(
        group.label
        for group in GROUPS.values()
        if group.attempt[0] in numbers and not _is_refused(numbers, group)
    )


def _is_refused(numbers: Mapping[str, int], group: RefusedGroup) -> bool:
    call, arguments = group.attempt
    _, error = make_system_call(numbers[call], *arguments)
    return error in _REFUSALS


def refuse_calls() -> None:
    """Refuses every group to this process and to all it starts, for good.

    To be called while the process has one thread, before anything is started.

    Raises:
        OSError: The kernel takes no filter, or the machine's system calls are not known.
    """
    machine = this_machine()
    _, error = make_system_call(machine.numbers["prctl"], _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if error:
        raise OSError(error, f"no-new-privileges: {os.strerror(error)}")
    rules = [
        Rule(call=call, conditions=group.conditions, error=group.error)
        for group in GROUPS.values()
        for call in group.calls
    ]
    install(assemble(rules, machine), machine)
