"""The one definition of a hardened container, and of what it looks like from inside.

Without it the walls would be scattered over the calls that start containers, and no test could
take one away and see what breaks. Everything here is pure: a description goes in, the body of
one Engine API request comes out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from orchestrator.domain import SandboxId, Walls
from orchestrator.limits import SandboxLimits

#: Where a worker finds its socket and its token.
SOCKET_MOUNT: Final = "/run/rlm"
#: The image's own account. Above the numbers that hosts hand out first: without a user namespace
#: the same number on the host is the same user.
SANDBOX_UID: Final = 10001
SANDBOX_GID: Final = 10001

# gVisor applies a container's profile only where it was started with --oci-seccomp, and older ones
# then refuse clone3 with EPERM, after which glibc starts no thread. So there the worker is told to
# refuse the same calls to itself and to all it starts, before anything else.
_REFUSE_CALLS = "--refuse-calls"
_SHM_BYTES = 2**20  # holds the semaphores of `multiprocessing`, one page each; data goes to /tmp
_SHM_INODES = 256
_LOG_BYTES = "64k"  # a worker logs one line when it fails; whatever else arrives is an attack
_OOM_SCORE_ADJ = 500  # a host short of memory gives up sandboxes before anything of its own
_SENTRY_TASKS = 128  # of the host's kernel, for gVisor's own; see `_host_task_count`
_SENTRY_TASKS_EACH = 64  # more for each process or thread in the sandbox
_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - the container's
_MOUNT_FLAGS = "noexec,nosuid,nodev"
_LARGEST_PAGE = 2**16  # of aarch64; the others' are smaller
_CPU_STEP_US = 10**4
# The resolver's address that the engine would copy from the host says where its network is.
_NO_RESOLVER = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime that the engine has registered."""

    name: str  # as the engine calls it: `runc`, `runsc`
    is_gvisor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What every container of one backend is.

    Attributes:
        image_id: The image by digest (`sha256:…`), never by a name that can be moved.
        limits: What one container may use.
        runtime: What runs it.
        cgroup_version: The host's; version 2 has no swappiness of a group's own.
        seccomp_profile: The profile as JSON, `SeccompProfile.text`.
        command: Replaces the image's entry point; for tests of the walls themselves.
    """

    image_id: str
    limits: SandboxLimits
    runtime: Runtime
    cgroup_version: Literal[1, 2]
    seccomp_profile: str
    command: tuple[str, ...] | None = None


def container_config(
    spec: SandboxSpec,
    *,
    sandbox_id: SandboxId,
    socket_directory: Path,
    labels: Mapping[str, str],
) -> dict[str, object]:
    """Returns the body of the Engine API's request to create one sandbox's container.

    Args:
        spec: What every container is.
        sandbox_id: Whose container this is.
        socket_directory: Mounted read-only at `SOCKET_MOUNT`; absolute.
        labels: What the sweep reads.
    """
    config: dict[str, object] = {
        "Image": spec.image_id,
        "User": f"{SANDBOX_UID}:{SANDBOX_GID}",
        "Env": [],
        "Hostname": "sandbox",  # not the engine's choice, which is the start of the container's id
        "Domainname": "",
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,  # CVE-2025-52565 is a race about a container's console
        # The engine leaves the network namespace to the runtime, which puts a loopback device and
        # nothing else into it. Besides the second lock on the same door this halves the time a
        # container takes to start (275 to 150 ms) and keeps the host's resolver out of /etc. Not
        # tried under gVisor, which may find the loopback device down: there "none" stands alone.
        "NetworkDisabled": not spec.runtime.is_gvisor,
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would have the engine exec in it
        "StopSignal": "SIGKILL",  # PID 1 ignores what a cell can send; an operator shall not wait
        "Labels": {**labels, "rlm-sandbox.sandbox-id": sandbox_id},
        "HostConfig": _host_config(spec, socket_directory),
    }
    if spec.runtime.is_gvisor:
        config["Cmd"] = [_REFUSE_CALLS]
    if spec.command is not None:
        config |= {"Entrypoint": list(spec.command), "Cmd": []}
    return config


def _host_config(spec: SandboxSpec, socket_directory: Path) -> dict[str, object]:
    limits = spec.limits
    return {
        "Runtime": spec.runtime.name,
        "NetworkMode": "none",
        "Dns": [_NO_RESOLVER],
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges", f"seccomp={spec.seccomp_profile}"],
        "ReadonlyRootfs": True,
        "Tmpfs": {place: _tmpfs(*sizes) for place, sizes in _scratch_sizes(limits).items()},
        "Binds": [f"{socket_directory}:{SOCKET_MOUNT}:ro"],
        "Devices": [],
        "ShmSize": _SHM_BYTES,
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together: none is left for swap
        **({"MemorySwappiness": 0} if spec.cgroup_version == 1 else {}),
        "OomKillDisable": False,
        "OomScoreAdj": _OOM_SCORE_ADJ,
        "PidsLimit": _host_task_count(spec),
        "NanoCpus": round(limits.cpu_count * 10**9),
        "Ulimits": _ulimits(spec),
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": _LOG_BYTES, "max-file": "1"},
        },
        "IpcMode": "private",
        # Also under cgroup version 1, where the engine's default is the host's and shows the
        # container's id and place in /proc/self/cgroup.
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",  # "host" would undo an engine's user namespace remap
        "Init": False,  # the worker is PID 1 and reaps
        "AutoRemove": False,  # the obituary is read first
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }


def _scratch_sizes(limits: SandboxLimits) -> dict[str, tuple[int, int]]:
    """Returns bytes and names of each directory that can be written."""
    sizes = ((limits.tmp_bytes, limits.tmp_inodes), (_SHM_BYTES, _SHM_INODES))
    return dict(zip(_SCRATCH, sizes, strict=True))


def _tmpfs(size_bytes: int, inode_count: int) -> str:
    # Owned by the sandbox's user instead of open to all: nobody else is in there.
    owner = f"mode=0700,uid={SANDBOX_UID},gid={SANDBOX_GID}"
    return f"size={size_bytes},nr_inodes={inode_count},{owner},{_MOUNT_FLAGS}"


def _host_task_count(spec: SandboxSpec) -> int:
    """Returns how many tasks of the host's kernel one sandbox may be.

    Under gVisor these are the sentry's own threads and the stubs that its processes run in; the
    sentry ends with all it holds once it gets no more of them, so they are never to be what a cell
    meets first. Measured with the ptrace platform: 43 for one process, 469 for 64 after as many
    threads, 740 to 1,813 in nine fork bombs of 64. This bounds what a sentry does that has been
    taken over.
    """
    process_count = spec.limits.process_count
    if spec.runtime.is_gvisor:
        return _SENTRY_TASKS + _SENTRY_TASKS_EACH * process_count
    return process_count


def _ulimits(spec: SandboxSpec) -> list[dict[str, object]]:
    ceilings = _ceilings_of_processes(spec)
    return [{"Name": name, "Soft": top, "Hard": top} for name, top in ceilings.items()]


def _ceilings_of_processes(spec: SandboxSpec) -> dict[str, int]:
    limits = spec.limits
    ceilings = {
        "core": 0,
        "fsize": limits.file_bytes,
        "memlock": 0,
        "msgqueue": 0,  # /dev/mqueue is the one writable mount that the engine does not bound
        "nofile": limits.open_files,
    }
    # Under runc not nproc: it counts the processes of a user id over all containers (getrlimit(2)),
    # and all sandboxes have the same one, so one sandbox's fork bomb would stop the others from
    # starting a thread. PidsLimit counts each container alone. gVisor's kernel counts what is in
    # its one sandbox, and knows nothing of PidsLimit, which the host's kernel holds it to.
    if spec.runtime.is_gvisor:
        ceilings["nproc"] = limits.process_count
    return ceilings


def promised_walls(spec: SandboxSpec) -> Walls:
    """Returns what a worker must find around itself in a container of `container_config`.

    gVisor's own kernel stands in for some walls and does not report them: its /proc/self/status has
    no line for no-new-privileges, its mounts none for what it never allows, and its sandbox's
    control groups are the host's business. The filter of system calls is promised all the same:
    where gVisor leaves the container's profile out, the worker puts it up (`_REFUSE_CALLS`). In
    return it is a kernel of the sandbox's own, and has to show it: the name of a registered program
    proves nothing.

    `supplementary_gids` does not count the process's own group, which engines from 20.10.18 on
    list among them (CVE-2022-36109).
    """
    is_gvisor = spec.runtime.is_gvisor
    forbidden = ("noexec",) if is_gvisor else tuple(_MOUNT_FLAGS.split(","))
    return Walls(
        seccomp_mode=2,
        has_no_new_privileges=None if is_gvisor else True,
        effective_capabilities=0,
        bounding_capabilities=0,
        network_interfaces=frozenset({"lo"}),
        uid=SANDBOX_UID,
        gid=SANDBOX_GID,
        supplementary_gids=frozenset(),
        is_root_read_only=True,
        open_calls=frozenset(),
        repl_open_calls=frozenset(),
        repl_seccomp_mode=2,  # under gVisor too: this filter is its sentry's own business
        is_repl_inspectable=False,
        is_host_kernel=False if is_gvisor else None,
        landlock_abi=None,
        ceilings=_promised_ceilings(spec),
        scratch_options=frozenset(
            f"{place} {option}" for place in _SCRATCH for option in forbidden
        ),
    )


def _promised_ceilings(spec: SandboxSpec) -> dict[str, int]:
    limits = spec.limits
    ceilings = {f"RLIMIT_{name.upper()}": top for name, top in _ceilings_of_processes(spec).items()}
    for place, (size_bytes, name_count) in _scratch_sizes(limits).items():
        # The kernel rounds up to whole pages, of 64 KiB at most (tmpfs(5)).
        ceilings[f"{place} bytes"] = math.ceil(size_bytes / _LARGEST_PAGE) * _LARGEST_PAGE
        if not spec.runtime.is_gvisor:
            ceilings[f"{place} names"] = name_count
    ceilings["unhidden paths"] = 0
    if not spec.runtime.is_gvisor:
        share_us = math.ceil(limits.cpu_count * 10**6)
        ceilings |= {
            "memory.max": limits.memory_bytes,
            "memory.swap.max": 0,
            "pids.max": limits.process_count,
            # systemd(1) keeps whole hundredths of a processor, and rounds up.
            "cpu.max": math.ceil(share_us / _CPU_STEP_US) * _CPU_STEP_US,
        }
    return ceilings
