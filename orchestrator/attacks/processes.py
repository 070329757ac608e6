"""Attacks on other processes: the worker, the sandbox's own, the host's.

Without them the worker would be safe from its cells because nobody had tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Judge, Position
from orchestrator.attacks.barriers import FILTER, LANDLOCK, REPL_FILTER, barrier
from orchestrator.attacks.judges import refused, refused_later, survived
from orchestrator.attacks.walls import Wall

_CELL = (Position.CELL,)
_WORKERS_DOOR = barrier(Wall.WORKER, "EACCES", "EPERM")
_WORKER = barrier(Wall.WORKER)


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    threat: str,
    barriers: tuple[Barrier, ...],
    positions: tuple[Position, ...] = _CELL,
    judge: Judge = refused,
    later: str = "",
    is_on_the_kernel: bool = False,
) -> Attack:
    is_survival = judge is survived
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.PROCESSES,
        threat=threat,
        barriers=barriers,
        source=source,
        judge=judge,
        positions=positions,
        later=later,
        is_on_the_kernel=is_on_the_kernel,
        is_apart=not is_survival,
        is_destructive=is_survival,
        timeout_s=5.0 if is_survival else 10.0,
    )


_LOOK_INTO_THE_WORKER = replace(
    _attack(
        "look-into-the-worker",
        "learn where the worker's memory lies and what it has open, and write to its pipes",
        """
def read(path):
    with open(path, "rb", buffering=0):
        pass
WAYS = {"environ": read, "auxv": read, "maps": read, "fd": os.listdir, "cwd": os.listdir,
        "exe": os.readlink, "ns/net": os.readlink, "stack": read}
answers = {name: attempt(way, f"/proc/1/{name}") for name, way in WAYS.items()}
for number in range(64):
    if attempt(os.readlink, f"/proc/1/fd/{number}") == "done":
        if os.readlink(f"/proc/1/fd/{number}").startswith("pipe:"):
            answers["pipes"] = opened(f"/proc/1/fd/{number}", os.O_WRONLY | os.O_NONBLOCK)
return answers
""",
        threat="worker-memory",
        barriers=(_WORKERS_DOOR, LANDLOCK, barrier(Wall.GVISOR, "ENOENT")),
    ),
    open_under_gvisor=frozenset({"environ", "auxv", "maps", "fd", "ns/net", "pipes"}),
    why_open=(
        "gVisor shows a process to its own user: the worker's environment holds no secret, its "
        "addresses and numbers lead to no memory and no stream, its pipes are its own session's"
    ),
)

PROCESS_ATTACKS: Final = (
    _attack(
        "token-of-the-worker",
        "read the token from the worker's memory, or take over its stream",
        """
def read_memory():
    with open("/proc/1/mem", "rb", buffering=0) as file:
        file.seek(2**22)
        file.read(1)
answers = {"memory": attempt(read_memory)}
for number in range(64):
    path = f"/proc/1/fd/{number}"
    try:
        is_stream = os.readlink(path).startswith("socket:")
    except OSError as error:
        answers.setdefault("descriptors", named(error.errno))
        continue
    if is_stream:
        answers[f"stream {number}"] = opened(path, os.O_RDWR | os.O_NONBLOCK)
return answers
""",
        threat="worker-memory",
        barriers=(_WORKERS_DOOR, LANDLOCK, barrier(Wall.WORKER, "ENOENT", "ENXIO")),
    ),
    _LOOK_INTO_THE_WORKER,
    _attack(
        "seize-the-worker",
        "copy the worker's memory without a file, be its debugger, take its descriptors",
        """
near = struct.pack("=QQ", 0, 0)
return {"process_vm_readv": system_call("process_vm_readv", 1, near, 1, near, 1, 0),
        "process_vm_writev": system_call("process_vm_writev", 1, near, 1, near, 1, 0),
        "ptrace": system_call("ptrace", 16, 1, 0, 0),
        "pidfd_getfd": system_call("pidfd_getfd", -1, 3, 0),
        "process_madvise": system_call("process_madvise", -1, 0, 0, 0, 0)}
