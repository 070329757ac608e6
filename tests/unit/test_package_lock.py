"""The lock of the image's Debian packages: what it says, and that nothing else can stand in it."""

from datetime import UTC, datetime

import pytest
from support.build_scripts import FOLDER, load

locks = load("package_lock")

SHA256 = "a" * 64
LOCK = f"""\
suite trixie
moment 2026-01-02T03:04:05Z

[amd64]
base-files 13.8+deb13u7 sha256:{SHA256}
zlib1g 1:1.3.dfsg+really1.3.1-1 sha256:{SHA256}
"""


def test_lock_of_the_tree_is_as_written() -> None:
    """The lock in use is what `make lock` writes: nothing was changed in it by hand."""
    text = (FOLDER / "packages.lock").read_text("utf-8")

    assert locks.format_lock(locks.parse_lock(text)) == text


def test_lock_has_both_architectures_with_the_same_packages() -> None:
    """No architecture is left to whatever its mirror has, and neither lacks a package."""
    lock = locks.parse_lock((FOLDER / "packages.lock").read_text("utf-8"))

    names = [{package.name for package in lock.of(name)} for name in ("amd64", "arm64")]

    assert names[0] == names[1]
    assert {"libc6", "python3.13-minimal", "tzdata"} <= names[0]


def test_lock_is_read() -> None:
    """Name, version with its epoch, hash and moment are what the text says."""
    lock = locks.parse_lock(LOCK)

    assert lock.moment == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert [str(package) for package in lock.of("amd64")] == [
        "base-files=13.8+deb13u7",
        "zlib1g=1:1.3.dfsg+really1.3.1-1",
    ]
    assert {package.sha256 for package in lock.of("amd64")} == {SHA256}


@pytest.mark.parametrize(
    "line",
    [
        "libc6 2.41",
        f"libc6 2.41 sha256:{SHA256[:-1]}",
        f"libc6 2.41 md5:{SHA256}",
        f"--option 2.41 sha256:{SHA256}",
        f"libc6 2.41;reboot sha256:{SHA256}",
        f"libc6/evil 2.41 sha256:{SHA256}",
        f"libc6 2.41 sha256:{SHA256} ",
    ],
)
def test_line_of_another_form_is_refused(line: str) -> None:
    """A line without a hash, or that could mean something to apt, ends the build."""
    with pytest.raises(ValueError, match="expected `name version sha256:…`"):
        locks.parse_lock(f"{LOCK}{line}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        LOCK.replace("suite trixie\n", ""),
        LOCK.replace("moment", "time"),
        LOCK.partition("[amd64]")[0],
        LOCK + "[arm64]\n",
    ],
)
def test_incomplete_lock_is_refused(text: str) -> None:
    """A lock that was cut off is not a lock of fewer packages."""
    with pytest.raises(ValueError, match="package lock"):
        locks.parse_lock(text)


def test_machine_without_a_section_is_told_so() -> None:
    """An architecture that nobody locked is an error with a way on, not an empty list."""
    with pytest.raises(ValueError, match=r"for amd64, and this machine is riscv64.*newest"):
        locks.parse_lock(LOCK).of("riscv64")
