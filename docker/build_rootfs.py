"""Builds the sandbox image's root file system from locked Debian packages and hashed wheels.

Runs on the host, and in the builder stage of sandbox.Dockerfile where the host cannot: one script,
so that both ways end in the same bytes. It needs apt-get, dpkg-deb and Debian's keyring, and pip or
uv; it does not need root.

The same inputs give the same bytes: entries are sorted, owners, modes and times are assigned, and
bytecode is compiled with a fixed hash seed and checked by nobody at run time.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import argparse
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from assembly import MACHINES, assemble, reduce_lock
from build_tools import run, say
from debian_archive import SNAPSHOTS, find_sources
from debian_files import unpack
from package_choice import Fetched, PackageChoice, Places, fetch_packages
from package_lock import PackageLock, format_lock, parse_lock
from python_wheels import fetch_tools, fetch_wheels
from root_layout import (
    BILL_OF_MATERIALS,
    DATABASE,
    OWN_PACKAGE,
    PACKAGE_LOCK,
    PROGRAM,
    SITE,
    STDLIB,
    Root,
)

_HERE = Path(__file__).parent
_WHEELS = _HERE / "requirements.lock"


def main() -> None:
    """Builds the root that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--package",
        type=Path,
        action="append",
        required=True,
        metavar="FOLDER",
        help="an import package to install in the image; may be repeated",
    )
    parser.add_argument("--tar", type=Path, help="write the root into this tar file")
    parser.add_argument("--directory", type=Path, help="write the root into this empty folder")
    parser.add_argument("--lock", type=Path, default=_HERE / "packages.lock", help="what is pinned")
    parser.add_argument("--packages", type=PackageChoice, choices=list(PackageChoice),
                        default=PackageChoice.PINNED, help="which versions go in")  # fmt: skip
    parser.add_argument("--snapshots", default=SNAPSHOTS, metavar="URL",
                        help="past states of the archive")  # fmt: skip
    arguments = parser.parse_args()
    architecture = {machine: name for name, machine in MACHINES.items()}.get(platform.machine())
    if architecture is None:
        sys.exit(f"Expected one of {', '.join(MACHINES.values())}, got {platform.machine()}. "
                 "The image is not built for other machines.")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="rlm-image-") as scratch:
        Path(scratch).chmod(0o755)  # for apt's own user; nothing in it is anybody's secret
        builder = Builder(Path(scratch), architecture=architecture)
        lock = parse_lock(arguments.lock.read_text("utf-8"))
        places = Places(mirrors=find_sources(), snapshots=arguments.snapshots)
        fetched = builder.fetch(arguments.packages, lock, places)
        root, moment = builder.build(arguments.package, fetched, pinned=lock)
    if arguments.tar:
        write_tar(root, arguments.tar, moment=moment)
    if arguments.directory:
        write_directory(root, arguments.directory, moment=moment)
    size_bytes = sum(len(entry.data or b"") for entry in root.entries.values())
    say(f"root of {len(root.entries)} entries, {size_bytes / 2**20:.1f} MiB")


