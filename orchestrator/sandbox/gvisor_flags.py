"""Reads the flags that gVisor is registered with, and says which of them open it.

Without it a gVisor that passes the host's network through, or writes each system call of a cell
into a file of the host, would be taken for the stronger wall because of its name.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

_TRUE: Final = frozenset({"1", "t", "true"})  # strconv.ParseBool, without regard to case
_FALSE: Final = frozenset({"0", "f", "false"})
_DEPRECATED_SOCKETS: Final = "fsgofer-host-uds"

#: What may be set without opening anything, and to which values; None: to any. Names and values as
#: `runsc flags` has them, of releases from December 2022 on.
_HARMLESS: Final[Mapping[str, frozenset[str] | None]] = {
    "buffer-pooling": None,
    "cpu-num-from-quota": None,
    "dcache": None,
    "debug-log-format": None,
    "directfs": None,
    "enable-core-tags": None,
    "fdlimit": None,
    "file-access": None,
    "file-access-mounts": None,
    "fuse": None,
    "gso": None,
    "gvisor-gro": None,
    "host-fifo": frozenset({"none"}),
    "lisafs": None,
    "log": None,
    "log-format": None,
    "network": frozenset({"none", "sandbox"}),
    "num-network-channels": None,
    "oci-seccomp": None,
    "overlay2": frozenset({"none", "root:memory", "root:self"}),
    "panic-log": None,
    "platform": None,
    "platform_device_path": None,
    "qdisc": None,
    "root": None,
    "rx-checksum-offload": None,
    "software-gso": None,
    "systemd-cgroup": None,
    "systrap-disable-syscall-patching": None,
    "traceback": None,
    "tx-checksum-offload": None,
    "vfs2": None,
    "watchdog-action": None,
}
#: Switches that open gVisor, and what they open.
_OPENING_SWITCHES: Final[Mapping[str, str]] = {
    "TESTONLY-unsafe-nonroot": "leaves out what parts the sandbox from the host",
    "allow-flag-override": "lets a container's annotations change the flags",
    "alsologtostderr": "puts its own log into the container's",
    "cgroupfs": "mounts control groups into the sandbox",
    "debug": "writes what cells do into files of the host",
    "ignore-cgroups": "leaves out the limits of memory, processes and CPU",
    "log-packets": "writes what cells send into files of the host",
    "net-raw": "lets containers make packets of their own",
    "nvproxy": "passes calls on to the host's graphics driver",
    "overlay": "makes read-only mounts writable",
    "profile": "loosens the filter around gVisor itself",
    "rootless": "runs gVisor with its caller's own privileges",
    "strace": "writes what cells do into files of the host",
    "strace-event": "sends what cells do to whoever listens",
    "tpuproxy": "passes calls on to the host's accelerators",
}
#: Of those the ones that take away what every sandbox is promised.
_VOIDING: Final = ("TESTONLY-unsafe-nonroot", "ignore-cgroups")
#: Flags with a value that open gVisor whatever the value is.
_OPENING: Final[Mapping[str, str]] = {
    "coverage-report": "writes reports into files of the host",
    "debug-log": "writes what gVisor does into files of the host",
    "pcap-log": "writes what cells send into files of the host",
    "pod-init-config": "sends what cells do to whoever listens",
    "profile-block": "writes profiles into files of the host",
    "profile-cpu": "writes profiles into files of the host",
    "profile-heap": "writes profiles into files of the host",
    "profile-mutex": "writes profiles into files of the host",
    "strace-syscalls": "writes what cells do into files of the host",
    "trace": "writes a trace into a file of the host",
}
_SWITCHES: Final = frozenset(_OPENING_SWITCHES) | {
    "buffer-pooling",
    "cpu-num-from-quota",
    "directfs",
    "enable-core-tags",
    _DEPRECATED_SOCKETS,
    "fuse",
    "gso",
    "lisafs",
    "oci-seccomp",
    "rx-checksum-offload",
    "software-gso",
    "systemd-cgroup",
    "systrap-disable-syscall-patching",
    "tx-checksum-offload",
    "vfs2",
}


class HostSockets(StrEnum):
    """What a sandbox may do with Unix sockets of the host: `--host-uds`."""

    NONE = "none"  # the default: no sandbox could attach
    OPEN = "open"  # connect to one that is mounted into it
    CREATE = "create"  # make one that the host can connect to
    ALL = "all"  # both

    @property
    def can_be_dialled(self) -> bool:
        """Whether a worker can reach its broker."""
        return self in {HostSockets.OPEN, HostSockets.ALL}


def read_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the flags by name, without dashes, as Go's package `flag` reads them.

    One dash is as good as two, the last of several counts, a switch needs no value, and what is no
    flag ends them.
    """
    flags: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not name:
            break
        if not has_value:
            takes_next = name not in _SWITCHES and rest and not rest[0].startswith("--")
            value = rest.pop(0) if takes_next else "true"
        flags[name] = value
    return flags


def read_host_sockets(flags: Mapping[str, str]) -> HostSockets:
    """Returns what the flags let a sandbox do with sockets; `all` by the deprecated flag as well.

    A value that no release knows is none: such a gVisor does not start.
    """
    if _is_on(flags.get(_DEPRECATED_SOCKETS, "false")):
        return HostSockets.ALL
    try:
        return HostSockets(flags.get("host-uds", HostSockets.NONE))
    except ValueError:
        return HostSockets.NONE


def find_openings(flags: Mapping[str, str]) -> tuple[str, ...]:
    """Returns one sentence for each flag that opens gVisor: what it does, and what to write.

    A flag that this release does not know counts as one: what a later gVisor may open with it is
    not known either.
    """
    sentences = []
    if (sockets := read_host_sockets(flags)) is not HostSockets.OPEN:
        name = "host-uds"
        if _is_on(flags.get(_DEPRECATED_SOCKETS, "false")):
            name = _DEPRECATED_SOCKETS
        sentences.append(
            f"host sockets are {sockets} (--{name}), and a worker is to connect to its socket and "
            "to make none: write --host-uds=open"
        )
    sentences += [
        sentence
        for name, value in flags.items()
        if name not in {"host-uds", _DEPRECATED_SOCKETS}
        and (sentence := _find_opening(name, value))
    ]
    return tuple(sentences)


def find_voiding(flags: Mapping[str, str]) -> str:
    """Returns the flag without whose removal no sandbox is what it is promised to be, or nothing.

    Under these the engine believes in limits that nobody holds a sandbox to.
    """
    for name in _VOIDING:
        if flags.get(name, "false").lower() not in _FALSE:
            return f"--{name} {_OPENING_SWITCHES[name]}: remove it"
    return ""


def _find_opening(name: str, value: str) -> str:
    if name in _OPENING_SWITCHES:
        is_off = value.lower() in _FALSE
        return "" if is_off else f"--{name} {_OPENING_SWITCHES[name]}: remove it"
    if name in _OPENING:
        return f"--{name} {_OPENING[name]}: remove it"
    if name == "network" and value == "host":
        return "--network=host passes the host's network through: write --network=none"
    if name not in _HARMLESS:
        return f"--{name} is not known to leave gVisor closed: remove it"
    values = _HARMLESS[name]
    if values is not None and value not in values:
        return f"--{name}={value} is not among {', '.join(sorted(values))}: write one of them"
    return ""


def _is_on(value: str) -> bool:
    return value.lower() in _TRUE
