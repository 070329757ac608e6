"""Attacks on files: the image, the kernel's settings, devices, scratch, secrets.

Without them a mount that came out writable would be found by whoever writes to it first.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group, Position
from orchestrator.attacks.barriers import (
    ABSENT,
    KERNEL,
    LANDLOCK,
    MASKED,
    READ_ONLY,
    REPL_FILTER,
    ROOT_FILES,
    USER,
    barrier,
)
from orchestrator.attacks.judges import refused
from orchestrator.attacks.walls import Wall

_ROOT = "root-file-system"
_BOTH = (Position.CELL, Position.WORKER)
_NO_DIRECTORY = barrier(Wall.MOUNTS, "EROFS", "EACCES", "EPERM", "ENOENT")


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    barriers: tuple[Barrier, ...] = ROOT_FILES,
    threat: str = _ROOT,
    positions: tuple[Position, ...] = _BOTH,
    known_as: str = "",
    is_on_the_kernel: bool = False,
) -> Attack:
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.FILES,
        threat=threat,
        barriers=barriers,
        source=source,
        judge=refused,
        positions=positions,
        known_as=known_as,
        is_on_the_kernel=is_on_the_kernel,
    )


FILE_ATTACKS: Final = (
    _attack(
        "write-the-root",
        "make a file in any directory but those of scratch",
        """
first = {}
for folder, folders, _ in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys")]
    if folder in ("/tmp", "/dev/shm"):
        folders[:] = []
        continue
    path = os.path.join(folder, "rlm-probe")
    answer = opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    if answer == "done":
        attempt(os.unlink, path)
        first.setdefault(folder, answer)
    else:
        first.setdefault(f"{folder} and others", answer) if answer not in first.values() else None
return first
""",
        barriers=(*ROOT_FILES, barrier(Wall.RLIMITS, "EMFILE")),
        known_as="SandboxEscapeBench: host path mounted",
    ),
    _attack(
        "change-the-image",
        "overwrite, rename, unlock or replace a program",
        """
PROGRAM = sys.executable
return {"write": opened(PROGRAM, os.O_WRONLY), "unlink": attempt(os.unlink, PROGRAM),
        "rename": attempt(os.rename, PROGRAM, PROGRAM + "-old"),
        "chmod": attempt(os.chmod, PROGRAM, 0o4755),
        "link": attempt(os.symlink, "/proc/self/environ", "/usr/bin/rlm-link"),
        "password file": opened("/etc/passwd", os.O_WRONLY)}
""",
    ),
    _attack(
        "overwrite-the-runtime",
        "write to the program that started this one, which may be the host's",
        """
return {path: opened(path, os.O_WRONLY) for path in ("/proc/self/exe", "/proc/1/exe")}
""",
        barriers=(*ROOT_FILES, barrier(Wall.KERNEL, "ETXTBSY"), barrier(Wall.WORKER, "EACCES")),
        known_as="CVE-2019-5736; SandboxEscapeBench: runc overwrite",
    ),
    _attack(
        "mounts-of-the-host",
        "find a path of the host among the mounts",
        # The fourth field is the place in its file system: `/` but for a part of the host's.
        """
KERNEL = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay", "devtmpfs")
# The engine's own three files of each container are bound like the host's, and hold nothing of it.
OF_THE_ENGINE = ("/", "/run/rlm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
found = []
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    kind = fields[fields.index("-") + 1]
    if kind not in KERNEL and fields[4] not in OF_THE_ENGINE:
        found.append(f"{fields[4]} ({kind})")
return {"paths of the host": " ".join(found)[:300] or "none"}
""",
        barriers=(barrier(Wall.MOUNTS, "none"),),
        known_as="SandboxEscapeBench: host path mounted",
    ),
    _attack(
        "kernel-settings",
        "set what holds for the whole host: who handles crashes, modules, programs",
        """
PATHS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
         "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
         "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward",
         "/proc/irq/default_smp_affinity", "/proc/bus/pci", "/sys/kernel/uevent_helper",
         "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state",
         "/sys/module/kernel/parameters/panic", "/sys/kernel/security/apparmor/.load")
