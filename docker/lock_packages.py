"""Writes packages.lock anew: the newest Debian packages of the image, for every architecture.

Run by `make lock`. It downloads and unpacks them, because only then it is known which of them
anything goes in from.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import tempfile
from pathlib import Path

from assembly import MACHINES, assemble, reduce_lock
from build_tools import say
from debian_archive import SUITE, Archive, find_sources
from debian_files import unpack
from package_choice import fetch_newest
from package_lock import PackageLock, format_lock, parse_lock
from python_wheels import fetch_wheels

_HERE = Path(__file__).parent


def main() -> None:
    """Writes the lock beside this file."""
    with tempfile.TemporaryDirectory(prefix="rlm-lock-") as scratch:
        locks = [_lock(architecture, Path(scratch, architecture)) for architecture in MACHINES]
    lock = PackageLock(
        suite=SUITE,
        moment=max(lock.moment for lock in locks),
        packages={name: listed for lock in locks for name, listed in lock.packages.items()},
    )
    path = _HERE / "packages.lock"
    if path.exists() and parse_lock(path.read_text("utf-8")).packages == lock.packages:
        say("packages.lock has the newest packages; left as it is")  # and so is everybody's image
        return
    path.write_text(format_lock(lock), "utf-8")
    for name, listed in lock.packages.items():
        say(f"{name}: {len(listed)} packages, as of {lock.moment:%Y-%m-%d}")


def _lock(architecture: str, scratch: Path) -> PackageLock:
    (scratch / "archive").mkdir(parents=True)
    scratch.chmod(0o755)
    scratch.parent.chmod(0o755)  # for apt's own user; nothing in it is anybody's secret
    archive = Archive(scratch / "archive", architecture=architecture, sources=find_sources())
    archive.update()
    fetched = fetch_newest(archive, architecture=architecture, scratch=scratch)
    fetch_wheels(_HERE / "requirements.lock", scratch / "wheels", machine=MACHINES[architecture])
    root = assemble(
        unpack(fetched.debs), wheels=scratch / "wheels", packages=(), architecture=architecture
    )
    return reduce_lock(fetched.lock, root, architecture=architecture)


if __name__ == "__main__":
    main()
