"""Judges what this host really enforces, before anything is run on it.

Without it the walls would hold on the machine they were written on. `posture_facts` collects and
this judges, so that every judgement can be tested on hosts nobody has.
"""

import os
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.known_escapes import find_escapes
from orchestrator.sandbox.posture_facts import SOCKET_PATH_BYTES, PostureFacts
from orchestrator.sandbox.readback import find_missing_seccomp
from orchestrator.sandbox.runtimes import REGISTRATION_ADVICE, read_runtimes

# The image has 0.07 GiB, and building it inside the engine leaves 0.5 on the side; below this the
# next build may be the one that fails.
_ENOUGH_DISK_BYTES = 2**30

# Field of the engine's /info, what it bounds, what makes a kernel have it.
_LIMITS = (
    ("MemoryLimit", "memory", "boot with cgroup_enable=memory"),
    ("SwapLimit", "swap", "boot with swapaccount=1, or use cgroup version 2"),
    ("PidsLimit", "processes", "use a kernel with CONFIG_CGROUP_PIDS"),
    ("CpuCfsQuota", "CPU", "use a kernel with CONFIG_CFS_BANDWIDTH"),
)


class Status(StrEnum):
    """How one finding bears on running a sandbox here."""

    OK = "ok"
    WARNING = "warning"  # works, with a wall less thick than it could be
    FAILED = "failed"  # no sandbox will start


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""  # empty where there is nothing to do


def judge(facts: PostureFacts) -> tuple[Finding, ...]:
    """Returns a finding for each thing that bears on how well a sandbox is sealed on this host."""
    about_host = (_judge_core_pattern(facts), _judge_socket_path(facts))
    if facts.engine is None:
        engine = Finding(name="engine", status=Status.FAILED, found=facts.engine_error)
        return (engine, *about_host)
    return (
        Finding(
            name="engine",
            status=Status.OK,
            found=f"{facts.engine.name or 'Docker Engine'} {facts.engine.version} at "
            f"{facts.engine.endpoint}, API {facts.engine.api_version}",
        ),
        _judge_image(facts),
        _judge_runc(facts),
        _judge_gvisor(facts),
        _judge_limits(facts),
        _judge_seccomp(facts),
        _judge_access_control(facts),
        _judge_user_namespace(facts, facts.engine),
        _judge_storage(facts.engine),
        _judge_disk(facts),
        *about_host,
    )


def _judge_image(facts: PostureFacts) -> Finding:
    if facts.image is None:
        return Finding(name="image", status=Status.FAILED, found=facts.image_error)
    return Finding(name="image", status=Status.OK, found=facts.image)


def _judge_runc(facts: PostureFacts) -> Finding:
    version = next(
        (
            str(part["Version"])
            for part in facts.version.get("Components") or ()
            if part.get("Name") == "runc"
        ),
        "",
    )
    escapes = find_escapes(version)
    if escapes is None:
        return Finding(
            name="runc",
            status=Status.WARNING,
            found=f"the engine reports no version that can be read: {version!r}",
            advice="Check `runc --version` against runc's security advisories.",
        )
    if not escapes:
        return Finding(name="runc", status=Status.OK, found=version)
    flaws = "; ".join(f"{', '.join(escape.cves)} ({escape.what})" for escape in escapes)
    return Finding(
        name="runc",
        status=Status.WARNING,
        found=f"{version}, whose number is below the fixes of {flaws}",
        advice="Upgrade runc. A distribution may have the fixes under an older number: its "
        "package's changelog names the CVEs it fixes.",
    )


def _judge_gvisor(facts: PostureFacts) -> Finding:
    gvisor = [runtime for runtime in read_runtimes(facts.info) if runtime.is_gvisor]
    if not gvisor:
        return Finding(
            name="gvisor",
            status=Status.OK,
            found="not registered: sandboxes run on the host's kernel, under "
            f"{facts.info.get('DefaultRuntime')}",
            advice=f"For a kernel of its own around each sandbox: {REGISTRATION_ADVICE}",
        )
    found = f"{gvisor[0].name}, {facts.runsc_version or 'version unknown'}"
    if not any(runtime.opens_host_sockets for runtime in gvisor):
        return Finding(
            name="gvisor",
            status=Status.WARNING,
            found=f"{found}, host sockets closed: not used",
            advice=REGISTRATION_ADVICE,
        )
    return Finding(name="gvisor", status=Status.OK, found=f"{found}, host sockets open")


