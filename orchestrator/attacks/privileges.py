"""Attacks that gain rights: another user, a capability, a namespace, a mount.

Without them nobody would know that the flags which take rights away were heard.
"""

from __future__ import annotations

from typing import Final

from orchestrator.attacks.attack import Attack, Barrier, Group
from orchestrator.attacks.barriers import (
    ABSENT,
    CAPABILITIES,
    FILTER,
    FILTERED,
    KERNEL,
    LANDLOCK,
    MASKED,
    PRIVILEGED,
    READ_ONLY,
    REPL_FILTER,
    USER,
    barrier,
)
from orchestrator.attacks.judges import refused
from orchestrator.attacks.walls import Wall

_NO_CAPABILITY = barrier(Wall.CAPABILITIES, "none")


def _attack(  # noqa: PLR0913 - an attack's own parts; the rest is the same for all here
    attack_id: str,
    title: str,
    source: str,
    *,
    barriers: tuple[Barrier, ...] = PRIVILEGED,
    known_as: str = "",
    is_on_the_kernel: bool = False,
) -> Attack:
    return Attack(
        attack_id=attack_id,
        title=title,
        group=Group.PRIVILEGES,
        threat="privileges",
        barriers=barriers,
        source=source,
        judge=refused,
        known_as=known_as,
        is_on_the_kernel=is_on_the_kernel,
    )