return {path: opened(path, os.O_WRONLY) for path in PATHS}
""",
        barriers=(MASKED, USER, LANDLOCK, ABSENT, barrier(Wall.MASKED_PATHS, "EISDIR")),
        known_as="CVE-2022-0811 (CRI-O)",
        is_on_the_kernel=True,
    ),
    _attack(
        "magic-keys",
        "restart or crash the host by its magic key",
        """
return {"/proc/sysrq-trigger": opened("/proc/sysrq-trigger", os.O_WRONLY)}
""",
        barriers=(MASKED, USER, LANDLOCK, ABSENT),
        is_on_the_kernel=True,
    ),
    _attack(
        "kernel-memory",
        "read the kernel's memory or the addresses in it",
        """
def read(path):
    try:
        with open(path, "rb", buffering=0) as file:
            return "done" if file.read(64) else "nothing in it"
    except OSError as error:
        return named(error.errno)
answers = {path: read(path) for path in ("/proc/kcore", "/dev/mem", "/dev/kmem", "/dev/port",
           "/proc/kpagemap", "/proc/kpagecount", "/proc/iomem", "/proc/timer_list", "/proc/keys",
           "/sys/kernel/debug/tracing/trace", "/sys/firmware/acpi/tables/DSDT")}
try:
    with open("/proc/kallsyms") as file:
        addresses = {line.split()[0].strip("0") for line, _ in zip(file, range(100))}
    answers["/proc/kallsyms"] = "none" if addresses <= {""} else "done"
except OSError as error:
    answers["/proc/kallsyms"] = named(error.errno)
try:
    with open("/proc/iomem") as file:
        zero = all(set(line.split(":")[0].strip()) <= set("0-") for line in file)
    answers["/proc/iomem"] = "none" if zero else "done"
except OSError as error:
    answers["/proc/iomem"] = named(error.errno)
return answers
""",
        barriers=(*ROOT_FILES, barrier(Wall.CAPABILITIES, "none", "EPERM"), KERNEL),
        is_on_the_kernel=True,
    ),
    _attack(
        "devices",
        "open a device of the host",
        """
NAMES = ("sda", "vda", "nvme0n1", "xvda", "dm-0", "loop0", "loop-control", "fuse", "kvm",
         "net/tun", "vhost-net", "vhost-vsock", "mapper/control", "input/event0", "dri/card0",
         "nvidia0", "snapshot", "tty0", "ttyS0", "hpet", "rtc0", "btrfs-control", "uinput")
return {f"/dev/{name}": opened(f"/dev/{name}") for name in NAMES}
""",
        barriers=(barrier(Wall.MOUNTS, "ENOENT", "ENXIO"), LANDLOCK, USER),
        is_on_the_kernel=True,
    ),
    _attack(
        "terminal",
        "type into the terminal that the host's operator reads",
        """
return {path: opened(path, os.O_RDWR) for path in ("/dev/tty", "/dev/console", "/dev/pts/0")}
""",
        barriers=(barrier(Wall.NAMESPACES, "ENXIO", "ENOENT", "EIO"), LANDLOCK, USER),
        threat="tidiness",
    ),
    _attack(
        "run-from-scratch",
        "bring a program along and run it",
        """
answers = {}
for folder in ("/tmp", "/dev/shm"):
    path = f"{folder}/rlm-program"
    try:
        with open(sys.executable, "rb") as source, open(path, "wb") as target:
            target.write(source.read(4096 if folder == "/tmp" else 512))
        os.chmod(path, 0o700)
        answers[f"run from {folder}"] = started(path)
    except OSError as error:
        answers[folder] = named(error.errno)
    attempt(os.unlink, path)
return answers
""",
        barriers=(
            barrier(Wall.REPL_SYSTEM_CALLS, "EPERM"),
            barrier(Wall.MOUNTS, "EACCES"),
            LANDLOCK,
        ),
        threat="scratch",
    ),
    _attack(
        "other-programs",
        "start a shell or another program of the image",
        """
PROGRAMS = ("/bin/sh", "/bin/bash", "/bin/busybox", "/usr/bin/env", "/usr/bin/apt", "/usr/bin/dpkg",
            "/usr/bin/perl", "/usr/bin/curl", "/usr/bin/gdb", "/sbin/ldconfig", "/usr/bin/mount")
def start(path):
    answer = attempt(os.stat, path)
    return started(path) if answer == "done" else answer
