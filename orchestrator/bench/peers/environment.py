"""Installs a peer into a virtual environment of its own, once.

Without it a peer's packages would have to agree with this project's, which they do not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.bench.peers.peer import Peer
from orchestrator.bench.peers.process import PeerFailedError

_INSTALL_S = 900.0  # one of them brings a hundred packages
_SHOWN_CHARS = 600


def ensure_environment(peer: Peer, folder: Path, report: Callable[[str], None]) -> Path:
    """Returns the interpreter of a peer's environment, having made it where it is not there.

    Args:
        peer: What is installed in it.
        folder: Where environments are kept; each has a name of its own there.
        report: Told before something is installed.

    Raises:
        PeerFailedError: It could not be made; there is no package index, for instance.
    """
    home = folder / peer.requirement.replace("==", "-")
    python, stamp = home / "bin" / "python", home / "installed"
    if stamp.is_file() and stamp.read_text("utf-8") == _stamp(peer):
        return python
    report(f"Installing {peer.requirement} into an environment of its own, {home} (once)")
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(home)])
    quiet = ["--quiet", "--disable-pip-version-check"]
    _run([str(python), "-m", "pip", "install", *quiet, peer.requirement])
    stamp.write_text(_stamp(peer), "utf-8")
    return python


def fetch_pure_packages(
    python: Path, requirements: tuple[str, ...], *, target: Path, for_python: str
) -> None:
    """Installs packages that have no compiled part into a folder, for another Python than ours.

    Raises:
        PeerFailedError: They could not be had.
    """
    _run(
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--target", str(target), "--python-version", for_python, "--implementation", "py"),
            *("--abi", "none", "--platform", "any", "--only-binary", ":all:", "--no-compile"),
            *requirements,
        ]
    )


def _stamp(peer: Peer) -> str:
    return f"{peer.requirement} {sys.version}\n"


def _run(command: list[str]) -> None:
    try:
        ended = subprocess.run(  # noqa: S603 - this interpreter, and pip
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailedError(f"it could not be installed: {error}") from error
    if ended.returncode:
        words = (ended.stderr or ended.stdout).strip()[-_SHOWN_CHARS:]
        raise PeerFailedError(f"it could not be installed: {words}")
