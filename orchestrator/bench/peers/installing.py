"""Makes peers ready to be measured on this machine, or says why one cannot be.

Without it a machine without a package index would have no report at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.bench.peers.environment import ensure_environment
from orchestrator.bench.peers.image import ensure_peer_image
from orchestrator.bench.peers.peer import PEERS
from orchestrator.bench.peers.process import PeerFailedError, ReadyPeer
from orchestrator.errors import SandboxError
from orchestrator.sandbox.image_store import ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPeers:
    """What came of making peers ready.

    Attributes:
        ready: Those that can be measured.
        states: What each is and what was changed of it, or why it cannot be measured, by name.
    """

    ready: Sequence[ReadyPeer]
    states: Mapping[str, str]


def install_peers(
    *, endpoint: str, image_id: str, folder: Path, report: Callable[[str], None]
) -> InstalledPeers:
    """Installs each peer and the image they run in, as far as this machine can.

    Args:
        endpoint: Where the engine listens.
        image_id: The sandbox image, whose root theirs is made from.
        folder: Where what is made once is kept.
        report: Told before something is installed.
    """
    if shutil.which("docker") is None:
        why = "not measured: peers start containers with the program `docker`, which is not here"
        return InstalledPeers(ready=(), states={peer.name: why for peer in PEERS})
    ready: list[ReadyPeer] = []
    states: dict[str, str] = {}
    for peer in PEERS:
        try:
            python = ensure_environment(peer, folder, report)
            with ImageStore(endpoint) as store:
                image = ensure_peer_image(store, image_id, python=python, report=report)
        except (PeerFailedError, SandboxError, OSError) as error:
            states[peer.name] = f"not measured: {error}"
            report(f"{peer.name} is not measured: {error}")
            continue
        scratch = folder / "scratch" / peer.name
        scratch.mkdir(parents=True, exist_ok=True)
        ready.append(ReadyPeer(peer=peer, python=python, image=image, scratch=scratch))
        states[peer.name] = (
            f"{peer.requirement}; does without: {peer.lacks}; changed here: {peer.changed}"
        )
    return InstalledPeers(ready=tuple(ready), states=states)
