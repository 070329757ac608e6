"""Judges what this host really enforces, before anything is run on it.

Without it the walls would hold on the machine they were written on. `posture_facts` collects and
this judges, so that every judgement can be tested on hosts nobody has.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.finding import Finding, Status
from orchestrator.sandbox.known_escapes import (
    CONTAINERD_ESCAPES,
    ENGINE_ESCAPES,
    RUNC_ESCAPES,
    Escape,
    describe,
    find_escapes,
)
from orchestrator.sandbox.posture_facts import SOCKET_PATH_BYTES, PostureFacts
from orchestrator.sandbox.posture_kernel import judge_kernel
from orchestrator.sandbox.readback import find_missing_seccomp
from orchestrator.sandbox.runtimes import REGISTRATION_ADVICE, read_runtimes
from orchestrator.sandbox.statement import component_version, security_options

# The image has 0.07 GiB, and building it inside the engine leaves 0.5 on the side; below this the
# next build may be the one that fails.
_ENOUGH_DISK_BYTES = 2**30

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})

# Field of the engine's /info, what it bounds, what makes a kernel have it.
_LIMITS = (
    ("MemoryLimit", "memory", "boot with cgroup_enable=memory"),
    ("SwapLimit", "swap", "boot with swapaccount=1, or use cgroup version 2"),
    ("PidsLimit", "processes", "use a kernel with CONFIG_CGROUP_PIDS"),
    ("CpuCfsQuota", "CPU", "use a kernel with CONFIG_CFS_BANDWIDTH"),
)

_SOUND_RELEASE = "a release without a known way out of a container"
#: What should be so, by the name of the finding.
_EXPECTED: Final[Mapping[str, str]] = {
    "engine": f"on this host; {_SOUND_RELEASE}",
    "engine-warnings": "none",
    "image": "one made from the installed code",
    "runc": _SOUND_RELEASE,
    "containerd": _SOUND_RELEASE,
    "gvisor": "registered with host sockets open, or not there",
    "cgroups": "version 2",
    "limits": f"a bound on {', '.join(what for _, what, _ in _LIMITS)}",
    "seccomp": "system calls can be filtered",
    "access-control": "AppArmor or SELinux",
    "user-namespace": "a rootless engine, or users remapped",
    "storage": "overlay2",
    "disk": "1 GiB or more",
    "socket-path": f"{SOCKET_PATH_BYTES} bytes or fewer",
    "runtime-directory": "in memory",
}


def judge(facts: PostureFacts) -> tuple[Finding, ...]:
    """Returns a finding for each thing that bears on how well a sandbox is sealed on this host."""
    return tuple(
        replace(finding, expected=finding.expected or _EXPECTED.get(finding.name, ""))
        for finding in _judge_all(facts)
    )


def _judge_all(facts: PostureFacts) -> Iterator[Finding]:
    is_rootless = facts.engine is not None and facts.engine.is_rootless
    if facts.engine is None:
        yield Finding(name="engine", status=Status.FAILED, found=facts.engine_error)
    else:
        yield _judge_engine(facts.engine)
        yield _judge_engine_warnings(facts.engine)
        yield _judge_image(facts)
        yield _judge_component(facts, "runc", RUNC_ESCAPES)
        yield _judge_component(facts, "containerd", CONTAINERD_ESCAPES)
        yield _judge_gvisor(facts)
        yield _judge_cgroups(facts)
        yield _judge_limits(facts)
        yield _judge_seccomp(facts)
        yield _judge_access_control(facts)
        yield _judge_user_namespace(facts, facts.engine)
        yield _judge_storage(facts.engine)
        yield _judge_disk(facts)
    yield from judge_kernel(facts.kernel, is_engine_rootless=is_rootless)
    yield _judge_socket_path(facts)
    yield _judge_runtime_directory(facts)


def _judge_engine(engine: EngineInfo) -> Finding:
    found = (
        f"{engine.name or 'Docker Engine'} {engine.version} at {engine.endpoint}, "
        f"API {engine.api_version}"
    )
    return _judge_version(
        name="engine", found=found, version=engine.version, escapes=ENGINE_ESCAPES
    )


def _judge_engine_warnings(engine: EngineInfo) -> Finding:
    if not engine.warnings:
        return Finding(name="engine-warnings", status=Status.OK, found="none")
    return Finding(
        name="engine-warnings",
        status=Status.WARNING,
        found="; ".join(warning.removeprefix("WARNING: ") for warning in engine.warnings),
        advice="The engine says itself what its kernel lacks: what of it a sandbox needs is "
        "refused at its start, and named.",
    )


def _judge_image(facts: PostureFacts) -> Finding:
    if facts.image is None:
        return Finding(name="image", status=Status.FAILED, found=facts.image_error)
    return Finding(name="image", status=Status.OK, found=facts.image)


def _judge_component(facts: PostureFacts, name: str, escapes: Sequence[Escape]) -> Finding:
    version = component_version(facts.version, name)
    return _judge_version(name=name, found=version, version=version, escapes=escapes)


def _judge_version(*, name: str, found: str, version: str, escapes: Sequence[Escape]) -> Finding:
    flaws = find_escapes(version, escapes)
    if flaws is None:
        return Finding(
            name=name,
            status=Status.WARNING,
            found=f"the engine reports no version that can be read: {version!r}",
            advice=f"Check `{name} --version` against the security advisories of {name}.",
        )
    if not flaws:
        return Finding(name=name, status=Status.OK, found=found)
    return Finding(
        name=name,
        status=Status.WARNING,
        found=f"{found}, whose number is below the fixes of {describe(flaws)}",
        advice="Upgrade it. A distribution may have the fixes under an older number: its "
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
    best = min(gvisor, key=lambda runtime: (bool(runtime.obstacle), bool(runtime.objections)))
    flags = f"shim {best.shim}" if best.shim else " ".join(best.arguments) or "no flags"
    platform = "" if best.platform else ", its default platform"
    found = f"{best.name}, release {facts.runsc_version or 'unknown'}, {flags}{platform}"
    if best.obstacle:
        return Finding(
            name="gvisor",
            status=Status.WARNING,
            found=f"{found}: not used, because {best.obstacle}",
            advice=REGISTRATION_ADVICE,
        )
    if best.objections:
        return Finding(
            name="gvisor",
            status=Status.WARNING,
            found=f"{found}: `required` does not take it, because {'; '.join(best.objections)}",
            advice="Correct runtimeArgs in /etc/docker/daemon.json and reload the engine "
            "(systemctl reload docker).",
        )
    return Finding(name="gvisor", status=Status.OK, found=f"{found}: `required` takes it")


def _judge_cgroups(facts: PostureFacts) -> Finding:
    version = str(facts.info.get("CgroupVersion") or "")
    if version == "2":
        return Finding(name="cgroups", status=Status.OK, found="version 2")
    if version == "1":
        return Finding(
            name="cgroups",
            status=Status.WARNING,
            found="version 1",
            advice="Boot with systemd.unified_cgroup_hierarchy=1: version 1 bounds the same, but "
            "has the release_agent of CVE-2022-0492, and is no longer worked on.",
        )
    return Finding(
        name="cgroups",
        status=Status.WARNING,
        found=f"the engine reports no version that can be read: {version!r}",
        advice="Upgrade the engine to 20.10 or later.",
    )


def _judge_limits(facts: PostureFacts) -> Finding:
    missing = [(what, remedy) for name, what, remedy in _LIMITS if facts.info.get(name) is not True]
    if not missing:
        return Finding(
            name="limits",
            status=Status.OK,
            found="memory, swap, processes and CPU can be bounded",
        )
    return Finding(
        name="limits",
        status=Status.FAILED,
        found=f"no bound on {', '.join(what for what, _ in missing)}",
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
    present = [name for name in ("apparmor", "selinux") if name in security_options(facts.info)]
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
        return Finding(
            name="user-namespace",
            status=Status.OK,
            found="rootless engine",
        )
    if "userns" in security_options(facts.info):
        return Finding(
            name="user-namespace",
            status=Status.OK,
            found="remapped by the engine",
        )
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
        return Finding(
            name="disk",
            status=Status.OK,
            found="cannot be seen from here",
        )
    found = f"{facts.free_bytes / 2**30:.1f} GiB free for the engine"
    if facts.free_bytes < _ENOUGH_DISK_BYTES:
        advice = "Free some: `docker image prune` removes images that nothing uses."
        return Finding(name="disk", status=Status.WARNING, found=found, advice=advice)
    return Finding(name="disk", status=Status.OK, found=found)


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
    return Finding(
        name="socket-path",
        status=Status.OK,
        found=found,
    )


def _judge_runtime_directory(facts: PostureFacts) -> Finding:
    kind = facts.file_system
    if not kind:
        found = "cannot be seen from here"
        return Finding(name="runtime-directory", status=Status.OK, found=found)
    if kind in _IN_MEMORY:
        return Finding(name="runtime-directory", status=Status.OK, found=f"on {kind}")
    return Finding(
        name="runtime-directory",
        status=Status.WARNING,
        found=f"on {kind}: a large context is a file there while its sandbox opens it, and may "
        "reach a disk",
        advice="Set `runtime_directory` to a path on a tmpfs: `findmnt --types tmpfs` lists them.",
    )
