"""Builds the sandbox image, the way this host can, and checks it before it gets its name."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import EngineInfo, Host, read_host
from orchestrator.sandbox.engine_setup import install_packages
from orchestrator.sandbox.image import (
    BUILT_BY_LABEL,
    INPUTS_LABEL,
    RELEASE_LABEL,
    BuiltBy,
    ImageRecord,
    list_records,
    read_record,
)
from orchestrator.sandbox.image_inputs import (
    BUILD_SCRIPT,
    DOCKERFILE,
    PACKAGE_FOLDERS,
    ImageInputs,
    read_inputs,
)
from orchestrator.sandbox.image_listing import find_faults
from orchestrator.sandbox.image_store import ContainerBuild, ImageStore

Report = Callable[[str], None]

_REPOSITORY = "rlm-sandbox"
_BUILD_TIMEOUT_S = 1800.0  # a step that downloads over a slow line prints nothing for minutes
_FAULTS_SHOWN = 20
_LINES_SHOWN = 20


def choose_way(host: Host, *, has_mmdebstrap: bool) -> BuiltBy:
    """Returns how to build on `host`: without a container registry wherever that can be done."""
    if has_mmdebstrap or (host.installs_with_apt and host.is_root):
        return BuiltBy.MMDEBSTRAP
    return BuiltBy.DOCKERFILE


def build_image(
    report: Report,
    *,
    engine: EngineInfo,
    release: str,
    way: BuiltBy | None = None,
    is_forced: bool = False,
) -> ImageRecord:
    """Returns the image of the installed code, having built it if the engine had none.

    Args:
        report: Called with a line for each step, and before anything is installed. Not called
            when there is nothing to do.
        engine: Where the image is to be.
        release: Version of this project; becomes the image's tag.
        way: How to build; chosen by what the host has if None.
        is_forced: Builds even if there is one already, for instance to get newer Debian packages.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The build failed, or what it built holds what it must not (then it was
            removed again); the message says what, and what to do.
    """
    inputs = read_inputs()
    current = inputs.digest()
    with ImageStore(engine.endpoint, timeout_s=_BUILD_TIMEOUT_S) as store:
        found = list_records(store, label=f"{INPUTS_LABEL}={current}", current=current)
        if found and not is_forced:
            return found[0]
        host = read_host(runtime_dir=None)
        has_mmdebstrap = shutil.which("mmdebstrap") is not None
        chosen = way or choose_way(host, has_mmdebstrap=has_mmdebstrap)
        labels = {INPUTS_LABEL: current, BUILT_BY_LABEL: chosen.value, RELEASE_LABEL: release}
        match chosen:
            case BuiltBy.MMDEBSTRAP:
                if not has_mmdebstrap:
                    _install_mmdebstrap(report, host)
                report("Building the sandbox image with mmdebstrap: no container registry is asked")
                image_id = _build_on_host(store, inputs, labels, report)
            case BuiltBy.DOCKERFILE:
                report(
                    "Building the sandbox image in a container: its Debian comes from a registry"
                )
                build = ContainerBuild(dockerfile=DOCKERFILE, labels=labels)
                image_id = build_in_container(store, inputs, build, report)
            case _:
                assert_never(chosen)
        check_content(store, image_id)
        store.tag(image_id, f"{_REPOSITORY}:{release}")
        return read_record(store.inspect(image_id), current=current)


def check_content(store: ImageStore, image_id: str) -> None:
    """Looks at the names in an image, and removes the image if something is wrong with them.

    Raises:
        SandboxStartError: It holds what it must not, or lacks what it must have.
    """
    faults = find_faults(store.list_content(image_id))
    if not faults:
        return
    store.remove(image_id)
    shown = "\n".join(f"  {fault}" for fault in faults[:_FAULTS_SHOWN])
    message = f"The image that was built is not as it must be, and was removed again:\n{shown}"
    raise SandboxStartError(message)


def build_in_container(
    store: ImageStore, inputs: ImageInputs, build: ContainerBuild, report: Report
) -> str:
    """Builds the image in a builder stage inside the engine and returns its id.

    Raises:
        SandboxStartError: A step failed; the message has its error, and the way without a registry.
    """
    with tempfile.TemporaryFile() as context:
        inputs.write_context(context)
        context.seek(0)
        try:
            return store.build(context, build, report)
        except SandboxStartError as error:
            message = (
                f"{error}\nThis way needs a container registry. Without one, install mmdebstrap "
                "(a package of Debian and Ubuntu) and build again."
            )
            raise SandboxStartError(message) from error


def _install_mmdebstrap(report: Report, host: Host) -> None:
    keyring = () if host.distribution == "debian" else ("debian-archive-keyring",)
    install_packages(("mmdebstrap", *keyring), report, purpose="what builds the sandbox image")


def _build_on_host(
    store: ImageStore, inputs: ImageInputs, labels: Mapping[str, str], report: Report
) -> str:
    with tempfile.TemporaryDirectory(prefix="rlm-image-") as scratch:
        source, tar = Path(scratch, "source"), Path(scratch, "root.tar")
        inputs.write_folder(source)
        packages = [f"--package={source / folder}" for folder in PACKAGE_FOLDERS]
        _run_script(
            [sys.executable, "-B", str(source / BUILD_SCRIPT), f"--tar={tar}", *packages], report
        )
        report("importing the root into the engine")
        changes = read_configuration(inputs.dockerfile)
        changes += [f'LABEL {name}="{value}"' for name, value in labels.items()]
        return store.import_root(tar, changes=changes)


def _run_script(command: list[str], report: Report) -> None:
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - this interpreter, a file of this installation
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            report(lines[-1])
    if process.returncode:
        words = "\n".join(f"  {line}" for line in lines[-_LINES_SHOWN:])
        message = (
            f"Building the image's root failed with exit code {process.returncode}:\n{words}\n"
            "If something could not be fetched: it needs a Debian mirror and a Python package "
            "index, reached as this host's apt and pip are configured to."
        )
        raise SandboxStartError(message)


def read_configuration(dockerfile: str) -> list[str]:
    """Returns the instructions of a Dockerfile's last stage that set the image's configuration.

    An image that is imported gets these, so that both ways of building share one definition.
    """
    lines = dockerfile.splitlines()
    last_stage = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return [
        line
        for line in lines[last_stage + 1 :]
        if line and not line.startswith(("#", "COPY ", "ARG "))
    ]
