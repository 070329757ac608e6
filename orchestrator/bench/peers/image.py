"""Makes the image that peers run in: the root of the sandbox image, and what peers expect beside.

Without it a peer would be measured with another Python and another libc, or would need a container
registry, which not every machine reaches.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orchestrator.bench.peers.environment import fetch_pure_packages
from orchestrator.sandbox.image_store import ImageStore

#: Of the interpreter in the sandbox image.
IMAGE_PYTHON: Final = "3.13"
#: What the container of one peer installs in itself, pinned and for all peers alike.
_PACKAGES: Final = ("dill==0.4.1", "requests==2.34.2")
_REPOSITORY = "rlm-sandbox-bench-peers"
_SITE = "usr/lib/python3/dist-packages"
# The image has no `tail`, and a peer keeps its container with `tail -f /dev/null`.
_TAIL = f"""\
#!/usr/bin/python{IMAGE_PYTHON}
import signal
signal.pause()
"""
_CHANGES = ("ENV PATH=/usr/bin", "USER 0", "WORKDIR /")


def ensure_peer_image(
    store: ImageStore, base_image_id: str, *, python: Path, report: Callable[[str], None]
) -> str:
    """Returns the name of the peers' image, having made it where the engine has none.

    It has none of the labels of a sandbox image, so that no sandbox ever starts from it.

    Args:
        store: The engine's images.
        base_image_id: The sandbox image.
        python: An interpreter with pip, which fetches the packages.
        report: Told before it is made.

    Raises:
        PeerFailedError: The packages could not be had.
        SandboxStartError: The engine refused.
    """
    recipe = "\n".join((base_image_id, *_PACKAGES, _TAIL, *_CHANGES))
    tag = f"{_REPOSITORY}:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if store.has(tag):
        return tag
    report(f"Making the peers' image {tag} from the sandbox image (once for each)")
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as root:
        target = Path(scratch) / "packages"
        fetch_pure_packages(python, _PACKAGES, target=target, for_python=IMAGE_PYTHON)
        with store.export(base_image_id) as exported:
            root.writelines(exported)
        root.seek(0)
        with tarfile.open(fileobj=root, mode="a") as archive:
            _add_packages(archive, target)
            _add_link(archive, "usr/bin/python", f"python{IMAGE_PYTHON}")
            _add_program(archive, "usr/bin/tail", _TAIL.encode())
        root.seek(0)
        store.import_root(root, tag=tag, changes=_CHANGES)
    return tag


def _add_packages(archive: tarfile.TarFile, folder: Path) -> None:
    """Adds a folder's content to the image's packages; engines refuse a name that comes twice."""
    known = {member.name.rstrip("/") for member in archive}
    for path in sorted(folder.rglob("*")):
        name = f"{_SITE}/{path.relative_to(folder).as_posix()}"
        if name not in known:
            archive.add(path, arcname=name, recursive=False, filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, target, 0o777
    archive.addfile(link)


def _add_program(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o755
    archive.addfile(member, io.BytesIO(data))
