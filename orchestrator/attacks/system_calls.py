"""Attacks on the kernel itself, through system calls that honest code does without.

Without them a filter could be switched off (the engine takes `{}` for one) and nobody would see.
Each call is made with arguments that nothing can be done with: an answer about the arguments means
that the kernel had begun, which is what the walls are there to prevent.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group
from orchestrator.attacks.barriers import FILTERED, PRIVILEGED, barrier
from orchestrator.attacks.judges import refused
from orchestrator.attacks.walls import Wall


def _attack(
    attack_id: str,
    title: str,
    source: str,
    *,
    barriers: tuple[Barrier, ...] = FILTERED,
    known_as: str = "",
) -> Attack:
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.SYSTEM_CALLS,
        threat="kernel",
        barriers=barriers,
        source=source,
        judge=refused,
        known_as=known_as,
        is_on_the_kernel=True,
    )


SYSTEM_CALL_ATTACKS: Final = (
    _attack(
        "bpf",
        "load a program into the kernel",
        """
return {"map": system_call("bpf", 0, 0, 0), "program": system_call("bpf", 5, 0, 0)}
""",
        barriers=PRIVILEGED,
        known_as="CVE-2017-16995; SandboxEscapeBench: bpf",
    ),
    _attack(
        "io-uring",
        "make system calls where no filter looks",
        """
return {"setup": system_call("io_uring_setup", 1, 0),
        "enter": system_call("io_uring_enter", -1, 0, 0, 0, 0, 0),
        "register": system_call("io_uring_register", -1, 0, 0, 0)}
""",
        known_as="isolate 2.4",
    ),
    _attack(
        "userfaultfd",
        "hold the kernel still in the middle of a copy",
        """
return {"call": system_call("userfaultfd", 1 << 30), "device": opened("/dev/userfaultfd")}
""",
        barriers=(*PRIVILEGED, barrier(Wall.IMAGE, "ENOENT"), barrier(Wall.LANDLOCK, "EACCES")),
    ),
    _attack(
        "perf",
        "measure the kernel and other processes",
        """
return {"perf_event_open": system_call("perf_event_open", 0, 0, -1, -1, 0)}
""",
        barriers=(*PRIVILEGED, barrier(Wall.CAPABILITIES, "EACCES")),
    ),
    _attack(
        "load-a-module",
        "put code into the kernel",
        """
text = ctypes.create_string_buffer
return {"init_module": system_call("init_module", 0, 0, text(b"")),
        "finit_module": system_call("finit_module", -1, text(b""), 0),
        "delete_module": system_call("delete_module", text(b"rlm-none"), 0)}
""",
        barriers=PRIVILEGED,
        known_as="SandboxEscapeBench: SYS_MODULE",
    ),
    _attack(
        "another-kernel",
        "start another kernel in place of this one",
        """
return {"kexec_load": system_call("kexec_load", 0, 99, 0, -1),
        "kexec_file_load": system_call("kexec_file_load", -1, -1, 0, 0, -1)}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "host-administration",
        "restart the host, name it, swap, account, set its clock",
        # reboot(2) looks at its magic numbers last; names of no length change nothing.
        """
text = ctypes.create_string_buffer
return {"reboot": system_call("reboot", 1, 2, 3, 0),
        "sethostname": system_call("sethostname", 0, -1),
        "setdomainname": system_call("setdomainname", 0, -1),
        "swapon": system_call("swapon", text(b"/rlm-none"), 0),
        "swapoff": system_call("swapoff", text(b"/rlm-none")),
        "acct": system_call("acct", text(b"/rlm-none")),
        "clock": system_call("clock_settime", 0, 0),
        "quotactl": system_call("quotactl", 0x80000100, text(b"/rlm-none"), 0, 0),
        "vhangup": alone(lambda: system_call("vhangup"))}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "kernel-log",
        "read the kernel's log, or the addresses in it",
        """
return {"syslog": system_call("syslog", 3, 0, -1), "size": system_call("syslog", 10, 0, 0),
        "device": opened("/dev/kmsg")}
