"""Knows every file the sandbox image is made from, and names them all by one digest.

With a version number instead, a worker changed during development, or patched on a host, would go
on running from an image that still holds the old one.
"""

import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.errors import SettingsError

# Where each part lies in the repository, and so in the context that the Dockerfile is built in.
_BUILD_FOLDER = "docker"
_BUILD_FILES = (
    "assembly.py",
    "bill_of_materials.py",
    "build_rootfs.py",
    "build_tools.py",
    "debian_archive.py",
    "debian_files.py",
    "elf_needs.py",
    "image_archive.py",
    "package_choice.py",
    "package_lock.py",
    "packages.lock",
    "python_wheels.py",
    "requirements.lock",
    "root_layout.py",
    "sandbox.Dockerfile",
    "sbom-tools.lock",
)
_PACKAGES = {"sandbox_image": "sandbox_image", "rlm_sandbox": "proto/rlm_sandbox"}

ARCHIVE_SCRIPT = f"{_BUILD_FOLDER}/image_archive.py"
BUILD_SCRIPT = f"{_BUILD_FOLDER}/build_rootfs.py"
DOCKERFILE = f"{_BUILD_FOLDER}/sandbox.Dockerfile"
PACKAGE_LOCK = f"{_BUILD_FOLDER}/packages.lock"
PACKAGE_FOLDERS = tuple(_PACKAGES.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """What an image is made from, read once: the digest and the build see the same bytes."""

    files: Mapping[str, bytes]  # by path in the repository

    def with_lock(self, lock: bytes) -> "ImageInputs":
        """Returns these inputs with another lock of the Debian packages."""
        return ImageInputs(files={**self.files, PACKAGE_LOCK: lock})

    def digest(self) -> str:
        """Returns the SHA-256 over all names and contents, in hexadecimal."""
        total = hashlib.sha256()
        for name, data in sorted(self.files.items()):
            total.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        return total.hexdigest()

    def write_folder(self, folder: Path) -> None:
        """Writes every file below `folder`, where the repository has it."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def write_context(self, stream: IO[bytes]) -> None:
        """Writes the tar file that the Dockerfile is built from."""
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, data in sorted(self.files.items()):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def read_inputs() -> ImageInputs:
    """Reads the files that the image of the installed code is made from.

    Raises:
        SettingsError: The installation lacks some of them.
    """
    here = Path(__file__).parent
    # A wheel carries the build files beside this module; a source tree has them at its top.
    build_folder = _find_build_folder(here / "image_files", here.parents[1] / _BUILD_FOLDER)
    return collect(build_folder, {at: _find_package(name) for name, at in _PACKAGES.items()})


def collect(build_folder: Path, packages: Mapping[str, Path]) -> ImageInputs:
    """Reads the inputs that lie in the folders given.

    Args:
        build_folder: Holds the build files.
        packages: Folders of the import packages, by their path in the repository.
    """
    files = {f"{_BUILD_FOLDER}/{name}": build_folder / name for name in _BUILD_FILES}
    for at, folder in packages.items():
        # Only sources go in: bytecode that a test run left beside them must not change the digest.
        for path in folder.rglob("*.py"):
            files[f"{at}/{path.relative_to(folder).as_posix()}"] = path
    return ImageInputs(files={name: path.read_bytes() for name, path in files.items()})


def _find_build_folder(*places: Path) -> Path:
    for place in places:
        if (place / _BUILD_FILES[0]).is_file():
            return place
    tried = " or ".join(str(place) for place in places)
    message = f"Expected the image's build files in {tried}; found none. Reinstall rlm-sandbox."
    raise SettingsError(message)


def _find_package(name: str) -> Path:
    """Returns the folder of an import package without importing it: it is the sandbox's code."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        message = f"Expected the package {name} beside orchestrator; found none. Reinstall it."
        raise SettingsError(message)
    return Path(spec.submodule_search_locations[0])
