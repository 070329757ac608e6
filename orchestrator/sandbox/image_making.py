"""Makes the image's root and the image, the way this host can; the engine only keeps it.

Two ways lead to a root, for hosts with apt and for hosts with a container registry. Without one
place that ends both in the same archive, the way would show in the image's id.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, assert_never

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import Host, read_host
from orchestrator.sandbox.engine_setup import install_packages
from orchestrator.sandbox.image import PackageChoice
from orchestrator.sandbox.image_inputs import (
    ARCHIVE_SCRIPT,
    BUILD_SCRIPT,
    DOCKERFILE,
    PACKAGE_FOLDERS,
    PACKAGE_LOCK,
    ImageInputs,
)
from orchestrator.sandbox.image_store import ContainerBuild, ImageStore

Report = Callable[[str], None]

#: Where the image itself holds what it was locked with, and what it is made of.
LOCK_IN_IMAGE = "usr/share/rlm-sandbox/packages.lock"
BILL_IN_IMAGE = "usr/share/rlm-sandbox/sbom.cdx.json"

_KEYRING_PACKAGE = "debian-archive-keyring"
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/{_KEYRING_PACKAGE}.{kind}") for kind in ("gpg", "pgp"))
_ROOT_IN_BUILDER = "/build/root.tar"  # where the Dockerfile's builder stage leaves it
_BUILDER = ContainerBuild(dockerfile=DOCKERFILE, target="builder")
_LINES_SHOWN = 30


class BuildWay(StrEnum):
    """The two ways to build the image; both run the same script and give the same image."""

    HOST = "host"  # with this host's apt, without a container registry
    CONTAINER = "container"  # in a builder stage, whose Debian comes from a container registry


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How to build, as far as there is a choice."""

    way: BuildWay | None = None  # chosen by what the host has
    packages: PackageChoice = PackageChoice.PINNED
    snapshots: str | None = None  # where past states of Debian's archive are; Debian's own if None
    builder: ContainerBuild = _BUILDER


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """An image in a file."""

    archive: Path
    layer: str  # digest of its one layer
    config: str  # its id in an engine that keeps images itself
    manifest: str  # its id in an engine that lets containerd keep them

    @property
    def ids(self) -> tuple[str, str]:
        """The ids it may have, depending on the engine."""
        return self.config, self.manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTools:
    """What of the tools for building on the host is there."""

    has_apt: bool
    has_keyring: bool

    @classmethod
    def find(cls) -> "HostTools":
        """Looks for them."""
        return cls(
            has_apt=all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")),
            has_keyring=any(path.exists() for path in _KEYRINGS),
        )


def choose_way(host: Host, tools: HostTools) -> BuildWay:
    """Returns how to build on `host`: without a container registry wherever that can be done."""
    can_install = host.installs_with_apt and host.is_root
    is_ready = tools.has_apt and (tools.has_keyring or can_install)
    return BuildWay.HOST if is_ready else BuildWay.CONTAINER


def make_root(
    store: ImageStore, inputs: ImageInputs, options: BuildOptions, scratch: Path, report: Report
) -> Path:
    """Returns the tar file of a root, having built it in `scratch`.

    Args:
        store: The engine's images, for the way that needs an engine.
        inputs: What to build it from.
        options: How.
        scratch: An existing folder, the caller's to remove.
        report: Called with a line for each step, and before anything is installed.

    Raises:
        SandboxStartError: A step failed; the message has its words.
    """
    host, tools = read_host(runtime_dir=None), HostTools.find()
    root = scratch / "root.tar"
    match options.way or choose_way(host, tools):
        case BuildWay.HOST:
            if not tools.has_keyring and host.installs_with_apt:
                install_packages(
                    (_KEYRING_PACKAGE,), report, purpose="the keys that Debian signs with"
                )
            report("Building the sandbox image on this host: no container registry is asked")
            _build_on_host(inputs, options, root, report)
        case BuildWay.CONTAINER:
            report("Building the sandbox image in a container: its Debian comes from a registry")
            with root.open("wb") as target:
                _build_in_container(store, inputs, options, target, report)
        case other:
            assert_never(other)
    return root