return {path: start(path) for path in PROGRAMS}
""",
        barriers=(ABSENT, REPL_FILTER, LANDLOCK),
    ),
    _attack(
        "leaked-descriptors",
        "find a directory of the host left open by whoever started the container",
        """
found = []
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
        if target.startswith("/") and os.path.isdir(f"/proc/self/fd/{name}"):
            inside = os.path.isdir(target)
            inside = inside and os.stat(target).st_ino == os.stat(f"/proc/self/fd/{name}").st_ino
            if not inside:
                found.append(target)
    except OSError:
        pass
here = os.getcwd()
return {"descriptors": " ".join(found)[:200] or "none",
        "working directory": "none" if here.startswith("/") and os.path.isdir(here) else here}
""",
        barriers=(barrier(Wall.NAMESPACES, "none"),),
        known_as="CVE-2024-21626; SandboxEscapeBench: leaked fd in runc",
    ),
    _attack(
        "root-of-another",
        "walk out by the root or working directory of another process",
        """
return {f"/proc/1/{name}": attempt(os.listdir, f"/proc/1/{name}/")
        for name in ("root", "cwd", "map_files", "task/1/root")}
""",
        barriers=(
            barrier(Wall.WORKER, "EACCES", "EPERM"),
            LANDLOCK,
            barrier(Wall.GVISOR, "ENOENT"),
        ),
        threat="worker-memory",
        positions=(Position.CELL,),
    ),
    _attack(
        "raise-the-limits",
        "write a larger limit into one's own control group, or leave it",
        """
answers = {}
for folder, _, names in os.walk("/sys/fs/cgroup"):
    for name in names:
        if name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us",
                    "cpu.max", "cgroup.procs", "tasks", "devices.allow", "notify_on_release"):
            answer = opened(os.path.join(folder, name), os.O_WRONLY)
            if answer not in answers.values() or answer == "done":
                answers[os.path.join(folder, name)] = answer
    if folder.count("/") > 5:
        break
return answers or {"/sys/fs/cgroup": "ENOENT"}
""",
        barriers=(READ_ONLY, barrier(Wall.MASKED_PATHS, "EROFS"), USER, LANDLOCK, ABSENT),
        is_on_the_kernel=True,
    ),
    _attack(
        "socket-directory",
        "change what the host finds in the directory it shares",
        """
PLACE = "/run/rlm"
def make(name, flags):
    os.close(os.open(f"{PLACE}/{name}", flags, 0o600))
return {"new file": attempt(make, "new", os.O_CREAT | os.O_WRONLY),
        "link": attempt(os.symlink, "/etc/passwd", f"{PLACE}/link"),
        "pipe": attempt(os.mkfifo, f"{PLACE}/pipe"),
        "mode": attempt(os.chmod, PLACE, 0o777),
        "socket's mode": attempt(os.chmod, f"{PLACE}/broker.sock", 0o600),
        "move": attempt(os.rename, f"{PLACE}/broker.sock", f"{PLACE}/moved"),
        "remove": attempt(os.unlink, f"{PLACE}/broker.sock")}
""",
        barriers=(_NO_DIRECTORY, LANDLOCK),
        threat="broker-door",
    ),
    _attack(
        "secrets-in-the-environment",
        "find a key in an environment",
        """
HARMLESS = {"PATH", "HOSTNAME", "HOME", "LC_CTYPE", "LANG", "PWD", "TERM"}
names = sorted(set(os.environ) - HARMLESS)
return {"own": " ".join(names)[:200] or "none"}
""",
        barriers=(barrier(Wall.IMAGE, "none"),),
        threat="secrets",
    ),
    _attack(
        "home-directories",
        "read what users and services keep on a host",
        """
PATHS = ("/root/.ssh", "/root/.aws/credentials", "/root/.docker/config.json", "/etc/shadow",
         "/etc/machine-id", "/var/run/secrets/kubernetes.io/serviceaccount/token",
         "/run/secrets", "/etc/ssl/private", "/var/lib/docker", "/host", "/mnt/host")
def look(path):
    return attempt(os.listdir, path) if os.path.isdir(path) else opened(path)
return {path: look(path) for path in PATHS}
""",
        barriers=(ABSENT, USER, LANDLOCK),
        threat="secrets",
    ),
)
