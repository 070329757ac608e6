"""What the REPL process asks the kernel for no more once cells run, and why.

Without it a cell could signal, slow down or starve the worker, which has the same user, and speak
to other sandboxes through what all containers of a host share. docs/adr/0011 has the reasons at
length, and what is not refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_image.repl.system_call_filter import Comparison, Condition, Rule
from sandbox_image.repl.system_calls import Machine, make_system_call

#: Errors that mean "refused", by whatever wall; any other answer means that the kernel has begun to
#: do what was asked.
_REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
#: Arguments that no call can do anything with, whatever it is.
_NO_DESCRIPTOR, _NO_POINTER, _NO_FLAG, _NOBODY = -1, 0, -1, 0x7FFFFFFF
_AF_UNIX, _AF_INET, _SOCK_STREAM = 1, 2, 1  # socket(2)
_CLONE_NEW_ANYTHING = 0x7E020000  # clone(2): every flag that asks for a namespace
_CLONE_THREAD, _CLONE_NEWUSER = 0x00010000, 0x10000000
_PTRACE_SEIZE = 0x4206  # ptrace(2)
#: fcntl(2): what it does to locks and leases, and to whom a descriptor's signals go.
_LOCK_COMMANDS = {
    "F_GETLK": 5,
    "F_SETLK": 6,
    "F_SETLKW": 7,
    "F_OFD_GETLK": 36,
    "F_OFD_SETLK": 37,
    "F_OFD_SETLKW": 38,
    "F_SETLEASE": 1024,
    "F_NOTIFY": 1026,
    "F_SETDELEG": 1040,
}
_OWNER_COMMANDS = {"F_SETOWN": 8, "F_SETSIG": 10, "F_SETOWN_EX": 15}
_OWNER_REQUESTS = {"FIOSETOWN": 0x8901, "SIOCSPGRP": 0x8902}  # ioctl_tty(2)
#: prctl(2): a name, the end of a parent, the names of mappings, and questions.
_PRCTL_OPTIONS = {
    "PR_SET_PDEATHSIG": 1,
    "PR_GET_PDEATHSIG": 2,
    "PR_GET_DUMPABLE": 3,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21,
    "PR_CAPBSET_READ": 23,
    "PR_GET_NO_NEW_PRIVS": 39,
    "PR_SET_VMA": 0x53564D41,
}
_PR_SET_DUMPABLE = 4


class RefusedCall(NamedTuple):
    """One thing that is refused, and how to see that it is without doing harm.

    Attributes:
        name: The call, with a telling argument where it is allowed with others.
        rule: For the filter.
        attempt: Arguments that would fail, or change nothing, if they were let through.
        gives_descriptor: Whether the attempt opens something where it is let through.
    """

    name: str
    rule: Rule
    attempt: tuple[int, ...]
    gives_descriptor: bool = False


def refused_calls(worker_pid: int) -> tuple[RefusedCall, ...]:
    """Returns everything that is refused from the first cell on.

    Args:
        worker_pid: The worker's number; 1 in a container.
    """
    return (
        *_sockets(),
        *_programs(),
        *_signals(worker_pid),
        *_other_processes(worker_pid),
        *_locks(),
        *_shared_with_other_sandboxes(),
        *_ways_out(),
        *_own_walls(),
    )


def open_calls(refused: tuple[RefusedCall, ...], machine: Machine) -> tuple[str, ...]:
    """Tries each call that should be refused; returns the names of those that are not."""
    found = []
    for call in refused:
        number = machine.numbers.get(call.rule.call)
        if number is None:
            continue
        result, error = make_system_call(number, *call.attempt)
        if error not in _REFUSALS:
            found.append(call.name)
        if call.gives_descriptor and result >= 0:
            os.close(result)
    return tuple(found)


def _sockets() -> Iterator[RefusedCall]:
    """A pair of connected ends stays (asyncio wakes itself with one); all else goes.

    Nobody in a sandbox has anything to dial: the worker holds the one stream there is.
    """
    yield _always("socket", _AF_UNIX, _SOCK_STREAM, 0, gives_descriptor=True)
    for name in ("connect", "bind", "listen", "accept", "accept4"):
        yield _always(name, _NO_DESCRIPTOR, _NO_POINTER, 0, 0)
    yield _where(
        "socketpair",
        "AF_INET",
        (Condition(0, Comparison.EQUALS, _AF_UNIX, is_expected=False),),
        attempt=(_AF_INET, _SOCK_STREAM, 0, _NO_POINTER),
    )


def _programs() -> Iterator[RefusedCall]:
    """A cell is Python; another program is either none of the image's or an attack."""
    yield _always("execve", _NO_POINTER, _NO_POINTER, _NO_POINTER)
    yield _always("execveat", _NO_DESCRIPTOR, _NO_POINTER, _NO_POINTER, _NO_POINTER, 0)


