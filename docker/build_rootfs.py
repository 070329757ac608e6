"""Builds the sandbox image's root file system from Debian packages and hashed wheels.

Runs on the host, where the image is imported as it comes out, and in the builder stage of
sandbox.Dockerfile, where it is copied: one script, so that both ways end in the same content.
Standard library only. It needs mmdebstrap, and pip or uv.

The same inputs give the same bytes: entries are sorted, owners, modes and times are assigned, and
bytecode is compiled with a fixed hash seed and checked by nobody at run time.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import argparse
import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from elf_needs import close_over, is_elf
from root_layout import (
    PROGRAM,
    SITE,
    STDLIB,
    Entry,
    Root,
    add_mount_points,
    is_kept,
    is_kept_from_code,
    is_kept_from_wheel,
)

SUITE = "trixie"
PACKAGES = (
    "base-files",  # the licences and the release file
    "libc6",
    "libgcc-s1",
    "libpython3.13-stdlib",
    "libstdc++6",
    "python3.13-minimal",
    "tzdata",
)
SOURCE_DATE_EPOCH = 1767225600  # 2026-01-01: any constant, as long as it never follows the clock
PYTHON_VERSION = "3.13"
_MANYLINUX = (
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
)  # trixie's glibc is newer than all
_ABIS = ("cp313", "abi3", "none")
_KEYRINGS = tuple(
    Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp")
)
_FORWARDED_APT_OPTIONS = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
_TAIL_LINES = 20


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
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--tar", type=Path, help="write the root into this tar file")
    output.add_argument("--directory", type=Path, help="write the root into this empty folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlm-image-") as scratch:
        root = build(arguments.package, scratch=Path(scratch))
    if arguments.tar:
        write_tar(root, arguments.tar)
    else:
        write_directory(root, arguments.directory)
    size_bytes = sum(len(entry.data or b"") for entry in root.entries.values())
    say(f"root of {len(root.entries)} entries, {size_bytes / 2**20:.1f} MiB")


def say(line: str) -> None:
    """Prints one line of progress."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build(packages: Sequence[Path], *, scratch: Path) -> Root:
    """Returns the whole root, complete with bytecode."""
    say(f"fetching hashed wheels and Debian packages ({SUITE}): {' '.join(PACKAGES)}")
    wheels = scratch / "wheels"
    with ThreadPoolExecutor() as pool:  # both wait for the network most of the time
        fetched = pool.submit(fetch_debian, scratch / "debian.tar")
        pool.submit(fetch_wheels, wheels).result()
        debian = fetched.result()
    root = Root()
    for path, entry in debian.entries.items():
        if is_kept(path) and not entry.is_directory:
            root.entries[path] = entry
            copy_entry(root, path, entry)
    add_folder(root, wheels, at=SITE, is_kept_file=is_kept_from_wheel)
    for package in packages:
        add_folder(root, package, at=f"{SITE}/{package.name}", is_kept_file=is_kept_from_code)
    add_libraries(root, debian)
    add_mount_points(root)
    say("compiling bytecode")
    add_bytecode(root, scratch / "compile")
    return root


def copy_entry(root: Root, path: str, entry: Entry) -> None:
    """Adds an entry of another root, with its mode assigned anew."""
    if entry.target is not None:
        root.add_link(path, entry.target)
    elif entry.data is not None:
        root.add_file(path, entry.data)


def fetch_debian(tar: Path) -> Root:
    """Returns everything that the Debian packages and what they depend on unpack to."""
    keyring = [f"--keyring={path}" for path in _KEYRINGS if path.exists()][:1]
    run([
        "mmdebstrap", "--variant=extract", f"--include={','.join(PACKAGES)}", *keyring,
        *apt_options(), SUITE, str(tar), *apt_sources(),
    ])  # fmt: skip
    root = Root()
    with tarfile.open(tar) as archive:
        for member in archive:
            path = PurePosixPath(member.name).as_posix()
            if member.issym():
                root.add_link(path, member.linkname)
            elif member.isfile() and (stream := archive.extractfile(member)):
                root.add_file(path, stream.read())
    return root


def apt_sources() -> list[str]:
    """Returns the sources to take the suite from: this host's own mirrors, where it is a Debian.

    With none returned, mmdebstrap takes Debian's own.
    """
    values = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text("utf-8").splitlines()
        if "=" in line
    )
    if values.get("ID") != "debian":
        return []
    release = values.get("VERSION_CODENAME", "").strip('"')
    listed = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)",
                  "Identifier: Packages"])  # fmt: skip
    mirrors = dict(reversed([line.split(" ", 1) for line in listed.splitlines()]))
    if release not in mirrors:
        return []
    suites = {SUITE: release, f"{SUITE}-updates": f"{release}-updates",
              f"{SUITE}-security": f"{release}-security"}  # fmt: skip
    return [f"deb {mirrors[own]} {ours} main" for ours, own in suites.items() if own in mirrors]


