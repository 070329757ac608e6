"""Attacks on limits: each takes more of one thing than there is, and tidies up behind itself.

Without them a limit that an engine accepted and a kernel ignores would be found by the host's other
users.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Judge, Position
from orchestrator.attacks.barriers import FILTERED, barrier
from orchestrator.attacks.judges import ends_at_the_limit, refused
from orchestrator.attacks.walls import Wall

_CELL = (Position.CELL,)
_BOTH = (Position.CELL, Position.WORKER)


def _trial(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    threat: str,
    wall: Barrier,
    judge: Judge = refused,
    is_on_the_kernel: bool = False,
) -> Attack:
    """Returns an attack that measures whether a limit bites, and tidies up behind itself."""
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.RESOURCES,
        threat=threat,
        barriers=(wall,),
        source=source,
        judge=judge,
        # Under gVisor the limit of memory ends the whole sandbox.
        is_destructive=judge is ends_at_the_limit,
        is_heavy=judge is ends_at_the_limit,
        positions=_CELL if judge is ends_at_the_limit else _BOTH,
        timeout_s=60.0,  # a gibibyte is taken in a second, and on a host of many tenants in twenty
        is_on_the_kernel=is_on_the_kernel,
    )


#: Whether a limit bites on this host, tried: `rlm doctor` runs these in one sandbox.
LIMIT_TRIALS: Final = (
    _trial(
        "process-limit",
        "start more processes than a sandbox may have",
        """
limit, children, end = SCENE["process_count"], [], "done"
try:
    while len(children) <= limit + 8:
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        children.append(child)
except OSError as error:
    end = named(error.errno)
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
return {"processes": end}
""",
        threat="processes",
        wall=barrier(Wall.PROCESS_LIMIT, "EAGAIN"),
    ),
    _trial(
        "cpu-limit",
        "compute on more cores than a sandbox may use",
        """
def throttled():
    for path in ("/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu.stat"):
        try:
            with open(path) as file:
                return int(dict(line.split() for line in file)["nr_throttled"])
        except (OSError, KeyError, ValueError):
            pass
    return 0
def count_until(end):
    turns = 0
    while time.monotonic() < end:
        turns += 1
    return turns
def spin(count, wall_s):
    pipes, end = [], time.monotonic() + wall_s
    for _ in range(count):
        near, far = os.pipe()
        if os.fork() == 0:
            turns = count_until(end)
            os.write(far, struct.pack("=dd", turns, time.process_time()))
            os._exit(0)
        os.close(far)
        pipes.append(near)
    told = [struct.unpack("=dd", os.read(near, 16)) for near in pipes]
    for near in pipes:
        os.close(near)
        os.wait()
    return [sum(column) for column in zip(*told)]
allowed, cores = SCENE["cpu_count"], len(os.sched_getaffinity(0))
if cores <= allowed:
    return {"CPU time": "not here: the host has no more cores than a sandbox may use"}
# gVisor books as used what a process waits for, so that a busy host looks like one without a limit:
# what was done there, over what one core does undisturbed, says how much there was.
slice_s, wall_s, most, before = 0.005, 1.0, 0.0, throttled()
core_rate = max(count_until(time.monotonic() + slice_s) for _ in range(40)) / slice_s
# On a busy host it takes a while until the sandbox is given more than it may have.
for _ in range(3):
    turns, booked_s = spin(min(cores, 8), wall_s)
    most = max(most, min(booked_s, turns / core_rate) / wall_s)
    if throttled() > before:
        return {"CPU time": "rationed"}
    if most > allowed * 1.2:  # a second touches eleven of the periods that are rationed
        return {"CPU time": "done"}
if most > allowed * 0.75:
    return {"CPU time": "rationed"}
return {"CPU time": "not here: the host was too busy to tell"}
""",
        threat="cpu",
        wall=barrier(Wall.CPU_LIMIT, "rationed"),
    ),
    _trial(
        "scratch-size",
        "fill scratch beyond its size",
        """
def fill(folder, room):
    written, end, number = 0, "done", 0
    block = bytes(2**18)
    while end == "done" and written <= room + 2**20:
        try:
            with open(f"{folder}/rlm-fill{number}", "wb", buffering=0) as file:
                for _ in range(16):
                    written += file.write(block)
        except OSError as error:
            end = named(error.errno)
        number += 1
    for index in range(number):
        attempt(os.unlink, f"{folder}/rlm-fill{index}")
    return end if written <= room else "done"
