"""Says what the image's root holds, file by file: a list of what stays, not of what goes.

Debian's packages bring an awk, configuration tools and documentation along. A list of what to
remove would let through whatever the next release adds; this one lets nothing through.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import fnmatch
from dataclasses import dataclass, field

PYTHON = "python3.13"
PROGRAM = f"usr/bin/{PYTHON}"
STDLIB = f"usr/lib/{PYTHON}"
SITE = "usr/lib/python3/dist-packages"  # the one site folder of Debian's Python that -I still sees
OWN_PACKAGE = "rlm-sandbox"  # the origin of what this project adds
DATABASE = "var/lib/dpkg/status"  # where scanners look for what is installed; a text, no program
OWN_SHARE = "usr/share/rlm-sandbox"
BILL_OF_MATERIALS = f"{OWN_SHARE}/sbom.cdx.json"
PACKAGE_LOCK = f"{OWN_SHARE}/packages.lock"
SANDBOX_UID = 10001  # ≥ 10000: no account of any host it may be mapped to

_DIRECTORY_MODE, _FILE_MODE, _PROGRAM_MODE, _STICKY_MODE = 0o755, 0o644, 0o755, 0o1777

_KEPT = (
    PROGRAM,
    f"{STDLIB}/*",
    "usr/lib/os-release",  # scanners read the release from it
    "usr/share/zoneinfo/*",  # zoneinfo has no other source of rules
    "usr/share/common-licenses/*",  # the copyright files refer to these
)
_DROPPED_FROM_STDLIB = (
    "EXTERNALLY-MANAGED",
    "__pycache__/*",
    "config-*",
    "curses/*",  # no terminal
    "ensurepip/*",  # no package manager
    "idlelib/*",
    "pydoc_data/*",
    "sitecustomize.py",  # points out of the root, at a crash reporter
    "test/*",
    "tkinter/*",
    "turtle.py",
    "turtledemo/*",
    "venv/*",
    "lib-dynload/_ctypes_test.*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm.*",
    "lib-dynload/_gdbm.*",
    "lib-dynload/_test*",
    "lib-dynload/_xxtestfuzz.*",
    "lib-dynload/readline.*",
    "lib-dynload/xx*",
)
_DROPPED_FROM_WHEELS = (
    "bin/*",  # scripts would want a shell's PATH
    "*.dist-info/RECORD",  # written by the installer; differs between installers
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.pyi",
    "*/tests/*",
)

_PASSWD = f"""\
root:x:0:0::/:/nonexistent
sandbox:x:{SANDBOX_UID}:{SANDBOX_UID}::/tmp:/nonexistent
"""
_GROUP = f"""\
root:x:0:
sandbox:x:{SANDBOX_UID}:
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in the root: a directory, a file, or a symbolic link."""

    mode: int
    data: bytes | None = None  # content of a file
    target: str | None = None  # of a link
    origin: str = ""  # the package that it is from; nobody's where it is a directory

    @property
    def is_directory(self) -> bool:
        """Whether this is neither a file nor a link."""
        return self.data is None and self.target is None


@dataclass(slots=True)
class Root:
    """The root being put together: entries by path, relative and without a leading slash."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add_directory(self, path: str, *, mode: int = _DIRECTORY_MODE) -> None:
        """Adds a directory, and those above it."""
        self._add_parents(path)
        self.entries[path] = Entry(mode=mode)

    def add_file(self, path: str, data: bytes, *, origin: str) -> None:
        """Adds a file of the package `origin`, and the directories above it.

        The mode is assigned and never taken over from a package, so that no set-user-id bit can
        reach the image.
        """
        self._add_parents(path)
        is_program = path.startswith("usr/bin/") or "/ld-linux" in path
        mode = _PROGRAM_MODE if is_program else _FILE_MODE
        self.entries[path] = Entry(mode=mode, data=data, origin=origin)

    def add_link(self, path: str, target: str, *, origin: str) -> None:
        """Adds a symbolic link of the package `origin`, and the directories above it."""
        self._add_parents(path)
        self.entries[path] = Entry(mode=0o777, target=target, origin=origin)

    def add_entry(self, path: str, entry: Entry) -> None:
        """Adds an entry of another root, with its mode assigned anew."""
        if entry.target is not None:
            self.add_link(path, entry.target, origin=entry.origin)
        elif entry.data is not None:
            self.add_file(path, entry.data, origin=entry.origin)

    def origins(self) -> set[str]:
        """Returns the packages that anything in the root is from."""
        return {entry.origin for entry in self.entries.values() if not entry.is_directory}

    def in_order(self) -> list[tuple[str, Entry]]:
        """Returns the entries sorted by path: a directory comes before what is in it."""
        return sorted(self.entries.items())

    def _add_parents(self, path: str) -> None:
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            self.entries.setdefault("/".join(parents[:depth]), Entry(mode=_DIRECTORY_MODE))


def is_kept(path: str) -> bool:
    """Whether a file of Debian's packages belongs into the image as it is.

    Shared libraries are not decided here: those that something kept needs are added.
    """
    in_stdlib = path.removeprefix(f"{STDLIB}/")
    return _matches(path, _KEPT) and not _matches(in_stdlib, _DROPPED_FROM_STDLIB)


def is_kept_from_wheel(path: str) -> bool:
    """Whether a file of an installed wheel, named relative to the site folder, belongs in."""
    return not _matches(path, _DROPPED_FROM_WHEELS) and "__pycache__" not in path


def is_kept_from_code(path: str) -> bool:
    """Whether a file of the project's own packages belongs in."""
    return path.endswith(".py")


def add_mount_points(root: Root) -> None:
    """Adds what a container needs to find: accounts, mount points, links for merged `/usr`."""
    root.add_file("etc/passwd", _PASSWD.encode(), origin=OWN_PACKAGE)
    root.add_file("etc/group", _GROUP.encode(), origin=OWN_PACKAGE)
    root.add_link("etc/os-release", "../usr/lib/os-release", origin=OWN_PACKAGE)
    root.add_link("lib", "usr/lib", origin=OWN_PACKAGE)
    if "usr/lib64" in root.entries:
        root.add_link("lib64", "usr/lib64", origin=OWN_PACKAGE)
    for path in ("dev", "proc", "run/rlm", "sys"):
        root.add_directory(path)
    root.add_directory("tmp", mode=_STICKY_MODE)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