def apt_options() -> list[str]:
    """Returns this host's options for reaching a mirror: proxies, certificates, frozen mirrors.

    mmdebstrap runs apt with a configuration of its own, in which they would be missing.
    """
    listed = run(["apt-config", "dump", "--no-empty", "--format", "%F %v%n", "Acquire"])
    pairs = [line.partition(" ") for line in listed.splitlines()]
    forwarded = [
        f'--aptopt={name} "{value}"'
        for name, _, value in pairs
        if name.startswith(_FORWARDED_APT_OPTIONS)
    ]
    return [*forwarded, '--aptopt=Acquire::Retries "3"']  # as pip does by itself


def fetch_wheels(folder: Path) -> None:
    """Installs the locked wheels for the image's Python into `folder`; refuses any other hash."""
    machine = platform.machine()
    lock = Path(__file__).with_name("requirements.lock")
    common = ["install", "--no-deps", "--require-hashes", "--only-binary", ":all:",
              "--target", str(folder), "--python-version", PYTHON_VERSION]  # fmt: skip
    has_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], check=False, capture_output=True
    )
    if has_pip.returncode == 0:
        abis = [f"--abi={abi}" for abi in _ABIS]
        platforms = [f"--platform={tag}_{machine}" for tag in _MANYLINUX]
        run([sys.executable, "-m", "pip", *common, "--no-compile", "--implementation=cp",
             *abis, *platforms, "--requirement", str(lock)])  # fmt: skip
    elif shutil.which("uv"):
        run(["uv", "pip", *common, f"--python-platform={machine}-{_MANYLINUX[0]}",
             "--requirement", str(lock)])  # fmt: skip
    else:
        sys.exit(f"Expected pip in {sys.executable}, or uv; found neither. Install one of them.")


def add_folder(root: Root, folder: Path, *, at: str, is_kept_file: Callable[[str], bool]) -> None:
    """Adds the files of a folder that `is_kept_file` admits by their path relative to it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and is_kept_file(name):
            root.add_file(f"{at}/{name}", path.read_bytes())


def add_libraries(root: Root, debian: Root) -> None:
    """Adds the shared libraries and the loader that what is in `root` needs."""
    triplet = f"{platform.machine()}-linux-gnu"

    def find(wanted: str) -> tuple[str, bytes]:
        path = f"usr/{wanted.lstrip('/')}" if "/" in wanted else f"usr/lib/{triplet}/{wanted}"
        for _ in range(8):  # as many links as any chain here has, many times over
            entry = debian.entries.get(path)
            if entry is None:
                sys.exit(f"{wanted} is needed by a file of the image, and no package has {path}.")
            copy_entry(root, path, entry)
            if entry.data is not None:
                return path, entry.data
            path = _follow(path, str(entry.target))
        sys.exit(f"{wanted}: too many symbolic links.")

    start = {path: data for path, entry in root.entries.items()
             if (data := entry.data) and is_elf(data)}  # fmt: skip
    close_over(start, find=find)


def _follow(path: str, target: str) -> str:
    """Returns the path that a link at `path` leads to, inside the root."""
    parts: list[str] = []
    for part in (PurePosixPath("/", path).parent / target).parts[1:]:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def add_bytecode(root: Root, folder: Path) -> None:
    """Compiles every module with the image's own Python and adds the result.

    The image's Python is run through its own loader: this host need not have a 3.13, and nobody
    needs to be root for a chroot. Unchecked hashes, because nothing can change a source on a
    read-only root, and a check would read every source at every start.
    """
    write_directory(root, folder)
    loader = next(folder.glob(f"usr/lib/{platform.machine()}-linux-gnu/ld-linux-*.so.*"))
    run([
        str(loader), "--library-path", str(loader.parent), str(folder / PROGRAM),
        "-sPSB", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", str(folder), "-p", "/", str(folder / STDLIB), str(folder / SITE),
    ], environment={"PYTHONHASHSEED": "0"})  # fmt: skip
    for path in sorted(folder.rglob("*.pyc")):
        root.add_file(path.relative_to(folder).as_posix(), path.read_bytes())


def write_tar(root: Root, tar: Path) -> None:
    """Writes the root into a tar file, everything owned by root and of one age."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in root.in_order():
            member = tarfile.TarInfo(path)
            member.mode, member.mtime = entry.mode, SOURCE_DATE_EPOCH
            if entry.target is not None:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            elif entry.is_directory:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.data or b"")
            archive.addfile(member, io.BytesIO(entry.data or b""))


def write_directory(root: Root, folder: Path) -> None:
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
        os.utime(folder / path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH), follow_symlinks=False)


def run(command: Sequence[str], *, environment: dict[str, str] | None = None) -> str:
    """Runs a tool to its end and returns its standard output; ends this program if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - this file's literals, no shell
            command, check=False, capture_output=True, text=True, env=environment
        )
    except FileNotFoundError:
        sys.exit(f"{command[0]} is needed to build the image and was not found. Install it.")
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        sys.exit(f"{shlex.join(command)}\nfailed with exit code {done.returncode}:\n{tail}")
    return done.stdout


if __name__ == "__main__":
    main()
