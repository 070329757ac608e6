"""What every probe finds, and how a probe becomes a cell.

Without it each attack would bring its own way to make a system call, and a probe that changes its
own process (a new root, another user) would spoil the next one.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Final

from orchestrator.attacks.attack import Attack
from orchestrator.domain import Json

_MARK = "the probe tells: "  # begins the line that is read; whatever else is printed is not
#: What one told value may take; a probe that tells more is cut, and so not understood.
MAX_TOLD_BYTES: Final = 32 * 2**10

_OF_THE_CELLS_TIME = 0.8  # for the child: the rest is for telling that it did not end

#: Numbers of system calls on x86_64 and aarch64 (asm/unistd.h); 0 where a machine has no such call.
_NUMBERS = {
    "accept4": (288, 242),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, 0),
    "iopl": (172, 0),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "memfd_secret": (447, 447),
    "mlock": (149, 228),
    "modify_ldt": (154, 0),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

# Answers are words: `done`, the name of an error, the name of an exception, `killed by SIG…`.
_HELPERS = """
import ctypes, errno, json, os, platform, select, signal, socket, struct, sys, time

_libc = ctypes.CDLL(None, use_errno=True)
_column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())

def named(number):
    return errno.errorcode.get(number, f"error {number}")

def attempt(function, *arguments, **keywords):
    "How a Python call ends."
    try:
        function(*arguments, **keywords)
    except OSError as error:
        return named(error.errno) if error.errno else type(error).__name__
    except Exception as error:
        return type(error).__name__
    return "done"

def system_call(name, *arguments):
    "How a system call ends, by its number: no library stands between."
    if _column is None:
        return "not here: the numbers of this machine's system calls are not known"
    number = NUMBERS[name][_column]
    if not number:
        return "not here: this machine has no such system call"
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument
            for argument in arguments]
    ctypes.set_errno(0)
    return "done" if _libc.syscall(ctypes.c_long(number), *wide) >= 0 else named(ctypes.get_errno())

def opened(path, flags=os.O_RDONLY):
    "How opening a file ends."
    return attempt(lambda: os.close(os.open(path, flags | os.O_CLOEXEC)))

def apart(function, patience_s=5.0):
    "What a function returns in a child of this process; how the child ended where it returns not."
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(near)
            text = json.dumps(function())
        except BaseException as error:
            text = json.dumps({"the probe": f"{type(error).__name__}: {error}"[:200]})
        try:
            os.write(far, text.encode()[:60_000])
        finally:
            os._exit(0)
    os.close(far)
    data, end, has_ended = b"", time.monotonic() + patience_s, False
    while not has_ended and (left := end - time.monotonic()) > 0:
        if select.select([near], [], [], left)[0]:
            piece = os.read(near, 65536)
            data += piece
            has_ended = not piece
    os.close(near)
    if not has_ended:
        attempt(os.kill, child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if data:
        return json.loads(data)
    if not has_ended:
        return {"the probe": "did not end"}
    return {"the probe": f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
            if os.WIFSIGNALED(status) else "told nothing"}

def alone(function):
    "How a function that answers ends in a child of this process."
    told = apart(lambda: {"answer": function()})
    return told.get("answer") or told["the probe"]

def started(path):
    "How starting a program ends; one that starts says nothing here, whatever becomes of it."
    answer = alone(lambda: attempt(os.execv, path, [path, "--version"]))
    return "done" if answer == "told nothing" or answer.startswith("killed by") else answer
"""

#: Lines of the kernel's own that show a wall from inside, by the name `WallRecord.proof` has.
PROOFS: Final = """
found = {}
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
for name in ("Seccomp", "CapBnd", "NoNewPrivs", "Uid"):
    if name in status:
        found[f"/proc/self/status {name}"] = f"{name}: {' '.join(status[name].split())}"
def lines_of(path):
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
devices = [line.split(":")[0].strip() for line in lines_of("/proc/net/dev")[2:]]
if devices:
    found["/proc/net/dev"] = f"devices: {' '.join(devices)}"
for line in lines_of("/proc/self/mountinfo"):
    fields = line.split()  # not the fourth, which is a path of the host
    if fields[4] in ("/", "/proc/sys", "/tmp"):
        last = fields[fields.index("-") + 1:]
        options = "" if last[0] == "overlay" else f" {last[2]}"
        found[f"/proc/self/mountinfo {fields[4]}"] = f"{fields[4]} {last[0]} {fields[5]}{options}"
for line in lines_of("/proc/version"):
    found["/proc/version"] = line.split("(")[0].strip()
kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
links = [attempt(os.readlink, f"/proc/self/ns/{kind}") for kind in kinds]
if set(links) == {"done"}:
    found["/proc/self/ns"] = " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in kinds)
limits = [line.split() for line in lines_of("/proc/self/limits")]
found["/proc/self/limits"] = "; ".join(
    f"{' '.join(words[:3])} {words[4]}" for words in limits
    if words[:3] in (["Max", "open", "files"], ["Max", "file", "size"]))
group = "/sys/fs/cgroup"
for name, paths in {
    "memory limit": ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes",
                     "memory.max", "memory.swap.max"),
    "process limit": ("pids/pids.max", "pids.max"),
    "CPU limit": ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpu.max"),
}.items():
    told = [f"{path} {' '.join(lines_of(f'{group}/{path}'))}" for path in paths
            if lines_of(f"{group}/{path}")]
    if told:
        found[name] = "; ".join(told)
return found
"""


def cell_of(attack: Attack, scene: Mapping[str, Json]) -> str:
    """Returns the source of the cell that tries an attack.

    Args:
        attack: What is tried.
        scene: What the probe finds as `SCENE`: addresses of the host, limits, names.
    """
    return probing_cell(attack.source, scene, is_apart=attack.is_apart, patience_s=attack.timeout_s)


def probing_cell(
    body: str, scene: Mapping[str, Json], *, is_apart: bool, patience_s: float = 10.0
) -> str:
    """Returns the source of a cell that tells what the function of that body returns.

    Args:
        body: Of a function without arguments that returns a mapping of words to words.
        scene: What it finds as `SCENE`.
        is_apart: Whether it runs in a child.
        patience_s: How long the cell may run; a child is ended a moment before.
    """
    # Through JSON twice: a literal of Python that any text survives.
    scene_text = json.dumps(json.dumps(scene))
    call = f"apart(probe, {patience_s * _OF_THE_CELLS_TIME})" if is_apart else "probe()"
    return (
        f"NUMBERS = {_NUMBERS!r}\n{_HELPERS}\nSCENE = json.loads({scene_text})\n\n"
        f"def probe():\n{textwrap.indent(body.strip(), '    ')}\n\n"
        f"print({_MARK!r} + json.dumps({call}), flush=True)\n"
    )


def read_told(text: str) -> dict[str, str] | None:
    """Returns what a probe told in what its cell printed; None where it told nothing.

    The text is the attacker's: whatever is not a mapping of words to words counts as nothing.
    """
    line = next((line for line in text.splitlines() if line.startswith(_MARK)), None)
    if line is None or len(line) > MAX_TOLD_BYTES:
        return None
    try:
        told = json.loads(line.removeprefix(_MARK))
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    if not all(isinstance(answer, str) for answer in told.values()):
        return None
    return told
