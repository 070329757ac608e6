"""Puts the image's root together from what was fetched, and knows where each file is from.

The lock is made by assembling, too: what is locked is what something of went in, and nothing that
the archive's dependencies brought along for nothing.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from debian_files import DebianFiles, add_kept, add_libraries, add_licences
from package_lock import PackageLock
from python_wheels import add_code, add_wheels
from root_layout import OWN_PACKAGE, Root, add_mount_points, is_kept_from_code

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's name, uname(2)'s


def assemble(
    debian: DebianFiles, *, wheels: Path, packages: Sequence[Path], architecture: str
) -> Root:
    """Returns the root without what is derived from it: bytecode and bill of materials.

    Args:
        debian: The unpacked Debian packages.
        wheels: Folder that the wheels were installed into.
        packages: Folders of the import packages of this project.
        architecture: Debian's name of it.
    """
    root = Root()
    add_kept(root, debian)
    add_wheels(root, wheels)
    for package in packages:
        add_code(root, package, origin=OWN_PACKAGE, is_kept_file=is_kept_from_code)
    add_libraries(root, debian, triplet=f"{MACHINES[architecture]}-linux-gnu")
    add_licences(root, debian)
    add_mount_points(root)
    return root


def reduce_lock(lock: PackageLock, root: Root, *, architecture: str) -> PackageLock:
    """Returns the lock of those packages that something in `root` is from."""
    names = root.origins()
    kept = tuple(package for package in lock.of(architecture) if package.name in names)
    return replace(lock, packages={architecture: kept})
