"""Unpacks .debs one by one, so that every file of the image is known by the package it is from.

A list of what is in an image that does not come from the files themselves is a list of intentions:
it names packages of which nothing was kept, and misses what came along unasked.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from build_tools import run
from elf_needs import close_over, is_elf
from root_layout import Entry, Root, is_kept

_DOCUMENTS = "usr/share/doc"
_MERGED = frozenset({"bin", "sbin", "lib", "lib64"})  # links into /usr on every Debian since 12
_LINKS_IN_A_CHAIN = 8  # as many as any chain here has, many times over


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianFiles:
    """What a set of Debian packages unpacks to, and what each says of itself."""

    entries: Mapping[str, Entry]
    paragraphs: Mapping[str, str]  # by package; as dpkg's database has them: deb-control(5)

    def status(self, names: Iterable[str]) -> str:
        """Returns dpkg's database for the named packages, from which scanners read what is here."""
        stanzas = []
        for name in sorted(names):
            first, _, rest = self.paragraphs[name].partition("\n")
            stanzas.append(f"{first}\nStatus: install ok installed\n{rest.strip()}\n")
        return "\n".join(stanzas)


def unpack(debs: Mapping[str, Path]) -> DebianFiles:
    """Reads the files and the control paragraphs of packages, whose .debs are given by name."""
    entries: dict[str, Entry] = {}
    for name, deb in sorted(debs.items()):
        entries |= _unpack_one(name, deb)
    return DebianFiles(
        entries=entries,
        paragraphs={name: run(["dpkg-deb", "--field", str(deb)]) for name, deb in debs.items()},
    )


def _unpack_one(name: str, deb: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    with (
        subprocess.Popen(  # noqa: S603 - a literal, and a file whose hash was compared
            ["dpkg-deb", "--fsys-tarfile", str(deb)],  # noqa: S607 - as apt itself finds it
            stdout=subprocess.PIPE,
        ) as tool,
        tarfile.open(fileobj=tool.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = _place(member.name)
            if member.issym():
                entries[path] = Entry(mode=0, target=member.linkname, origin=name)
            elif member.islnk():
                first = entries[_place(member.linkname)]
                entries[path] = Entry(mode=0, data=first.data, origin=name)
            elif member.isfile() and (stream := archive.extractfile(member)):
                entries[path] = Entry(mode=0, data=stream.read(), origin=name)
    if tool.returncode:
        sys.exit(f"dpkg-deb could not unpack {deb.name}: exit code {tool.returncode}.")
    return entries


def _place(name: str) -> str:
    """Returns where a member of a package lies on a root whose `/lib` is a link to `/usr/lib`."""
    path = PurePosixPath(name).as_posix().lstrip("/")
    return f"usr/{path}" if "/" in path and path.partition("/")[0] in _MERGED else path


def add_kept(root: Root, debian: DebianFiles) -> None:
    """Adds what the layout lists."""
    for path, entry in debian.entries.items():
        if is_kept(path):
            root.add_entry(path, entry)


def add_libraries(root: Root, debian: DebianFiles, *, triplet: str) -> None:
    """Adds the shared libraries and the loader that what is in `root` needs."""

    def find(wanted: str) -> tuple[str, bytes]:
        path = f"usr/{wanted.lstrip('/')}" if "/" in wanted else f"usr/lib/{triplet}/{wanted}"
        for _ in range(_LINKS_IN_A_CHAIN):
            entry = debian.entries.get(path)
            if entry is None:
                sys.exit(f"{wanted} is needed by a file of the image, and no package has {path}. "
                         "Lock them anew: `make lock`, or `--packages newest`.")  # fmt: skip
            root.add_entry(path, entry)
            if entry.data is not None:
                return path, entry.data
            path = _follow(path, str(entry.target))
        sys.exit(f"{wanted}: too many symbolic links.")

    start = {path: data for path, entry in root.entries.items()
             if (data := entry.data) and is_elf(data)}  # fmt: skip
    close_over(start, find=find)


def add_licences(root: Root, debian: DebianFiles) -> None:
    """Adds the copyright file of every package that something in `root` is from.

    An image that is pushed is a distribution of what is in it. A package may keep its copyright
    file in another package's folder and link there; that one then has a file in the root, too.
    """
    waiting = sorted(root.origins() & debian.paragraphs.keys())
    while waiting:
        name = waiting.pop()
        folder = debian.entries.get(f"{_DOCUMENTS}/{name}")
        if folder is not None and folder.target is not None:
            root.add_entry(f"{_DOCUMENTS}/{name}", folder)
            waiting.append(PurePosixPath(folder.target).name)
            continue
        path = f"{_DOCUMENTS}/{name}/copyright"
        if path not in debian.entries:
            sys.exit(f"No package has {path}, and an image without it may not be passed on.")
        root.add_entry(path, debian.entries[path])


def _follow(path: str, target: str) -> str:
    """Returns the path that a link at `path` leads to, inside the root."""
    parts: list[str] = []
    for part in (PurePosixPath("/", path).parent / target).parts[1:]:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