def _judge_limits(facts: PostureFacts) -> Finding:
    version = facts.info.get("CgroupVersion", "?")
    missing = [(what, remedy) for name, what, remedy in _LIMITS if facts.info.get(name) is not True]
    if not missing:
        return Finding(
            name="limits",
            status=Status.OK,
            found=f"memory, swap, processes and CPU, by cgroup version {version}",
        )
    return Finding(
        name="limits",
        status=Status.FAILED,
        found=f"cgroup version {version} does not bound {', '.join(what for what, _ in missing)}",
        advice=f"To bound them: {'; '.join(dict.fromkeys(remedy for _, remedy in missing))}.",
    )


def _judge_seccomp(facts: PostureFacts) -> Finding:
    missing = find_missing_seccomp(facts.info)
    if missing is not None:
        return Finding(
            name="seccomp",
            status=Status.FAILED,
            found=missing,
            advice="Use a kernel with CONFIG_SECCOMP_FILTER and an engine built with seccomp.",
        )
    if facts.seccomp_error:
        return Finding(name="seccomp", status=Status.FAILED, found=facts.seccomp_error)
    return Finding(
        name="seccomp",
        status=Status.OK,
        found=f"the product's own profile, sha256 {facts.seccomp_sha256}",
    )


def _judge_access_control(facts: PostureFacts) -> Finding:
    present = [
        name
        for name in ("apparmor", "selinux")
        if any(f"name={name}" in option for option in _security_options(facts))
    ]
    if present:
        return Finding(name="access-control", status=Status.OK, found=", ".join(present))
    return Finding(
        name="access-control",
        status=Status.WARNING,
        found="neither AppArmor nor SELinux",
        advice="Enable one of them in the kernel and the engine: it still stands when a "
        "container's namespaces have been left.",
    )


def _judge_user_namespace(facts: PostureFacts, engine: EngineInfo) -> Finding:
    if engine.is_rootless:
        return Finding(name="user-namespace", status=Status.OK, found="rootless engine")
    if any("name=userns" in option for option in _security_options(facts)):
        return Finding(name="user-namespace", status=Status.OK, found="remapped by the engine")
    return Finding(
        name="user-namespace",
        status=Status.WARNING,
        found="none: a user id in a sandbox is the same user id on the host",
        advice="Use a rootless engine: the engine itself is root here, and so is whoever can "
        "reach its socket.",
    )


def _judge_storage(engine: EngineInfo) -> Finding:
    if engine.storage_driver == "vfs":
        return Finding(
            name="storage",
            status=Status.WARNING,
            found="vfs, which copies the whole image for each sandbox",
            advice="Put the engine's directory on a file system that takes overlay2.",
        )
    return Finding(name="storage", status=Status.OK, found=engine.storage_driver)


def _judge_disk(facts: PostureFacts) -> Finding:
    if facts.free_bytes is None:
        return Finding(name="disk", status=Status.OK, found="cannot be seen from here")
    found = f"{facts.free_bytes / 2**30:.1f} GiB free for the engine"
    if facts.free_bytes < _ENOUGH_DISK_BYTES:
        advice = "Free some: `docker image prune` removes images that nothing uses."
        return Finding(name="disk", status=Status.WARNING, found=found, advice=advice)
    return Finding(name="disk", status=Status.OK, found=found)


def _judge_core_pattern(facts: PostureFacts) -> Finding:
    if facts.core_pattern.startswith("|"):
        return Finding(
            name="core-dumps",
            status=Status.WARNING,
            found=f"piped to a program of the host: {facts.core_pattern}",
            advice="Set kernel.core_pattern to a file name: a sandbox's limit on core dumps does "
            "not count for a pipe (core(5)), so the program reads what a sandbox made up.",
        )
    return Finding(
        name="core-dumps", status=Status.OK, found=facts.core_pattern or "cannot be read"
    )


def _judge_socket_path(facts: PostureFacts) -> Finding:
    length_bytes = len(os.fsencode(facts.socket_path))
    found = f"{length_bytes} of {SOCKET_PATH_BYTES} bytes"
    if length_bytes > SOCKET_PATH_BYTES:
        return Finding(
            name="socket-path",
            status=Status.FAILED,
            found=f"{found}: {facts.socket_path}",
            advice="Set `runtime_directory` to a shorter path.",
        )
    return Finding(name="socket-path", status=Status.OK, found=found)


def _security_options(facts: PostureFacts) -> list[str]:
    return [str(option) for option in facts.info.get("SecurityOptions") or ()]