""",
        threat="worker-memory",
        barriers=(REPL_FILTER, FILTER, _WORKERS_DOOR),
    ),
    _attack(
        "command-the-worker",
        "limit, slow down or watch the worker, which has the same user",
        # Each asks for what is so already: where it is let through nothing changes.
        """
import resource
return {"limits": attempt(resource.prlimit, 1, resource.RLIMIT_NOFILE),
        "priority": system_call("setpriority", 0, 1, 0),
        "processors": attempt(os.sched_setaffinity, 1, os.sched_getaffinity(0)),
        "scheduler": attempt(os.sched_setscheduler, 1, os.SCHED_OTHER, os.sched_param(0)),
        "handle": system_call("pidfd_open", 1, 0),
        "memory standing": opened("/proc/1/oom_score_adj", os.O_WRONLY)}
""",
        threat="signals",
        barriers=(REPL_FILTER, FILTER, _WORKERS_DOOR, LANDLOCK),
    ),
    _attack(
        "standing",
        "be the last that the kernel ends for want of memory",
        """
def lower():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
return {"own standing": attempt(lower)}
""",
        threat="memory",
        barriers=(barrier(Wall.CAPABILITIES, "EACCES", "EPERM"), LANDLOCK),
        positions=(Position.CELL, Position.WORKER),
        is_on_the_kernel=True,
    ),
    _attack(
        "processes-of-others",
        "see or name a process that is not the sandbox's",
        """
found = []
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            with open(f"/proc/{name}/cmdline") as file:
                words = file.read().replace(chr(0), " ").strip()
        except OSError:
            continue
        if words and "sandbox_image" not in words and "the hostile worker" not in words:
            found.append(f"{name}: {words[:60]}")
return {"processes": "; ".join(found)[:300] or "none"}
""",
        threat="tidiness",
        barriers=(barrier(Wall.NAMESPACES, "none"),),
        positions=(Position.CELL, Position.WORKER),
    ),
    _attack(
        "signal-the-worker",
        "end or stop the worker with any signal, sent in any way",
        """
information = struct.pack("=iii", 9, 0, -1) + bytes(116)
for number in range(1, 65):
    attempt(os.kill, 1, number)
    system_call("tgkill", 1, 1, number)
    system_call("tkill", 1, number)
    system_call("rt_sigqueueinfo", 1, number, information)
return {"sent": "done"}
""",
        threat="signals",
        barriers=(REPL_FILTER, LANDLOCK, _WORKER),
        judge=survived,
    ),
    _attack(
        "signal-everything",
        "end every process there is at once",
        """
attempt(os.kill, -1, signal.SIGKILL)
attempt(os.killpg, 0, signal.SIGTERM)
return {"sent": "done"}
""",
        threat="signals",
        barriers=(REPL_FILTER, LANDLOCK, _WORKER),
        judge=survived,
    ),
    _attack(
        "stop-the-checkpoints",
        "stop what could take over, then end oneself",
        """
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid()):
        attempt(os.kill, int(name), signal.SIGSTOP)
os._exit(0)
""",
        threat="signals",
        barriers=(_WORKER,),
        judge=survived,
    ),
    _attack(
        "outlive-the-cell",
        "leave a process behind that goes on when its cell has ended",
        """
name = ctypes.create_string_buffer(b"rlm-daemon")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        system_call("prctl", 15, name, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for descriptor in range(3, 256):
            attempt(os.close, descriptor)
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
return {"daemon": "done"}
""",
        threat="processes",
        barriers=(barrier(Wall.WORKER, "none"),),
        judge=refused_later,
        # Killed at the end of its cell, it may take a moment to be gone.
        later="""
def alive():
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/comm") as file:
                if name.isdigit() and file.read().strip() == "rlm-daemon":
                    found.append(name)
        except OSError:
            pass
    return found
end = time.monotonic() + 2
while alive() and time.monotonic() < end:
    time.sleep(0.01)
return {"daemon": "done" if alive() else "none"}
""",
    ),
)
