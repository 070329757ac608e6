"""The product's definition of a sandbox with one hardening flag taken out, once for each flag.

Without it a flag could be deleted by mistake and every test go on passing. Each mutant names the
tests that must miss the flag; `mutation_run` sees whether they do. What the engine is asked for and
what is read back are both mutated, so that the comparison of the two misses nothing: only what can
be seen from inside a sandbox, or done in it, counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from support.seccomp_profiles import lift_groups, with_32_bits

from orchestrator.sandbox.seccomp_floor import FLOOR

Config = dict[str, Any]
Change = Callable[[Config], None]

#: Parts of the request that are no wall: what they are for instead.
NOT_WALLS: Final = {
    "Image": "which image; by digest, see the tests of the image",
    "Env": "empty; the image's own PATH is added by the engine",
    "AttachStdin": "nobody attaches to a container that was created over the API",
    "OpenStdin": "likewise; the REPL process's standard input is /dev/null of its own",
    "Labels": "what the sweep reads",
    "Healthcheck": "the image has none; a second lock against one that would",
    "StopSignal": "for an operator's `docker stop`; the product itself kills",
    "HostConfig.Runtime": "which runtime; see the tests of runtimes",
    "HostConfig.Devices": "empty, which is the engine's default",
    "HostConfig.CapAdd": "empty, which is the engine's default",
    "HostConfig.ShmSize": "a second lock: the tmpfs at /dev/shm has a size of its own",
    "HostConfig.AutoRemove": "false, so that the obituary can be read",
    "HostConfig.LogConfig": "bounds what the worker logs, which no cell can reach",
    "HostConfig.UsernsMode": "empty, which is the engine's default",
    "HostConfig.Dns": "a second lock: without a network the engine writes no resolver",
    "HostConfig.OomKillDisable": "false, which is the engine's default",
    "NetworkDisabled": "a second lock: the network mode is none",
    "HostConfig.RestartPolicy": "no, which is the engine's default",
    "HostConfig.UTSMode": "empty, which is the engine's default",
    "Domainname": "empty, which is the engine's default",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One flag taken out, and who must notice.

    Attributes:
        name: The path of the flag in the request, and what became of it.
        change: Takes it out.
        killers: Node ids below `tests/security`; at least one of them must fail.
    """

    name: str
    change: Change
    killers: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The path of the flag in the request."""
        return self.name.partition(" ")[0].partition("=")[0]


def _set(path: str, value: object) -> Change:
    """Returns a change that puts `value` at a dotted path."""
    *parents, last = path.split(".")

    def change(config: Config) -> None:
        target = config
        for parent in parents:
            target = target[parent]
        target[last] = value

    return change


def _drop(path: str) -> Change:
    """Returns a change that leaves a flag out of the request."""
    *parents, last = path.split(".")

    def change(config: Config) -> None:
        target = config
        for parent in parents:
            target = target[parent]
        target.pop(last, None)

    return change


def _both(*changes: Change) -> Change:
    def change(config: Config) -> None:
        for one in changes:
            one(config)

    return change


def _mount_option(path: str, option: str) -> Change:
    """Returns a change that takes one option out of a tmpfs mount."""

    def change(config: Config) -> None:
        mounts = config["HostConfig"]["Tmpfs"]
        kept = [part for part in mounts[path].split(",") if part.partition("=")[0] != option]
        # The engine's own default has this one set; to leave it out is not to take it away.
        opposite = {"noexec": ["exec"], "nosuid": ["suid"], "nodev": ["dev"]}.get(option, [])
        mounts[path] = ",".join([*kept, *opposite])

    return change


def _rlimit(name: str) -> Change:
    """Returns a change that leaves out one rlimit."""

    def change(config: Config) -> None:
        host = config["HostConfig"]
        host["Ulimits"] = [limit for limit in host["Ulimits"] if limit["Name"] != name]

    return change


def _security_option(prefix: str, replacement: str | None = None) -> Change:
    def change(config: Config) -> None:
        host = config["HostConfig"]
        kept = [option for option in host["SecurityOpt"] if not option.startswith(prefix)]
        host["SecurityOpt"] = kept if replacement is None else [*kept, replacement]

    return change


def _lifted(group: str) -> Change:
    """Returns a change that allows what one group of the seccomp profile refuses."""
    return _security_option("seccomp=", f"seccomp={lift_groups(group)}")


def _writable_bind(config: Config) -> None:
    host = config["HostConfig"]
    host["Binds"] = [bind.removesuffix(":ro") for bind in host["Binds"]]


def _mutant(name: str, change: Change, *killers: str) -> Mutant:
    return Mutant(name=name, change=change, killers=killers)


_USER = "test_user_and_privileges.py::test_the_user_is_nobody_of_the_host"
_CAPABILITIES = "test_user_and_privileges.py::test_there_are_no_capabilities"
_GROUPS = "test_system_calls.py::test_a_cell_meets_no_open_group_either"
_SYSTEM_CALLS = "test_user_and_privileges.py::test_system_calls_are_filtered"
_PRESSURE = "test_namespaces.py::test_memory_pressure_ends_sandboxes_before_the_host"
_NAMESPACES = "test_namespaces.py::test_every_namespace_is_the_sandboxs_own"
_BYTES = "test_scratch_space.py::test_scratch_is_bounded_in_bytes"
_NAMES = "test_scratch_space.py::test_scratch_is_bounded_in_names"
_EXECUTION = "test_scratch_space.py::test_no_program_runs_from_scratch"
_MOUNTS = "test_mounts.py"
_RLIMITS = "test_process_limits.py::test_no_limit_can_be_raised"

MUTANTS: Final = (
    _mutant("User=0:0", _set("User", "0:0"), _USER),
    _mutant(
        "Hostname dropped",
        _drop("Hostname"),
        "test_namespaces.py::test_the_host_is_not_named",
    ),
    _mutant("Tty=true", _set("Tty", value=True), "test_namespaces.py::test_there_is_no_terminal"),
    _mutant(
        "HostConfig.NetworkMode=bridge",
        _both(_set("HostConfig.NetworkMode", "bridge"), _set("NetworkDisabled", value=False)),
        "test_network.py::test_there_is_no_device_but_loopback",
    ),
    _mutant("HostConfig.CapDrop dropped", _drop("HostConfig.CapDrop"), _CAPABILITIES),
    _mutant("HostConfig.Privileged=true", _set("HostConfig.Privileged", value=True), _CAPABILITIES),
    _mutant(
        "HostConfig.SecurityOpt without no-new-privileges",
        _security_option("no-new-privileges"),
        "test_user_and_privileges.py::test_no_privilege_can_be_gained",
    ),
    _mutant(
        "HostConfig.SecurityOpt with seccomp unconfined",
        _security_option("seccomp=", "seccomp=unconfined"),
        _SYSTEM_CALLS,
    ),
    _mutant(
        "HostConfig.SecurityOpt with the engine's own seccomp profile",
        _security_option("seccomp="),
        _GROUPS,
    ),
    _mutant(
        "HostConfig.SecurityOpt with the system calls of 32 bits",
        _security_option("seccomp=", f"seccomp={with_32_bits()}"),
        "test_system_calls.py",
    ),
    *(
        _mutant(f"HostConfig.SecurityOpt with {group} lifted", _lifted(group), _GROUPS)
        for group in FLOOR
    ),
    _mutant(
        "HostConfig.ReadonlyRootfs=false",
        _set("HostConfig.ReadonlyRootfs", value=False),
        "test_root_file_system.py::test_nothing_can_be_written_but_scratch",
    ),
    *(
        _mutant(f"HostConfig.Tmpfs {path} without {option}", _mount_option(path, option), killer)
        for path, option, killer in (
            ("/tmp", "size", _BYTES),
            ("/tmp", "nr_inodes", _NAMES),
            ("/tmp", "noexec", _EXECUTION),
            ("/tmp", "nosuid", _MOUNTS),
            ("/tmp", "nodev", _MOUNTS),
            ("/dev/shm", "size", _BYTES),
            ("/dev/shm", "nr_inodes", _NAMES),
            ("/dev/shm", "noexec", _MOUNTS),
            ("/dev/shm", "nosuid", _MOUNTS),
            ("/dev/shm", "nodev", _MOUNTS),
            ("/dev/shm", "mode", _MOUNTS),
        )
    ),
    _mutant(
        "HostConfig.Binds writable",
        _writable_bind,
        "test_socket_directory.py::test_directory_cannot_be_changed_by_root_either",
        _MOUNTS,
    ),
    _mutant(
        "HostConfig.Memory dropped",
        # Together: the engine refuses a bound on swap without one on memory.
        _both(_drop("HostConfig.Memory"), _drop("HostConfig.MemorySwap")),
        "test_memory.py::test_there_is_no_swap",
        "test_memory.py::test_one_string_larger_than_the_limit",
    ),
    _mutant(
        "HostConfig.MemorySwap=-1",
        _set("HostConfig.MemorySwap", -1),
        "test_memory.py::test_there_is_no_swap",
    ),
    _mutant("HostConfig.MemorySwappiness=60", _set("HostConfig.MemorySwappiness", 60), _PRESSURE),
    _mutant("HostConfig.OomScoreAdj dropped", _drop("HostConfig.OomScoreAdj"), _PRESSURE),
    _mutant(
        "HostConfig.PidsLimit dropped",
        _drop("HostConfig.PidsLimit"),
        "test_processes.py::test_processes_are_bounded",
    ),
    _mutant(
        "HostConfig.NanoCpus dropped",
        _drop("HostConfig.NanoCpus"),
        "test_cpu.py::test_cpu_time_is_rationed",
    ),
    *(
        _mutant(f"HostConfig.Ulimits without {name}", _rlimit(name), _RLIMITS)
        for name in ("core", "fsize", "memlock", "msgqueue", "nofile")
    ),
    _mutant("HostConfig.IpcMode=host", _set("HostConfig.IpcMode", "host"), _NAMESPACES),
    _mutant("HostConfig.CgroupnsMode=host", _set("HostConfig.CgroupnsMode", "host"), _NAMESPACES),
    _mutant(
        "HostConfig.PidMode=host",
        _set("HostConfig.PidMode", "host"),
        "test_proc_of_the_worker.py::test_there_are_no_processes_but_the_sandboxs",
    ),
    _mutant(
        "HostConfig.Init=true",
        _set("HostConfig.Init", value=True),
        "test_namespaces.py::test_the_worker_is_the_first_process",
    ),
)
