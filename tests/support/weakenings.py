"""The walls that controls take down, one each."""

from __future__ import annotations

from typing import Any

from support.docker_sandboxes import Weakening
from support.seccomp_profiles import lift_groups, with_32_bits


def _use_profile(config: dict[str, Any], text: str) -> None:
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges", f"seccomp={text}"]
    # Under gVisor, which takes no profile, the worker is told to refuse the calls itself.
    config.pop("Cmd", None)


def lift(*groups: str) -> Weakening:
    """Returns the weakening that allows what the named groups of the profile refuse.

    Under gVisor all of them.
    """
    text = lift_groups(*groups)
    return Weakening(change=lambda config: _use_profile(config, text), walls=_SECCOMP)


def _open_sockets(config: dict[str, Any]) -> None:
    _use_profile(config, lift_groups("socket-families", "device-control"))


def _empty_profile(config: dict[str, Any]) -> None:
    _use_profile(config, "{}")


def _32_bits(config: dict[str, Any]) -> None:
    _use_profile(config, with_32_bits())


def _bridge_network(config: dict[str, Any]) -> None:
    _open_sockets(config)
    config["NetworkDisabled"] = False
    config["HostConfig"] |= {"NetworkMode": "bridge", "Dns": []}


def _host_network(config: dict[str, Any]) -> None:
    _open_sockets(config)
    config["NetworkDisabled"] = False
    config["HostConfig"]["NetworkMode"] = "host"
    del config["Hostname"], config["Domainname"]  # the host's are its own


def _root_user(config: dict[str, Any]) -> None:
    config["User"] = "0:0"


def _default_capabilities(config: dict[str, Any]) -> None:
    config["HostConfig"]["CapDrop"] = []


def _root_with_default_capabilities(config: dict[str, Any]) -> None:
    # The profile refuses most of what they are for as well.
    _no_seccomp(config)
    _root_user(config)
    _default_capabilities(config)


def _more_groups(config: dict[str, Any]) -> None:
    config["HostConfig"]["GroupAdd"] = ["4242"]


def _new_privileges(config: dict[str, Any]) -> None:
    config["HostConfig"]["SecurityOpt"].remove("no-new-privileges")


def _no_seccomp(config: dict[str, Any]) -> None:
    _use_profile(config, "unconfined")


def _writable_root(config: dict[str, Any]) -> None:
    config["HostConfig"]["ReadonlyRootfs"] = False


def _root_in_a_writable_root(config: dict[str, Any]) -> None:
    _root_user(config)
    _writable_root(config)


def _executable_tmp(config: dict[str, Any]) -> None:
    mounts = config["HostConfig"]["Tmpfs"]
    for path, options in mounts.items():
        mounts[path] = options.replace("noexec", "exec")


def _writable_socket_directory(config: dict[str, Any]) -> None:
    _root_user(config)
    [bind] = config["HostConfig"]["Binds"]
    config["HostConfig"]["Binds"] = [bind.removesuffix(":ro")]


def _host_processes(config: dict[str, Any]) -> None:
    config["HostConfig"]["PidMode"] = "host"


def _host_names(config: dict[str, Any]) -> None:
    config["HostConfig"] |= {"UTSMode": "host", "IpcMode": "host", "CgroupnsMode": "host"}
    del config["Hostname"], config["Domainname"]  # the host's are its own


def _terminal(config: dict[str, Any]) -> None:
    config |= {"Tty": True, "OpenStdin": True}


def _foreign_init(config: dict[str, Any]) -> None:
    # The engine's own init asks its terminal whose group it has, and ends where it may not.
    _use_profile(config, lift_groups("device-control"))
    config["HostConfig"]["Init"] = True


def _nothing_about_memory_pressure(config: dict[str, Any]) -> None:
    for name in ("OomScoreAdj", "MemorySwappiness"):
        config["HostConfig"].pop(name, None)
    config["HostConfig"]["OomKillDisable"] = True


def _core_dumps(config: dict[str, Any]) -> None:
    for limit in config["HostConfig"]["Ulimits"]:
        if limit["Name"] == "core":
            limit["Soft"] = limit["Hard"] = -1


#: Every capability but SYS_RESOURCE, which engines that are themselves confined do not have.
_ALMOST_ALL = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE"),
    *("AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
)


def _all_rights(config: dict[str, Any]) -> None:
    _root_user(config)
    config["HostConfig"] |= {
        "CapDrop": [],
        "CapAdd": list(_ALMOST_ALL),
        "SecurityOpt": ["seccomp=unconfined"],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
    }


_CAPABILITIES = ("effective_capabilities", "bounding_capabilities")
_USER = ("uid", "gid", "supplementary_gids")

_SECCOMP = ("seccomp_mode", "open_calls")
_NETWORK = ("network_interfaces", *_SECCOMP)

#: The network is closed twice: by what is in it, and by the families of sockets there are.
OPEN_SOCKETS = Weakening(change=_open_sockets, walls=_SECCOMP)
BRIDGE_NETWORK = Weakening(change=_bridge_network, walls=_NETWORK)
HOST_NETWORK = Weakening(change=_host_network, walls=_NETWORK)
ROOT_USER = Weakening(change=_root_user, walls=_USER)
DEFAULT_CAPABILITIES = Weakening(change=_default_capabilities, walls=_CAPABILITIES)
ROOT_WITH_DEFAULT_CAPABILITIES = Weakening(
    change=_root_with_default_capabilities, walls=(*_USER, *_CAPABILITIES, *_SECCOMP)
)
MORE_GROUPS = Weakening(change=_more_groups, walls=("supplementary_gids",))
NEW_PRIVILEGES = Weakening(change=_new_privileges, walls=("has_no_new_privileges",))
NO_SECCOMP = Weakening(change=_no_seccomp, walls=_SECCOMP)
EMPTY_PROFILE = Weakening(change=_empty_profile)
THE_RULES_OF_32_BITS = Weakening(change=_32_bits)
WRITABLE_ROOT = Weakening(change=_writable_root, walls=("is_root_read_only",))
ROOT_IN_A_WRITABLE_ROOT = Weakening(
    change=_root_in_a_writable_root, walls=(*_USER, "is_root_read_only")
)
EXECUTABLE_TMP = Weakening(change=_executable_tmp, walls=("scratch_options",))
WRITABLE_SOCKET_DIRECTORY = Weakening(change=_writable_socket_directory, walls=_USER)
HOST_PROCESSES = Weakening(change=_host_processes)
CORE_DUMPS = Weakening(change=_core_dumps, walls=("RLIMIT_CORE",))
HOST_NAMES = Weakening(change=_host_names)
TERMINAL = Weakening(change=_terminal)
FOREIGN_INIT = Weakening(change=_foreign_init, walls=_SECCOMP)
NOTHING_ABOUT_MEMORY_PRESSURE = Weakening(change=_nothing_about_memory_pressure)
ALL_RIGHTS = Weakening(
    change=_all_rights,
    walls=(*_USER, *_CAPABILITIES, "has_no_new_privileges", "seccomp_mode", "open_calls"),
)