class Builder:
    """Makes one root in a scratch folder of its own."""

    def __init__(self, scratch: Path, *, architecture: str) -> None:
        """Works in `scratch`, which is the caller's to remove."""
        self._scratch = scratch
        self._architecture = architecture

    def fetch(self, choice: PackageChoice, lock: PackageLock, places: Places) -> Fetched:
        """Fetches everything the root and its bill of materials are made with."""
        say("fetching hashed wheels and Debian packages")
        with ThreadPoolExecutor() as pool:  # all wait for the network most of the time
            jobs = [
                pool.submit(fetch_wheels, _WHEELS, self._scratch / "wheels",
                            machine=MACHINES[self._architecture]),
                pool.submit(fetch_tools, _HERE / "sbom-tools.lock", self._scratch / "tools"),
            ]  # fmt: skip
            fetched = pool.submit(
                fetch_packages, choice, lock, places, architecture=self._architecture,
                scratch=self._scratch,
            ).result()  # fmt: skip
            for job in jobs:
                job.result()
        return fetched

    def build(
        self, packages: Sequence[Path], fetched: Fetched, *, pinned: PackageLock
    ) -> tuple[Root, datetime]:
        """Returns the whole root, and the moment that everything in it is dated."""
        wheels, lock = self._scratch / "wheels", fetched.lock
        debian = unpack(fetched.debs)
        root = assemble(debian, wheels=wheels, packages=packages, architecture=self._architecture)
        used = reduce_lock(lock, root, architecture=self._architecture)
        locked = pinned.packages.get(self._architecture, ())
        if fetched.is_pinned and used.of(self._architecture) != locked:
            idle = set(locked) - set(used.of(self._architecture))
            sys.exit(f"Nothing in the image is from {', '.join(map(str, sorted(idle)))}, which the "
                     "lock names. Lock the packages anew: `make lock`.")  # fmt: skip
        if used.of(self._architecture) == locked:  # nothing is newer: the image that all have
            used = replace(used, moment=pinned.moment)
        names = (package.name for package in used.of(self._architecture))
        root.add_file(DATABASE, debian.status(names).encode(), origin=OWN_PACKAGE)
        root.add_file(PACKAGE_LOCK, format_lock(used).encode(), origin=OWN_PACKAGE)
        folder = self._scratch / "root"
        write_directory(root, folder, moment=used.moment)
        say("compiling bytecode, writing the bill of materials")
        bill = self._list_materials(root, folder)
        self._add_bytecode(root, folder)
        root.add_file(BILL_OF_MATERIALS, bill, origin=OWN_PACKAGE)
        return root, used.moment

    def _list_materials(self, root: Root, folder: Path) -> bytes:
        """Returns the bill of materials."""
        environment = {**os.environ, "PYTHONPATH": str(self._scratch / "tools")}  # noqa: TID251 - this Python's own
        printed = run([
            sys.executable, "-B", str(_HERE / "bill_of_materials.py"), str(folder),
            "--architecture", self._architecture, "--content", digest(root),
            "--wheels", str(_WHEELS),
        ], environment=environment)  # fmt: skip
        check_complete(printed, root)
        return printed.encode()

    def _add_bytecode(self, root: Root, folder: Path) -> None:
        """Compiles every module with the image's own Python and adds the result.

        The image's Python is run through its own loader: this host need not have a 3.13, and nobody
        needs to be root for a chroot. Unchecked hashes, because nothing can change a source on a
        read-only root, and a check would read every source at every start.
        """
        triplet = f"{MACHINES[self._architecture]}-linux-gnu"
        loader = next(folder.glob(f"usr/lib/{triplet}/ld-linux-*.so.*"))
        run([
            str(loader), "--library-path", str(loader.parent), str(folder / PROGRAM),
            "-sPSB", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
            "-s", str(folder), "-p", "/", str(folder / STDLIB), str(folder / SITE),
        ], environment={"PYTHONHASHSEED": "0"})  # fmt: skip
        for path in sorted(folder.rglob("*.pyc")):
            name = path.relative_to(folder)
            source = name.parent.parent / f"{name.name.partition('.')[0]}.py"
            root.add_file(name.as_posix(), path.read_bytes(),
                          origin=root.entries[source.as_posix()].origin)  # fmt: skip


def check_complete(bill: str, root: Root) -> None:
    """Ends this program unless a bill of materials names what files of the root are from, only."""
    named = {
        component["name"]
        for component in json.loads(bill)["components"]
        if component["type"] != "operating-system"
        and "arch=source" not in component.get("purl", "")
    }
    if named != root.origins():
        sys.exit(f"The bill of materials and the root differ: {sorted(named ^ root.origins())} "
                 "is in one of them only.")  # fmt: skip


def digest(root: Root) -> str:
    """Returns one SHA-256 for everything in the root: names, kinds, modes and contents."""
    total = hashlib.sha256()
    for path, entry in root.in_order():
        content = entry.target.encode() if entry.target is not None else entry.data
        hashed = "" if content is None else hashlib.sha256(content).hexdigest()
        kind = "link" if entry.target is not None else "directory" if content is None else "file"
        total.update(f"{path}\0{kind} {entry.mode:o} {hashed}\n".encode())
    return total.hexdigest()


def write_tar(root: Root, tar: Path, *, moment: datetime) -> None:
    """Writes the root into a tar file, everything owned by root and of one age."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in root.in_order():
            member = tarfile.TarInfo(path)
            member.mode, member.mtime = entry.mode, round(moment.timestamp())
            if entry.target is not None:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            elif entry.is_directory:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.data or b"")
            archive.addfile(member, io.BytesIO(entry.data or b""))


def write_directory(root: Root, folder: Path, *, moment: datetime) -> None:
    """Writes the root into a folder; owned by whoever runs this."""
    for path, entry in root.in_order():
        there = folder / path
        if entry.target is not None:
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(entry.target)
        elif entry.is_directory:
            there.mkdir(parents=True)
            there.chmod(entry.mode)
        else:
            there.write_bytes(entry.data or b"")
            there.chmod(entry.mode)
    for path, _ in reversed(root.in_order()):  # a folder after what is in it, which changes its age
        os.utime(folder / path, (moment.timestamp(),) * 2, follow_symlinks=False)


if __name__ == "__main__":
    main()