def _signals(worker_pid: int) -> Iterator[RefusedCall]:
    """Every way to send a signal but one: to a thread, by its number and its process's (tgkill(2)).

    That one cannot be pointed at the worker by another name. kill(2) can: the numbers of its
    threads are as good as its own, and nobody knows them beforehand. Under Linux the kernel drops
    what would end process 1; gVisor of 2022 ends it. `os.kill` goes the open way, see `signalling`.
    """
    yield _always("kill", worker_pid, 0)
    yield _where(
        "tgkill",
        "worker",
        (Condition(0, Comparison.EQUALS, worker_pid),),
        attempt=(worker_pid, worker_pid, 0),
    )
    yield _always("tkill", worker_pid, 0)
    yield _always("rt_sigqueueinfo", worker_pid, 0, _NO_POINTER)
    yield _always("rt_tgsigqueueinfo", worker_pid, worker_pid, 0, _NO_POINTER)
    yield _always("pidfd_open", _NO_DESCRIPTOR, 0)
    yield _always("pidfd_send_signal", _NO_DESCRIPTOR, 0, _NO_POINTER, 0)
    # A pipe that is written to would send any signal to any process of the user (F_SETSIG).
    for detail, command in _OWNER_COMMANDS.items():
        yield _fcntl(detail, command)
    for detail, request in _OWNER_REQUESTS.items():
        yield _where(
            "ioctl",
            detail,
            (Condition(1, Comparison.EQUALS, request),),
            attempt=(_NO_DESCRIPTOR, request, _NO_POINTER),
        )


def _other_processes(worker_pid: int) -> Iterator[RefusedCall]:
    """Limits, priorities, memory and descriptors of processes other than the caller's.

    The kernel lets one process set those of another of the same user, and the worker is one.
    """
    yield _always("ptrace", _PTRACE_SEIZE, 0, 0, 0)
    for name in ("process_vm_readv", "process_vm_writev"):
        yield _always(name, _NOBODY, _NO_POINTER, 0, _NO_POINTER, 0, _NO_FLAG)
    yield _always("kcmp", _NOBODY, _NOBODY, _NO_FLAG, 0, 0)
    yield _always("pidfd_getfd", _NO_DESCRIPTOR, _NO_DESCRIPTOR, 0)
    yield _always("process_madvise", _NO_DESCRIPTOR, _NO_POINTER, 0, 0, 0)
    yield _always("process_mrelease", _NO_DESCRIPTOR, 0)
    yield _always("move_pages", _NOBODY, 0, _NO_POINTER, _NO_POINTER, _NO_POINTER, _NO_FLAG)
    yield _always("migrate_pages", _NOBODY, 0, _NO_POINTER, _NO_POINTER)
    for name, *attempt in (
        ("prlimit64", worker_pid, 0, _NO_POINTER, _NO_POINTER),
        ("sched_setaffinity", worker_pid, 8, _NO_POINTER),
        ("sched_setscheduler", worker_pid, -1, _NO_POINTER),
        ("sched_setparam", worker_pid, _NO_POINTER),
        ("sched_setattr", worker_pid, _NO_POINTER, 0),
    ):
        yield _where(
            str(name),
            "worker",
            (Condition(0, Comparison.EQUALS, 0, is_expected=False),),
            attempt=tuple(int(value) for value in attempt),
        )
    yield _where(
        "setpriority",
        "group",
        (Condition(0, Comparison.EQUALS, 0, is_expected=False),),
        attempt=(99, 0, 0),
    )
    yield _where(
        "setpriority",
        "worker",
        (Condition(1, Comparison.EQUALS, 0, is_expected=False),),
        attempt=(0, worker_pid, 0),
    )
    yield _always("ioprio_set", 99, 0, 0)


def _locks() -> Iterator[RefusedCall]:
    """Notes that one sandbox could leave for another.

    /proc/locks lists the locks of open files to every container of a host, with the range that
    their owner chose. Where containers share an image's inodes (kernels before 4.19, some storage
    drivers) each also meets the other's locks.
    """
    yield _always("flock", _NO_DESCRIPTOR, 0)
    for detail, command in _LOCK_COMMANDS.items():
        yield _fcntl(detail, command)


