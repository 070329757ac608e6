"""Builds the image in use once more and compares: is it what its inputs give, and nothing else?

An id says that an image was not changed since it was made. It does not say what it was made from,
nor whether the engine's disk still holds what the id stands for. A second build answers both, on
any host, with nothing to trust but the inputs.
"""

import hashlib
import io
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image import ImageRecord, PackageChoice, find_image
from orchestrator.sandbox.image_build import BUILD_TIMEOUT_S, image_labels
from orchestrator.sandbox.image_inputs import read_inputs
from orchestrator.sandbox.image_listing import MADE_BY_ENGINE
from orchestrator.sandbox.image_making import (
    BILL_IN_IMAGE,
    LOCK_IN_IMAGE,
    BuildOptions,
    make_root,
    pack,
)
from orchestrator.sandbox.image_store import ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a second build of the image in use showed."""

    image: ImageRecord
    rebuilt_id: str  # what the second build's id is in an engine that keeps images itself
    rebuilt_manifest: str  # … and in one that lets containerd keep them
    differences: tuple[str, ...]  # names in the file system that differ, each with how

    @property
    def is_same(self) -> bool:
        """Whether the image is to the bit what its inputs give, and the engine still has it so."""
        ids = (self.rebuilt_id, self.rebuilt_manifest)
        return self.image.image_id in ids and not self.differences


def verify_image(
    report: Callable[[str], None],
    *,
    engine: EngineInfo,
    options: BuildOptions,
) -> Verification:
    """Builds the image in use again, from the same inputs and packages, and compares the two.

    The second one is not loaded into the engine.

    Args:
        report: Called with a line for each step, and before anything is installed.
        engine: Has the image.
        options: How to build; the packages are those of the image, whatever is said here.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The engine has no image, or the build failed; the message says why.
    """
    record, inputs = find_image(engine), read_inputs()
    with (
        ImageStore(engine.endpoint, timeout_s=BUILD_TIMEOUT_S) as store,
        tempfile.TemporaryDirectory(prefix="rlm-verify-") as scratch,
    ):
        lock = io.BytesIO()
        store.copy_file(record.image_id, f"/{LOCK_IN_IMAGE}", lock)
        inputs = inputs.with_lock(lock.getvalue())
        options = replace(options, packages=PackageChoice.PINNED)
        root = make_root(store, inputs, options, Path(scratch), report)
        labels = image_labels(
            record.inputs_sha256, release=record.release, packages=record.packages
        )
        made = pack(inputs, root, labels)
        with store.export(record.image_id) as exported, root.open("rb") as rebuilt:
            differences = compare(read_content(exported), read_content(rebuilt))
    return Verification(
        image=record,
        rebuilt_id=made.config,
        rebuilt_manifest=made.manifest,
        differences=differences,
    )


def read_bill_of_materials(engine: EngineInfo) -> str:
    """Returns the bill of materials (CycloneDX, JSON) that the image in use holds.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The engine has no image, or did not answer.
    """
    record, bill = find_image(engine), io.BytesIO()
    with ImageStore(engine.endpoint) as store:
        store.copy_file(record.image_id, f"/{BILL_IN_IMAGE}", bill)
    return bill.getvalue().decode()


def read_content(tar: IO[bytes]) -> dict[str, str]:
    """Returns what a tar file of a root holds: for each name its kind, mode and content."""
    with tarfile.open(fileobj=tar) as archive:
        return dict(_describe(archive))


def compare(found: Mapping[str, str], rebuilt: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the names that differ between the image and its second build, each with how."""
    names = sorted(found.keys() | rebuilt.keys())
    return tuple(
        f"{name}: {found.get(name, 'nothing')} in the image, "
        f"{rebuilt.get(name, 'nothing')} when built again"
        for name in names
        if found.get(name) != rebuilt.get(name)
    )


def _describe(archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    for member in archive:
        path = PurePosixPath(member.name).as_posix()
        if path in MADE_BY_ENGINE:
            continue
        kind = "link to" if member.issym() else "folder" if member.isdir() else "file"
        content = member.linkname
        if member.isreg() and (stream := archive.extractfile(member)):
            content = f"sha256:{hashlib.sha256(stream.read()).hexdigest()}"
        # The engine repeats the kind in the mode, where tar's own has permissions alone.
        mode = stat.S_IMODE(member.mode)
        yield path, f"{kind} {content} {mode:o} {member.uid}:{member.gid}".replace("  ", " ")
