"""What goes into the image's root, decided without building one."""

import sys
from pathlib import Path

import pytest
from support.build_scripts import load

layout = load("root_layout")
elf = load("elf_needs")


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/python3.13",
        "usr/lib/python3.13/json/decoder.py",
        "usr/lib/python3.13/lib-dynload/_ctypes.cpython-313-x86_64-linux-gnu.so",
        "usr/share/zoneinfo/Europe/Berlin",
        "usr/share/common-licenses/GPL-3",
    ],
)
def test_what_cells_and_scanners_need_is_kept(path: str) -> None:
    """The interpreter, its library, time zones and licences go in."""
    assert layout.is_kept(path)


@pytest.mark.parametrize(
    "path",
    [
        "bin/sh",
        "usr/bin/dash",
        "usr/bin/mawk",
        "usr/bin/debconf",
        "usr/sbin/ldconfig",
        "etc/apt/sources.list",
        "usr/lib/python3.13/ensurepip/__init__.py",
        "usr/lib/python3.13/test/support/__init__.py",
        "usr/lib/python3.13/lib-dynload/_testcapi.cpython-313-x86_64-linux-gnu.so",
        "usr/share/doc/libc6/changelog.Debian.gz",
        "usr/share/doc/debconf/copyright",  # added for what something goes in from, by name
        "usr/share/man/man1/python3.13.1.gz",
        "something/nobody/thought/of",
    ],
)
def test_everything_else_stays_out(path: str) -> None:
    """What is not on the list is not in the image, known or not."""
    assert not layout.is_kept(path)


def test_modes_are_assigned() -> None:
    """Only programs and the loader are executable, whatever mode a package gave its files."""
    root = layout.Root()
    for path in ("usr/bin/python3.13", "usr/lib/t/ld-linux-x.so.2", "usr/lib/t/libc.so.6"):
        root.add_file(path, b"", origin="x")

    modes = {path: entry.mode for path, entry in root.in_order() if not entry.is_directory}
    assert modes == {
        "usr/bin/python3.13": 0o755,
        "usr/lib/t/ld-linux-x.so.2": 0o755,
        "usr/lib/t/libc.so.6": 0o644,
    }


def test_directories_come_before_what_is_in_them() -> None:
    """The order of the tar does not depend on the order in which files were added."""
    first, second = layout.Root(), layout.Root()
    paths = ["a/b/c", "a/x", "a.b/c"]
    for path in paths:
        first.add_file(path, b"", origin="x")
    for path in reversed(paths):
        second.add_file(path, b"", origin="x")

    names = [path for path, _ in first.in_order()]
    assert names == [path for path, _ in second.in_order()]
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")


def test_interpreter_names_its_loader_and_its_libraries() -> None:
    """A program's needs are read from the file itself, as the loader will read them."""
    needs = elf.read_needs(Path(sys.executable).resolve().read_bytes())

    assert Path(needs.interpreter).exists()
    assert "libc.so.6" in needs.libraries


def test_needs_are_followed_to_the_end() -> None:
    """A library that only another library needs is found too."""
    program = Path(sys.executable).resolve().read_bytes()
    asked: list[str] = []

    def find(wanted: str) -> tuple[str, bytes]:
        asked.append(wanted)
        return f"lib/{wanted}", program

    found = elf.close_over({"bin/python": program}, find=find)

    needs = elf.read_needs(program)
    assert set(found) == {f"lib/{name}" for name in (*needs.libraries, needs.interpreter)}
    assert len(asked) == (len(found) + 1) * len(found)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(64)])
def test_other_files_are_not_read_as_elf(data: bytes) -> None:
    """A script, or a program for another word size, is an error and not a file without needs."""
    with pytest.raises(ValueError, match="expected a 64-bit little-endian ELF file"):
        elf.read_needs(data)
