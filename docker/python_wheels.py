"""Fetches Python packages by the hashes of a lock, for the image and for the tools of its build.

Without it pip would install for the Python that runs the build, and whatever the index serves.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from build_tools import run
from root_layout import SITE, Root, is_kept_from_wheel

PYTHON_VERSION = "3.13"
_MANYLINUX = (
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
)  # trixie's glibc is newer than all
_ABIS = ("cp313", "abi3", "none")


def fetch_wheels(lock: Path, folder: Path, *, machine: str) -> None:
    """Installs the locked wheels for the image's Python into `folder`; refuses any other hash.

    Args:
        lock: The requirements with their hashes.
        folder: Made by this.
        machine: What the image is for, as uname(2) has it.
    """
    install = _installer()
    if install[0] == "uv":
        chosen = [f"--python-version={PYTHON_VERSION}",
                  f"--python-platform={machine}-{_MANYLINUX[0]}"]  # fmt: skip
    else:
        abis = [f"--abi={abi}" for abi in _ABIS]
        platforms = [f"--platform={tag}_{machine}" for tag in _MANYLINUX]
        chosen = [f"--python-version={PYTHON_VERSION}", "--implementation=cp", *abis, *platforms]
    _install(install, lock, folder, *chosen)


def fetch_tools(lock: Path, folder: Path) -> None:
    """Installs locked wheels for the Python that runs this into `folder`."""
    install = _installer()
    _install(install, lock, folder, *(["--python", sys.executable] if install[0] == "uv" else []))


def _installer() -> list[str]:
    has_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], check=False, capture_output=True
    )
    if has_pip.returncode == 0:
        return [sys.executable, "-m", "pip", "install", "--no-compile"]
    if shutil.which("uv"):
        return ["uv", "pip", "install"]
    sys.exit(f"Expected pip in {sys.executable}, or uv; found neither. Install one of them.")


def _install(install: list[str], lock: Path, folder: Path, *chosen: str) -> None:
    run([*install, "--no-deps", "--require-hashes", "--only-binary", ":all:", *chosen,
         "--target", str(folder), "--requirement", str(lock)])  # fmt: skip


def add_wheels(root: Root, folder: Path) -> tuple[Distribution, ...]:
    """Adds what was installed into `folder`, each file under the name of its distribution."""
    installed = tuple(distributions(path=[str(folder)]))
    owners = {
        Path(str(file)).as_posix(): normalise(distribution.metadata["Name"])
        for distribution in installed
        for file in distribution.files or ()
    }
    for name in _files(folder, is_kept_file=is_kept_from_wheel):
        if name not in owners:
            sys.exit(f"{name} was installed and no distribution says it is its own.")
        root.add_file(f"{SITE}/{name}", (folder / name).read_bytes(), origin=owners[name])
    return installed


def add_code(root: Root, folder: Path, *, origin: str, is_kept_file: Callable[[str], bool]) -> None:
    """Adds an import package whose sources lie in `folder`."""
    for name in _files(folder, is_kept_file=is_kept_file):
        path = f"{SITE}/{folder.name}/{name}"
        root.add_file(path, (folder / name).read_bytes(), origin=origin)


def normalise(name: str) -> str:
    """Returns the one spelling of a distribution's name (packaging.python.org, normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(folder: Path, *, is_kept_file: Callable[[str], bool]) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if is_kept_file(name))