def pack(inputs: ImageInputs, root: Path, labels: Mapping[str, str]) -> MadeImage:
    """Returns the image of a root, written beside it.

    Args:
        inputs: Have the program that writes it, and the configuration.
        root: A tar file.
        labels: The image's labels, beside those that the inputs give it.

    Raises:
        SandboxStartError: It could not be written.
    """
    source, archive = root.with_name("packing"), root.with_name("image.tar")
    inputs.write_folder(source)
    command = [sys.executable, "-B", str(source / ARCHIVE_SCRIPT), str(root), str(archive),
               f"--dockerfile={source / DOCKERFILE}"]  # fmt: skip
    command += [f"--label={name}={value}" for name, value in sorted(labels.items())]
    lines: list[str] = []
    _run_script(command, lines.append)
    ids = json.loads(lines[-1])
    return MadeImage(
        archive=archive, layer=ids["layer"], config=ids["config"], manifest=ids["manifest"]
    )


def is_pinned(inputs: ImageInputs, root: Path) -> bool:
    """Whether a root holds just those Debian packages that the inputs pin for its architecture.

    The root's own lock has the section of its architecture alone, in the same words.
    """
    with tarfile.open(root) as archive:
        stream = archive.extractfile(LOCK_IN_IMAGE)
        used = stream.read().decode() if stream else ""
    [(heading, packages)] = _sections(used).items()
    return _sections(inputs.files[PACKAGE_LOCK].decode()).get(heading) == packages


def _sections(lock: str) -> dict[str, set[str]]:
    """Returns the lines of each section of a lock by its heading."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in lock.splitlines():
        if line.startswith("["):
            heading = line
        elif heading and line:
            found.setdefault(heading, set()).add(line)
    return found


def _build_on_host(inputs: ImageInputs, options: BuildOptions, root: Path, report: Report) -> None:
    source = root.with_name("source")
    inputs.write_folder(source)
    command = [sys.executable, "-B", str(source / BUILD_SCRIPT), f"--tar={root}",
               f"--packages={options.packages}"]  # fmt: skip
    command += [f"--snapshots={options.snapshots}"] if options.snapshots else []
    command += [f"--package={source / folder}" for folder in PACKAGE_FOLDERS]
    try:
        _run_script(command, report)
    finally:
        shutil.rmtree(source)


def _build_in_container(
    store: ImageStore,
    inputs: ImageInputs,
    options: BuildOptions,
    root: IO[bytes],
    report: Report,
) -> None:
    arguments = {"PACKAGES": options.packages.value, "SNAPSHOTS": options.snapshots or ""}
    build = replace(options.builder, arguments={**options.builder.arguments, **arguments})
    with tempfile.TemporaryFile() as context:
        inputs.write_context(context)
        context.seek(0)
        try:
            image_id = store.build(context, build, report)
        except SandboxStartError as error:
            raise SandboxStartError(
                f"{error}\nThis way needs a container registry and, in its containers, a Debian "
                "mirror and a Python package index. A host with apt and debian-archive-keyring "
                "builds without containers."
            ) from error
    try:
        store.copy_file(image_id, _ROOT_IN_BUILDER, root)
    finally:
        store.remove(image_id)


def _run_script(command: list[str], report: Report) -> None:
    # The script's errors go to a file, not through a pipe: nobody reads one while the other is
    # being read, and a full pipe would stop the script.
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603 - this interpreter, a file of this installation
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        for line in process.stdout or ():
            report(line.rstrip())
        exit_code = process.wait()
        errors.seek(0)
        words = [f"  {line.rstrip()}" for line in errors]
    if exit_code:
        shown = "\n".join(words[-_LINES_SHOWN:])
        raise SandboxStartError(
            f"Building the image failed with exit code {exit_code}:\n{shown}\n"
            "If something could not be fetched: it needs a Debian mirror and a Python package "
            "index, reached as this host's apt and pip are configured to."
        )