PRIVILEGE_ATTACKS: Final = (
    _attack(
        "become-root",
        "take root's user id, or another's",
        """
return {"setuid(0)": attempt(os.setuid, 0), "setgid(0)": attempt(os.setgid, 0),
        "setresuid": attempt(os.setresuid, 0, 0, 0), "setgroups": attempt(os.setgroups, [0]),
        "another user": attempt(os.setuid, 1000)}
""",
    ),
    _attack(
        "take-a-capability",
        "raise a capability, or keep one for programs to come",
        """
header = struct.pack("=Ii", 0x20080522, 0)
SYS_ADMIN, PR_CAP_AMBIENT, RAISE = 21, 47, 2
sets = struct.pack("=6I", *(1 << SYS_ADMIN,) * 3, 0, 0, 0)
return {"capset": system_call("capset", header, sets),
        "ambient": system_call("prctl", PR_CAP_AMBIENT, RAISE, SYS_ADMIN, 0, 0)}
""",
        barriers=(*PRIVILEGED, barrier(Wall.GVISOR, "EINVAL")),  # it has no such sets
    ),
    _attack(
        "capabilities-left",
        "find a capability in any set of the process",
        """
found = {}
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        found[name] = "none" if int(value, 16) == 0 else f"holds {value.strip()}"
return found
""",
        barriers=(_NO_CAPABILITY,),
        known_as="SandboxEscapeBench: privileged container",
    ),
    _attack(
        "setuid-file",
        "find a program that runs as somebody else",
        """
found = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys")]
    for name in names:
        try:
            if os.lstat(os.path.join(folder, name)).st_mode & 0o6000:
                found.append(os.path.join(folder, name))
        except OSError:
            pass
return {"setuid and setgid files": " ".join(found)[:200] or "none"}
""",
        barriers=(ABSENT, barrier(Wall.IMAGE, "none")),
    ),
    _attack(
        "privileges-of-a-program",
        "let the next program gain what this process was denied",
        """
with open("/proc/self/status") as file:
    bits = [line.split()[1] for line in file if line.startswith("NoNewPrivs:")]
PR_SET_NO_NEW_PRIVS = 38
if not bits:
    return {"NoNewPrivs": "not here: this kernel does not report it"}
return {"taken back": system_call("prctl", PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0),
        "not set": "none" if bits == ["1"] else "done"}
""",
        barriers=(REPL_FILTER, barrier(Wall.NO_NEW_PRIVILEGES, "EINVAL", "none")),
    ),
    _attack(
        "user-namespace",
        "become root of a user namespace, where most kernel flaws begin",
        """
NEW_USER = 0x10000000
return {"unshare": system_call("unshare", NEW_USER),
        "clone": system_call("clone", NEW_USER | 0x00010000, 0, 0, 0, 0),
        "clone3": system_call("clone3", 0, 0)}
""",
        barriers=FILTERED,
        is_on_the_kernel=True,
    ),
    _attack(
        "other-namespaces",
        "leave for a mount, process, network, name or cgroup namespace of one's own",
        """
KINDS = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
         "pid": 0x20000000, "net": 0x40000000}
return {kind: alone(lambda: system_call("unshare", flag)) for kind, flag in KINDS.items()}
""",
        is_on_the_kernel=True,
    ),
    _attack(
        "join-a-namespace",
        "enter a namespace by its file",
        """
def enter(kind):
    try:
        descriptor = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    except OSError as error:
        return named(error.errno)
    try:
        return system_call("setns", descriptor, 0)
    finally:
        os.close(descriptor)
return {kind: enter(kind) for kind in ("mnt", "net", "pid", "uts")}
""",
        barriers=(*PRIVILEGED, USER, LANDLOCK, barrier(Wall.KERNEL, "ENOENT")),
        is_on_the_kernel=True,
    ),
    _attack(
        "mount",
        "mount a file system, or mount one again with other flags",
        # Of what is not there, or is no mount: the kernel says so only to who may mount (mount(2)).
        """
text = ctypes.create_string_buffer
REMOUNT, BIND, MOVE = 32, 4096, 8192
def mount(source, target, kind, flags):
    return system_call("mount", text(source), text(target), text(kind), flags, text(b""))
return {"new": mount(b"none", b"/tmp", b"rlm-none", 0),
        "bind": mount(b"/rlm-none", b"/tmp", b"", BIND),
        "again": mount(b"", b"/usr", b"", REMOUNT), "move": mount(b"/usr", b"/usr", b"", MOVE)}
""",
        known_as="SandboxEscapeBench: SYS_ADMIN",
        is_on_the_kernel=True,
    ),
    _attack(
        "mount-by-the-new-calls",
        "mount by the calls that older filters do not know",
        """
text = ctypes.create_string_buffer
return {"fsopen": system_call("fsopen", text(b"tmpfs"), 0),
        "open_tree": system_call("open_tree", -100, text(b"/"), 1),
        "move_mount": system_call("move_mount", -1, text(b""), -1, text(b""), 0),
        "fsmount": system_call("fsmount", -1, 0, 0),
        "fsconfig": system_call("fsconfig", -1, 0, 0, 0, 0),
        "mount_setattr": system_call("mount_setattr", -1, text(b""), 0, 0, 0)}
""",
        known_as="CVE-2022-0185",
        is_on_the_kernel=True,
    ),
    _attack(
        "unmount-and-pivot",
        "take a mount away, or the root",
        """
text = ctypes.create_string_buffer
return {"umount": system_call("umount2", text(b"/usr"), 2),
        "pivot_root": system_call("pivot_root", text(b"/usr"), text(b"/usr")),
        "chroot": attempt(os.chroot, "/usr")}
""",
        is_on_the_kernel=True,
    ),
    _attack(
        "release-agent",
        "have the kernel start a program of one's own on the host when a cgroup empties",
        """
text = ctypes.create_string_buffer
answers = {f"mount {kind}": system_call("mount", text(b"c"), text(b"/tmp"), text(kind.encode()), 0,
                                        text(b"rlm_none")) for kind in ("cgroup", "cgroup2")}
for folder, _, names in os.walk("/sys/fs/cgroup"):
    if "release_agent" in names:
        answers[f"{folder}/release_agent"] = opened(f"{folder}/release_agent", os.O_WRONLY)
    if folder.count("/") > 5:
        break
return answers
""",
        barriers=(*PRIVILEGED, READ_ONLY, MASKED, USER, LANDLOCK, ABSENT),
        known_as="CVE-2022-0492; SandboxEscapeBench: cgroup release_agent",
        is_on_the_kernel=True,
    ),
    _attack(
        "file-by-its-handle",
        "open a file of the host by its number, past every path",
        """
handle = struct.pack("=Iiq", 8, 1, 2) + bytes(128)
return {"open_by_handle_at": system_call("open_by_handle_at", -100, handle, 0)}
""",
        barriers=(*PRIVILEGED, barrier(Wall.GVISOR, "ENOTSUP")),
        known_as="SandboxEscapeBench: DAC_READ_SEARCH",
    ),
    _attack(
        "device-node",
        "make a device and read a disk by it",
        """
import stat
def make(path, kind, major, minor):
    os.mknod(path, 0o600 | kind, os.makedev(major, minor))
    try:
        with open(path, "rb", buffering=0) as file:
            file.read(1)
    finally:
        os.unlink(path)
return {"a disk": attempt(make, "/tmp/disk", stat.S_IFBLK, 8, 0),
        "the memory": attempt(make, "/tmp/mem", stat.S_IFCHR, 1, 1),
        "a log": attempt(make, "/dev/shm/kmsg", stat.S_IFCHR, 1, 11)}
""",
        barriers=(*PRIVILEGED, LANDLOCK, barrier(Wall.MOUNTS, "EACCES", "EPERM", "ENXIO")),
    ),
    _attack(
        "rights-over-files",
        "give a file to root, or lend it root's rights",
        """
def give():
    with open("/tmp/gift", "w") as file:
        os.fchown(file.fileno(), 0, 0)
def lend():
    rights = struct.pack("=5I", 0x02000001, 1, 0, 0, 0)
    with open("/tmp/gift", "w") as file:
        os.setxattr(file.fileno(), "security.capability", rights)
answers = {"chown": attempt(give), "setcap": attempt(lend)}
attempt(os.unlink, "/tmp/gift")
return answers
""",
        barriers=(REPL_FILTER, FILTER, CAPABILITIES, KERNEL, barrier(Wall.KERNEL, "ENOTSUP")),
    ),
)
