"""Collects what `posture` judges: what the engine says of itself, and what this kernel shows.

Without it each judgement would look for its own facts, on whatever host it happens to run.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil

from orchestrator.errors import RlmSandboxError
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.engine_host import EngineInfo, find_engine
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.kernel_facts import KernelFacts, collect_kernel_facts
from orchestrator.sandbox.runtimes import read_runtimes
from orchestrator.sandbox.seccomp import read_profile

#: sun_path of unix(7) holds 108 bytes with the terminating NUL. gVisor needs the host's path of a
#: socket to fit as well, whatever its path in the container.
SOCKET_PATH_BYTES: Final = 107
_LONGEST_SOCKET_PATH = Path("sockets", "0" * 8, "0" * 8, "broker.sock")  # owner, endpoint

_VERSION_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureFacts:
    """What was found on this host, not yet judged.

    Attributes:
        engine: None where none can be used; then `engine_error` says why.
        version: The engine's answer to `/version`.
        info: The engine's answer to `/info`.
        image: A name of the image that fits the installed code; None where `image_error` says why.
        runsc_version: What gVisor's program calls itself; None where there is none to ask.
        kernel: What this host's kernel is, and how it is set.
        socket_path: As long as the path of a sandbox's socket gets here.
        file_system: The kind that it lies on, `tmpfs`; empty where that cannot be told.
        free_bytes: On the engine's disk; None where it cannot be seen.
        seccomp_sha256: Of the profile that sandboxes are given; empty where there is none.
        seccomp_error: Why there is none.
    """

    engine: EngineInfo | None = None
    engine_error: str = ""
    version: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    image_error: str = ""
    runsc_version: str | None = None
    kernel: KernelFacts = field(default_factory=KernelFacts)
    socket_path: Path = Path()
    file_system: str = ""
    free_bytes: int | None = None
    seccomp_sha256: str = ""
    seccomp_error: str = ""


def collect_facts(
    *, docker_host: str | None, user_runtime_directory: Path | None, runtime_directory: Path
) -> PostureFacts:
    """Looks at this host; changes nothing, starts nothing, and takes a second or two at most.

    Args:
        docker_host: See `find_engine`.
        user_runtime_directory: See `find_engine`.
        runtime_directory: Where sockets are put.
    """
    seccomp_sha256, seccomp_error = _read_seccomp_profile()
    facts = PostureFacts(
        kernel=collect_kernel_facts(),
        socket_path=runtime_directory / _LONGEST_SOCKET_PATH,
        file_system=file_system_of(runtime_directory),
        seccomp_sha256=seccomp_sha256,
        seccomp_error=seccomp_error,
    )
    try:
        engine = find_engine(
            docker_host=docker_host,
            runtime_dir=str(user_runtime_directory) if user_runtime_directory else None,
        )
        answers = ask_engine(engine.endpoint)
    except RlmSandboxError as error:
        return replace(facts, engine_error=str(error))
    image, image_error = _look_for_image(engine)
    return replace(
        facts,
        engine=engine,
        version=answers.version,
        info=answers.info,
        image=image,
        image_error=image_error,
        runsc_version=_ask_runsc(answers.info),
        free_bytes=_measure_disk(answers.info),
    )


def file_system_of(path: Path) -> str:
    """Returns the kind of file system that a path lies on, or would; empty where it is unknown."""
    resolved = path.resolve()
    around = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(mount.mountpoint)
    ]
    # What was mounted last is seen, where several are at one place.
    nearest = max(reversed(around), key=lambda mount: len(mount.mountpoint), default=None)
    return nearest.fstype if nearest else ""


def _look_for_image(engine: EngineInfo) -> tuple[str | None, str]:
    try:
        record = find_image(engine)
    except RlmSandboxError as error:
        return None, str(error)
    return f"{record.reference} ({record.image_id[:19]}…), release {record.release}", ""


def _read_seccomp_profile() -> tuple[str, str]:
    try:
        return read_profile().sha256, ""
    except RlmSandboxError as error:
        return "", str(error)


def _ask_runsc(info: Mapping[str, Any]) -> str | None:
    path = next((runtime.path for runtime in read_runtimes(info) if runtime.is_gvisor), "")
    program = shutil.which(path) if path else None
    if program is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - the program the engine itself runs as root
            (program, "--version"),
            check=False,
            capture_output=True,
            text=True,
            timeout=_VERSION_WAIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"version (\S+)", answer.stdout)
    return match.group(1) if match else None


def _measure_disk(info: Mapping[str, Any]) -> int | None:
    try:
        return shutil.disk_usage(str(info["DockerRootDir"])).free
    except OSError:
        return None