""",
        barriers=(*PRIVILEGED, barrier(Wall.IMAGE, "ENOENT"), barrier(Wall.LANDLOCK, "EACCES")),
    ),
    _attack(
        "ports",
        "speak to hardware by its ports",
        """
return {"ioperm": system_call("ioperm", 0, 1, 1), "iopl": system_call("iopl", 3)}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "secret-memory",
        "take memory that the kernel itself cannot see and no limit reclaims",
        """
return {"memfd_secret": system_call("memfd_secret", -1)}
""",
    ),
    _attack(
        "segments",
        "change the processor's own tables",
        """
return {"modify_ldt": system_call("modify_ldt", 0, 0, 0)}
""",
    ),
    _attack(
        "watch-file-systems",
        "watch what is opened on the host's file systems",
        """
return {"fanotify_init": system_call("fanotify_init", -1, 0)}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "handles",
        "learn the number under which a file can be opened past every path",
        """
return {"name_to_handle_at": system_call("name_to_handle_at", -1, 0, 0, 0, -1)}
""",
    ),
    _attack(
        "keys",
        "use the kernel's keys, which no namespace divides",
        """
return {"keyctl": system_call("keyctl", -1, 0, 0, 0, 0),
        "add_key": system_call("add_key", 0, 0, 0, 0, 0),
        "request_key": system_call("request_key", 0, 0, 0, 0)}
""",
        known_as="isolate 2.4",
    ),
    _attack(
        "system-v-ipc",
        "use shared memory, queues and semaphores that outlive their maker",
        """
return {"shmget": system_call("shmget", 0, 0, 0), "semget": system_call("semget", 0, -1, 0),
        "msgget": system_call("msgget", 0x7FFFFFFF, 0)}
""",
    ),
    _attack(
        "compare-processes",
        "learn the kernel's addresses by asking whether two things are one",
        """
return {"kcmp": system_call("kcmp", os.getpid(), os.getpid(), -1, 0, 0),
        "lookup_dcookie": system_call("lookup_dcookie", 0, 0, 0)}
""",
        barriers=PRIVILEGED,
    ),
    _attack(
        "fixed-addresses",
        "have the next program lie at addresses that are known beforehand",
        """
ADDR_NO_RANDOMIZE = 0x0040000
return {"personality": system_call("personality", ADDR_NO_RANDOMIZE)}
""",
    ),
    _attack(
        "program-without-a-name",
        "start a program that is no file",
        """
return {"execveat": system_call("execveat", -1, 0, 0, 0, 0)}
""",
    ),
    _attack(
        "debug",
        "be the debugger of a process, which has a history of flaws of its own",
        """
TRACE_ME, SEIZE = 0, 0x4206
return {"ptrace": system_call("ptrace", TRACE_ME, 0, 0, 0),
        "seize": system_call("ptrace", SEIZE, 0x7FFFFFFF, 0, 0),
        "process_vm_readv": system_call("process_vm_readv", 0x7FFFFFFF, 0, 0, 0, 0, -1),
        "process_vm_writev": system_call("process_vm_writev", 0x7FFFFFFF, 0, 0, 0, 0, -1)}
""",
        known_as="SandboxEscapeBench: host pid namespace + SYS_PTRACE",
    ),
    _attack(
        "x32",
        "make a system call by a number that only half of all filters know",
        # __X32_SYSCALL_BIT; 41 is socket(2).
        """
if platform.machine() != "x86_64":
    return {"x32": "not here: only x86_64 has such numbers"}
def call():
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(0x40000000 | 41), ctypes.c_long(16), ctypes.c_long(3), 0)
    return "done" if result >= 0 else named(ctypes.get_errno())
return {"x32": alone(call)}
""",
        barriers=(
            *FILTERED,
            # A filter that knows one set of numbers kills whoever uses another (seccomp(2)).
            barrier(Wall.SYSTEM_CALLS, "killed by SIGSYS"),
        ),
    ),
)