def _shared_with_other_sandboxes() -> Iterator[RefusedCall]:
    """What a host counts by user over all its containers, or keeps when its process has ended."""
    yield _always("inotify_init", gives_descriptor=True)
    yield _always("inotify_init1", _NO_FLAG)
    yield _always("fanotify_init", _NO_FLAG, 0)
    yield _always("shmget", 0, 0, 0)
    yield _always("semget", 0, -1, 0)
    yield _always("msgget", _NOBODY, 0)
    yield _always("add_key", _NO_POINTER, _NO_POINTER, _NO_POINTER, 0, 0)
    yield _always("request_key", _NO_POINTER, _NO_POINTER, _NO_POINTER, 0)
    yield _always("keyctl", _NO_FLAG, 0, 0, 0, 0)


def _ways_out() -> Iterator[RefusedCall]:
    """Once more what the container's own filter refuses: gVisor may run without that one."""
    yield _always("io_uring_setup", 0, _NO_POINTER)
    yield _always("io_uring_enter", _NO_DESCRIPTOR, 0, 0, 0, _NO_POINTER, 0)
    yield _always("io_uring_register", _NO_DESCRIPTOR, 0, _NO_POINTER, 0)
    yield _always("userfaultfd", _NO_FLAG)
    yield _always("bpf", _NO_FLAG, _NO_POINTER, 0)
    yield _always("perf_event_open", _NO_POINTER, 0, -1, _NO_DESCRIPTOR, _NO_FLAG)
    yield _always("memfd_secret", _NO_FLAG)
    yield _always("modify_ldt", 0, _NO_POINTER, 0)
    yield _always("name_to_handle_at", _NO_DESCRIPTOR, _NO_POINTER, _NO_POINTER, _NO_POINTER, -1)
    yield _always("open_by_handle_at", _NO_DESCRIPTOR, _NO_POINTER, 0)
    yield _always("unshare", 0)
    yield _always("setns", _NO_DESCRIPTOR, 0)
    yield _where(
        "clone",
        "CLONE_NEWUSER",
        (Condition(0, Comparison.HAS_ANY_BIT_OF, _CLONE_NEW_ANYTHING),),
        # A thread that shares no signal handlers: there is no such thing, so nothing is started.
        attempt=(_CLONE_NEWUSER | _CLONE_THREAD, 0, 0, 0, 0),
    )
    # Its flags are in memory, where no filter sees them. With this error, and no other, the C
    # library falls back to clone(2).
    yield RefusedCall(
        name="clone3",
        rule=Rule(call="clone3", error=errno.ENOSYS),
        attempt=(_NO_POINTER, 0),
    )
    yield _always("chroot", _NO_POINTER)
    yield _always("mount", _NO_POINTER, _NO_POINTER, _NO_POINTER, 0, _NO_POINTER)
    yield _always("umount2", _NO_POINTER, 0)
    yield _always("pivot_root", _NO_POINTER, _NO_POINTER)
    yield _always("mount_setattr", _NO_DESCRIPTOR, _NO_POINTER, 0, _NO_POINTER, 0)
    yield _always("move_mount", _NO_DESCRIPTOR, _NO_POINTER, _NO_DESCRIPTOR, _NO_POINTER, 0)
    yield _always("open_tree", _NO_DESCRIPTOR, _NO_POINTER, 0)
    yield _always("fsopen", _NO_POINTER, 0)
    yield _always("fsconfig", _NO_DESCRIPTOR, 0, _NO_POINTER, _NO_POINTER, 0)
    yield _always("fsmount", _NO_DESCRIPTOR, 0, 0)
    yield _always("fspick", _NO_DESCRIPTOR, _NO_POINTER, 0)


def _own_walls() -> Iterator[RefusedCall]:
    """A process may not undo what was done for it, nor fill the kernel's memory with filters.

    What seccomp filters take is charged to no container, and spares would inherit them.
    """
    yield _always("seccomp", _NO_FLAG, 0, _NO_POINTER)
    yield _where(
        "prctl",
        "PR_SET_DUMPABLE",
        tuple(
            Condition(0, Comparison.EQUALS, option, is_expected=False)
            for option in _PRCTL_OPTIONS.values()
        ),
        attempt=(_PR_SET_DUMPABLE, 99, 0, 0, 0),
    )


def _always(call: str, *attempt: int, gives_descriptor: bool = False) -> RefusedCall:
    return RefusedCall(
        name=call, rule=Rule(call=call), attempt=attempt, gives_descriptor=gives_descriptor
    )


def _where(
    call: str, detail: str, conditions: tuple[Condition, ...], *, attempt: tuple[int, ...]
) -> RefusedCall:
    return RefusedCall(
        name=f"{call}({detail})", rule=Rule(call=call, conditions=conditions), attempt=attempt
    )


def _fcntl(detail: str, command: int) -> RefusedCall:
    return _where(
        "fcntl",
        detail,
        (Condition(1, Comparison.EQUALS, command),),
        attempt=(_NO_DESCRIPTOR, command, 0),
    )