return {folder: fill(folder, room) for folder, room in SCENE["scratch_bytes"].items()}
""",
        threat="scratch",
        wall=barrier(Wall.MOUNTS, "ENOSPC"),
    ),
    _trial(
        "scratch-names",
        "fill the kernel's memory with names of files",
        """
def flood(folder, room):
    end, number = "done", 0
    while end == "done" and number <= room:
        end = opened(f"{folder}/rlm-name{number}", os.O_CREAT | os.O_WRONLY)
        number += 1
    for index in range(number):
        attempt(os.unlink, f"{folder}/rlm-name{index}")
    return end
return {folder: flood(folder, room) for folder, room in SCENE["scratch_inodes"].items()}
""",
        threat="scratch",
        wall=barrier(Wall.MOUNTS, "ENOSPC"),
        is_on_the_kernel=True,  # gVisor keeps names in its own memory, which the limit counts
    ),
    _trial(
        "memory-limit",
        "take more memory than a sandbox may have, or have it swapped out",
        # Shared pages, which no limit of a process counts; the child is the kernel's first choice.
        """
import mmap
limit = SCENE["memory_bytes"]
touched = mmap.mmap(-1, 4096)
child = os.fork()
if child == 0:
    def offer():
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    attempt(offer)
    held, block = [], b"a" * 2**20
    try:
        for number in range((limit >> 20) + 64):
            held.append(mmap.mmap(-1, 2**20))
            held[-1][:] = block
            touched[:8] = struct.pack("=Q", number << 20)
    except (MemoryError, OSError):
        os._exit(3)
    os._exit(0)
status = os.waitpid(child, 0)[1]
if struct.unpack("=Q", touched[:8])[0] > limit or status == 0:
    return {"memory and swap": "done"}
return {"memory and swap": "ended at the limit" if os.WIFSIGNALED(status) else "refused"}
""",
        threat="memory",
        wall=barrier(Wall.MEMORY_LIMIT, "ended at the limit", "refused"),
        judge=ends_at_the_limit,
    ),
)

LIMIT_ATTACKS: Final = (
    *LIMIT_TRIALS,
    _trial(
        "large-file",
        "write one file without end, or a sparse one of a tebibyte",
        """
def write(offset):
    with open("/tmp/rlm-large", "wb", buffering=0) as file:
        file.seek(offset)
        file.write(b"end")
answers = {name: attempt(write, offset) for name, offset in
           (("limit", SCENE["file_bytes"]), ("1 TiB", 2**40), ("4 EiB", 2**62))}
attempt(os.unlink, "/tmp/rlm-large")
return answers
""",
        threat="descriptors-and-files",
        wall=barrier(Wall.RLIMITS, "EFBIG"),
    ),
    _trial(
        "descriptors",
        "open more files than a process may have",
        """
held, end = [], "done"
try:
    while len(held) <= SCENE["open_files"]:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    end = named(error.errno)
for descriptor in held:
    os.close(descriptor)
return {"descriptors": end}
""",
        threat="descriptors-and-files",
        wall=barrier(Wall.RLIMITS, "EMFILE"),
    ),
    _trial(
        "larger-limits",
        "raise one's own limits, lock memory, leave an image of one's death",
        """
import resource
def more(name):
    number = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(number)[1]
    resource.setrlimit(number, (hard + 1, hard + 1))
answers = {name: attempt(more, name) for name in ("NOFILE", "FSIZE", "CORE", "MEMLOCK")}
page = ctypes.create_string_buffer(8192)
answers["mlock"] = system_call("mlock", ctypes.addressof(page), 8192)
return answers
""",
        threat="descriptors-and-files",
        wall=barrier(Wall.RLIMITS, "ValueError", "EPERM", "ENOMEM", "OverflowError"),
    ),
    Attack(
        attack_id="watches",
        title="use up what the host counts by user over all its containers",
        group=Group.RESOURCES,
        threat="tidiness",
        barriers=FILTERED,
        source="""
return {"inotify": system_call("inotify_init1", -1)}
""",
        judge=refused,
        is_on_the_kernel=True,
    ),
)
