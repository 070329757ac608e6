"""Sees to it that the engine has the sandbox image, and checks what was built before it is named.

Without the check, an image that holds a shell by a slip of Debian's or ours would be in use before
anybody looked.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image import (
    INPUTS_LABEL,
    PACKAGES_LABEL,
    RELEASE_LABEL,
    REPOSITORY,
    ImageRecord,
    PackageChoice,
    list_records,
    read_record,
)
from orchestrator.sandbox.image_inputs import read_inputs
from orchestrator.sandbox.image_listing import find_faults
from orchestrator.sandbox.image_making import BuildOptions, is_pinned, make_root, pack
from orchestrator.sandbox.image_store import ImageStore

Report = Callable[[str], None]

BUILD_TIMEOUT_S = 1800.0  # a step that downloads over a slow line prints nothing for minutes
_FAULTS_SHOWN = 20
_AS_USUAL = BuildOptions()


def build_image(
    report: Report,
    *,
    engine: EngineInfo,
    release: str,
    options: BuildOptions = _AS_USUAL,
    is_forced: bool = False,
) -> ImageRecord:
    """Returns the image of the installed code, having built it if the engine had none.

    Args:
        report: Called with a line for each step, and before anything is installed. Not called
            when there is nothing to do.
        engine: Where the image is to be.
        release: Version of this project; becomes the image's tag.
        options: How to build.
        is_forced: Builds even if there is one already. The same packages give the same image.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The build failed, or what it built holds what it must not (then it was
            removed again); the message says what, and what to do.
    """
    inputs = read_inputs()
    current = inputs.digest()
    with (
        ImageStore(engine.endpoint, timeout_s=BUILD_TIMEOUT_S) as store,
        tempfile.TemporaryDirectory(prefix="rlm-image-") as scratch,
    ):
        found = list_records(store, label=f"{INPUTS_LABEL}={current}", current=current)
        if found and not is_forced:
            return found[0]
        root = make_root(store, inputs, options, Path(scratch), report)
        choice = PackageChoice.PINNED if is_pinned(inputs, root) else PackageChoice.NEWEST
        made = pack(inputs, root, image_labels(current, release=release, packages=choice.value))
        report("loading the image into the engine")
        image_id = store.load(made.archive, candidates=made.ids)
        check_content(store, image_id)
        store.tag(image_id, f"{REPOSITORY}:{release}")
        return read_record(store.inspect(image_id), current=current)


def image_labels(inputs_sha256: str, *, release: str, packages: str) -> dict[str, str]:
    """Returns what an image says of itself; they are part of its id.

    Args:
        inputs_sha256: Digest of what it was made from.
        release: Version of this project.
        packages: `pinned` or `newest`.
    """
    return {INPUTS_LABEL: inputs_sha256, PACKAGES_LABEL: packages, RELEASE_LABEL: release}


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
