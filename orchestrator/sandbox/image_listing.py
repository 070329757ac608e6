"""Judges an image by the names in it, before anything in it is run.

The build decides what goes in; this looks at what came out. A shell that slips in through a new
Debian release would otherwise be found by whoever breaks into a sandbox.
"""

import fnmatch
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_SITE = "usr/lib/python3/dist-packages"
_REQUIRED = (
    "usr/bin/python3.13",
    f"{_SITE}/grpc/__init__.py",
    f"{_SITE}/rlm_sandbox/__init__.py",
    f"{_SITE}/sandbox_image/__init__.py",
    "run/rlm",
    "tmp",
)
_MAY_BE_EXECUTABLE = ("usr/bin/python3.13", "usr/lib/*/ld-linux-*.so.*")
_INSTALLERS = ("pip", "ensurepip", "setuptools", "uv", "dpkg", "apt")
_DATABASE_FOLDER = "var/lib/dpkg"  # a text that scanners read; there is no program to it
#: Created by the engine in every container it makes, to mount its own files over.
MADE_BY_ENGINE = frozenset(
    {
        ".dockerenv",
        "dev/console",
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEntry:
    """One name in an image."""

    path: str  # relative, without a leading slash
    mode: int  # permission bits, with set-user-id, set-group-id and sticky
    uid: int
    gid: int
    is_file: bool = False
    is_directory: bool = False
    is_link: bool = False  # symbolic

    @property
    def is_executable(self) -> bool:
        """Whether this is a file that execve(2) would start."""
        return self.is_file and bool(self.mode & 0o111)


def read_member(member: tarfile.TarInfo) -> ListedEntry:
    """Returns what a member of an exported container's tar says."""
    return ListedEntry(
        path=PurePosixPath(member.name).as_posix(),
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        is_file=member.isreg(),
        is_directory=member.isdir(),
        is_link=member.issym(),
    )


def find_faults(listing: Sequence[ListedEntry]) -> list[str]:
    """Returns what is in an image and must not be, or must be and is not; empty if it is sound."""
    own = [entry for entry in listing if entry.path not in MADE_BY_ENGINE]
    names = {entry.path for entry in own}
    faults = [f"{path} is missing" for path in _REQUIRED if path not in names]
    for entry in own:
        faults += [f"{entry.path} {fault}" for fault in _faults_of(entry)]
    return faults


def _faults_of(entry: ListedEntry) -> list[str]:
    path = PurePosixPath(entry.path)
    checks = {
        "is executable: a shell or a tool": entry.is_executable
        and not any(fnmatch.fnmatchcase(entry.path, pattern) for pattern in _MAY_BE_EXECUTABLE),
        "is in a folder of programs": path.parent.name in {"bin", "sbin"}
        and entry.path not in _REQUIRED,
        "installs packages": entry.is_directory
        and path.name in _INSTALLERS
        and entry.path != _DATABASE_FOLDER,
        "is set-user-id or set-group-id": bool(entry.mode & (stat.S_ISUID | stat.S_ISGID)),
        "is writable by everybody": bool(entry.mode & stat.S_IWOTH)
        and not entry.is_link
        and entry.path != "tmp",
        "is a device, pipe or hard link": not (
            entry.is_file or entry.is_directory or entry.is_link
        ),
        "belongs to a user other than root": entry.uid != 0 or entry.gid != 0,
    }
    return [fault for fault, is_found in checks.items() if is_found]
