"""Finds the Docker engine of this host and judges whether a sandbox can be sealed on it.

An engine that answers is not yet one that can be used: a sandbox reaches the orchestrator through
a Unix socket in a mounted directory, and a socket file seen from another kernel is a dead file.
Without this judgement, Docker Desktop or a remote engine would fail much later, with a worker
that cannot connect and a message about neither.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.docker_client import (
    UNIX_SCHEME,
    Dial,
    DialOutcome,
    EngineAnswers,
    ask_engine,
    dial,
)

_SYSTEM_SOCKET = "unix:///var/run/docker.sock"
_OLDEST_API = (1, 41)  # Docker 20.10, the oldest engine that the integration tests ran against
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))  # os-release(5), in its order

_OWN_ENGINE_INSTEAD = (
    "Run rlm where an engine of its own runs on the same Linux kernel: in a Linux virtual machine, "
    "in a WSL2 distribution with Docker Engine installed inside it, or on the Linux host itself."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What decides which engine this host can have and who may install one."""

    platform: str  # as sys.platform has it: "linux", "darwin", "win32"
    kernel: str  # release, as uname(2) has it
    uid: int
    distribution: str  # ID of os-release(5); empty where there is none
    home: Path
    runtime_dir: Path | None  # $XDG_RUNTIME_DIR, where a rootless engine listens

    @property
    def installs_with_apt(self) -> bool:
        """Whether the packages of `engine_setup` are known under these names here."""
        return self.platform == "linux" and self.distribution in {"debian", "ubuntu"}

    @property
    def is_root(self) -> bool:
        """Whether this process may install packages and start services."""
        return self.uid == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What one Docker engine says of itself, and where it is."""

    endpoint: str
    name: str  # product: "Docker Engine - Community", "Podman Engine"; empty where it is silent
    version: str
    api_version: str
    operating_system: str
    container_os: str  # "linux" or "windows"
    kernel: str
    architecture: str  # as uname(2) has it: "x86_64", "aarch64"
    cgroup_version: str
    cgroup_driver: str
    storage_driver: str
    runtimes: tuple[str, ...]
    security_options: tuple[str, ...]
    warnings: tuple[str, ...]  # controls that the engine says its kernel lacks
    is_desktop: bool
    is_remote: bool  # runs on another kernel than this process
    is_rootless: bool


def read_host(*, runtime_dir: str | None) -> Host:
    """Reads what this host is.

    Args:
        runtime_dir: The value of `XDG_RUNTIME_DIR`, if any.
    """
    system = os.uname()
    return Host(
        platform=sys.platform,
        kernel=system.release,
        uid=os.getuid(),
        distribution=read_distribution(_OS_RELEASE),
        home=Path.home(),
        runtime_dir=Path(runtime_dir) if runtime_dir else None,
    )


def read_distribution(paths: Iterable[Path]) -> str:
    """Returns `ID` of the first os-release(5) file that exists, or an empty string."""
    for path in paths:
        try:
            lines = path.read_text("utf-8").splitlines()
        except OSError:
            continue
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return values.get("ID", "").strip("\"'")
    return ""


def list_endpoints(host: Host, *, docker_host: str | None) -> tuple[str, ...]:
    """Returns where an engine may listen on `host`, the most likely to suit first.

    Docker Desktop's sockets come last: they are looked at only so that the message can say that
    Desktop is what runs here.
    """
    if docker_host:
        return (docker_host,)
    found = [_SYSTEM_SOCKET]
    if host.runtime_dir:
        found.append(f"{UNIX_SCHEME}{host.runtime_dir}/docker.sock")
    found.append(f"{UNIX_SCHEME}/run/user/{host.uid}/docker.sock")
    found += [f"{UNIX_SCHEME}{host.home}/.docker/{part}/docker.sock" for part in ("desktop", "run")]
    return tuple(dict.fromkeys(found))


def read_info(answers: EngineAnswers, *, endpoint: str, host: Host) -> EngineInfo:
    """Reads what an engine said of itself."""
    version, info = answers.version, answers.info
    security_options = tuple(str(option) for option in info.get("SecurityOptions") or ())
    operating_system = str(info.get("OperatingSystem", ""))
    kernel = str(info.get("KernelVersion", ""))
    return EngineInfo(
        endpoint=endpoint,
        name=_product(version),
        version=str(version.get("Version", "")),
        api_version=str(version.get("ApiVersion", "")),
        operating_system=operating_system,
        container_os=str(info.get("OSType", "")),
        kernel=kernel,
        architecture=str(info.get("Architecture", "")),
        cgroup_version=str(info.get("CgroupVersion", "")),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        storage_driver=str(info.get("Driver", "")),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        security_options=security_options,
        warnings=tuple(str(warning) for warning in info.get("Warnings") or ()),
        is_desktop=operating_system == "Docker Desktop",
        is_remote=kernel != host.kernel,
        is_rootless=any("name=rootless" in option for option in security_options),
    )


def _product(version: Mapping[str, Any]) -> str:
    """Returns the name an engine gives itself, or an empty string.

    Docker puts a vendor's edition under `Platform`; Podman's Docker-compatible API leaves that
    empty and names itself as its first component.
    """
    platform = version.get("Platform") or {}
    components = version.get("Components") or [{}]
    return str(platform.get("Name") or components[0].get("Name", ""))


def find_objection(info: EngineInfo, host: Host) -> str | None:
    """Returns why no sandbox can be sealed on this engine and what to do, or None if one can."""
    if info.is_desktop or host.platform != "linux":
        product = "Docker Desktop" if info.is_desktop else info.operating_system
        return (
            f"{product} at {info.endpoint} runs its containers in a virtual machine, and the Unix "
            f"socket a sandbox is reached by does not cross into it. {_OWN_ENGINE_INSTEAD}"
        )
    if "podman" in info.name.lower():
        return (
            f"{info.endpoint} is answered by {info.name}, which is not supported: expected Docker "
            "Engine. Install Docker Engine, or point DOCKER_HOST at its socket."
        )
    if info.container_os != "linux":
        return (
            f"The engine at {info.endpoint} runs {info.container_os} containers; expected linux. "
            f"{_OWN_ENGINE_INSTEAD}"
        )
    if info.is_remote:
        return (
            f"The engine at {info.endpoint} runs on another machine (its kernel is {info.kernel}, "
            f"this one is {host.kernel}), and a Unix socket does not cross machines. "
            f"{_OWN_ENGINE_INSTEAD}"
        )
    if _api_number(info.api_version) < _OLDEST_API:
        oldest = ".".join(map(str, _OLDEST_API))
        return (
            f"The engine at {info.endpoint} is {info.version} and speaks API {info.api_version}; "
            f"expected {oldest} or newer (Docker 20.10). Upgrade it."
        )
    return None


def _api_number(api_version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in api_version.split(".") if part.isdigit())


def find_engine(*, docker_host: str | None, runtime_dir: str | None) -> EngineInfo:
    """Finds a Docker engine on this host that sandboxes can be sealed on.

    Args:
        docker_host: The value of `DOCKER_HOST`, if any: then no other place is looked at.
        runtime_dir: The value of `XDG_RUNTIME_DIR`, if any: where a rootless engine listens.

    Raises:
        SettingsError: `docker_host` is not the address of a Unix socket.
        SandboxStartError: No engine answered, or none that did can be used. The message names
            every place tried, what came, and what to do on this host.
    """
    return search(read_host(runtime_dir=runtime_dir), docker_host=docker_host)


def search(host: Host, *, docker_host: str | None) -> EngineInfo:
    """Does the work of `find_engine` for a host already read.

    Raises:
        SettingsError: As `find_engine`.
        SandboxStartError: As `find_engine`.
    """
    if docker_host and not docker_host.startswith(UNIX_SCHEME):
        message = (
            f"DOCKER_HOST is {docker_host}; expected a unix:// address. A sandbox is reached "
            "through a Unix socket, which does not cross a network connection, so this engine was "
            f"not asked. {_OWN_ENGINE_INSTEAD}"
        )
        raise SettingsError(message)
    dials: list[Dial] = []
    objections: list[str] = []
    for endpoint in list_endpoints(host, docker_host=docker_host):
        attempt = dial(endpoint)
        dials.append(attempt)
        if attempt.outcome is not DialOutcome.OPENED:
            continue
        try:
            info = read_info(ask_engine(endpoint), endpoint=endpoint, host=host)
        except SandboxStartError as error:
            objections.append(str(error))
            continue
        objection = find_objection(info, host)
        if objection is None:
            return info
        objections.append(objection)
    if objections:
        raise SandboxStartError("\n".join(objections))
    message = explain_absence(dials, host=host)
    if docker_host:
        # Whoever set it may have an engine elsewhere; installing another one is the second thought.
        message = (
            f"DOCKER_HOST is {docker_host}, so no other socket was tried. "
            f"Correct it, or unset it.\n{message}"
        )
    raise SandboxStartError(message)


def explain_absence(dials: Iterable[Dial], *, host: Host) -> str:
    """Returns the message for a host where no engine answered: what was tried, what to do."""
    attempts = tuple(dials)
    tried = "\n".join(f"  {attempt}" for attempt in attempts)
    return f"No Docker engine answers on this host. Tried:\n{tried}\n{advise(attempts, host=host)}"


def advise(dials: Iterable[Dial], *, host: Host) -> str:
    """Returns what the user of this host has to do to get an engine."""
    if host.platform != "linux":
        return _OWN_ENGINE_INSTEAD
    if any(attempt.outcome is DialOutcome.DENIED for attempt in dials):
        return (
            "An engine's socket is there, but this user may not open it. Run as root, or install "
            "a rootless engine for this user (dockerd-rootless-setuptool.sh install), or join the "
            "group docker (sudo usermod -aG docker $USER, then log in again; whoever is in that "
            "group is as good as root)."
        )
    if host.installs_with_apt:
        return (
            "`rlm setup`, run as root, installs one and starts it. By hand: "
            "sudo apt-get update && sudo apt-get install --no-install-recommends docker.io "
            "iptables && sudo systemctl start docker"
        )
    return (
        f"Install Docker Engine 20.10 or newer for this distribution ({host.distribution or '?'}) "
        "and start it, for instance: sudo systemctl start docker"
    )
