"""What is found wrong with an image by its names."""

from dataclasses import replace

import pytest

from orchestrator.sandbox.image_listing import ListedEntry, find_faults

SITE = "usr/lib/python3/dist-packages"


def file(path: str, *, mode: int = 0o644) -> ListedEntry:
    return ListedEntry(path=path, mode=mode, uid=0, gid=0, is_file=True)


def folder(path: str, *, mode: int = 0o755) -> ListedEntry:
    return ListedEntry(path=path, mode=mode, uid=0, gid=0, is_directory=True)


SOUND = (
    file("usr/bin/python3.13", mode=0o755),
    file("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", mode=0o755),
    file(f"{SITE}/grpc/__init__.py"),
    file(f"{SITE}/rlm_sandbox/__init__.py"),
    file(f"{SITE}/sandbox_image/__init__.py"),
    folder("run/rlm"),
    folder("tmp", mode=0o1777),
    file("etc/resolv.conf", mode=0o755),
    ListedEntry(path="lib", mode=0o777, uid=0, gid=0, is_link=True),
)


def test_sound_image_has_no_faults() -> None:
    """The control: what the build makes, with what the engine adds, is accepted."""
    assert find_faults(SOUND) == []


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (file("usr/bin/dash", mode=0o755), "is executable"),
        (ListedEntry(path="bin/sh", mode=0o777, uid=0, gid=0, is_link=True), "folder of programs"),
        (file("usr/lib/python3.13/config.sh", mode=0o744), "is executable"),
        (folder(f"{SITE}/pip"), "installs packages"),
        (folder("usr/lib/python3.13/ensurepip"), "installs packages"),
        (file("usr/lib/x", mode=0o4644), "set-user-id"),
        (file("usr/lib/x", mode=0o2644), "set-group-id"),
        (file("usr/lib/x", mode=0o666), "writable by everybody"),
        (folder("var/tmp", mode=0o1777), "writable by everybody"),
        (ListedEntry(path="dev/sda", mode=0o644, uid=0, gid=0), "is a device"),
        (replace(file("usr/lib/x"), uid=10001), "other than root"),
    ],
)
def test_what_must_not_be_in_is_named(entry: ListedEntry, fault: str) -> None:
    """One wrong name is one fault, with its path and what is wrong with it."""
    faults = find_faults((*SOUND, entry))

    assert any(line.startswith(entry.path) and fault in line for line in faults)


@pytest.mark.parametrize(
    "missing", ["usr/bin/python3.13", f"{SITE}/sandbox_image/__init__.py", "tmp"]
)
def test_what_must_be_in_is_missed(missing: str) -> None:
    """An image without its interpreter, its worker or its mount points is refused."""
    assert find_faults([entry for entry in SOUND if entry.path != missing]) == [
        f"{missing} is missing"
    ]
