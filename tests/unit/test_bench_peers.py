"""Peers are driven in processes of their own, and what goes wrong with one is said."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bench.peers.environment import ensure_environment
from orchestrator.bench.peers.installing import install_peers
from orchestrator.bench.peers.peer import PEERS, Peer
from orchestrator.bench.peers.process import DRIVERS, PeerFailedError, ReadyPeer, open_peer

ADAPTER = """
from pathlib import Path
print("what a peer prints is no answer")
VERSION = "1.2.3"

class Session:
    def __init__(self, order):
        print("nor this")
        if order["context_chars"] > 99:
            raise MemoryError("too much")
        self.context = "x" * order["context_chars"]
        self.order = order

    def run(self, source):
        if source == "end":
            import os
            os._exit(3)
        return str(eval(source, {"context": self.context, "order": self.order}))

    def close(self):
        with Path("closed").open("a") as stream:
            stream.write("closed\\n")
"""


@pytest.fixture
def ready(tmp_path: Path) -> ReadyPeer:
    adapter = tmp_path / "adapter.py"
    adapter.write_text(ADAPTER)
    return ReadyPeer(
        peer=peer_of(adapter=str(adapter)),
        python=Path(sys.executable),
        image="an-image",
        scratch=tmp_path,
    )


def peer_of(*, adapter: str = "adapter.py", requirement: str = "a-peer==1") -> Peer:
    return Peer(
        name="a peer",
        requirement=requirement,
        adapter=adapter,
        lacks="everything",
        cells_a_turn=1,
        queries_a_turn=1,
        changed="nothing",
    )


def closed_count(ready: ReadyPeer) -> int:
    file = ready.scratch / "closed"
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_peer_carries_out_orders_and_is_closed(ready: ReadyPeer) -> None:
    """Orders are answered one by one; a sandbox is ended when its session is, once."""
    async with open_peer(ready) as session:
        opened_s = await session.open(image="an-image", memory_bytes=1, context_chars=7)
        took_s, printed = await session.run("len(context)", count=3)
        _, image = await session.run("order['image']")
        assert session.version == "1.2.3"
        assert closed_count(ready) == 0

    assert opened_s > 0
    assert (len(took_s), printed, image) == (3, "7", "an-image")
    assert closed_count(ready) == 1


async def test_peer_can_be_opened_again(ready: ReadyPeer) -> None:
    """One process measures several starts: each sandbox is ended before the next."""
    async with open_peer(ready) as session:
        for _ in range(2):
            await session.open(image="an-image", memory_bytes=1)
            await session.close()

    assert closed_count(ready) == 2


async def test_what_a_peer_raises_is_told_and_it_goes_on(ready: ReadyPeer) -> None:
    """An order that fails is an error with the peer's own words; the next one is answered."""
    async with open_peer(ready) as session:
        with pytest.raises(PeerFailedError, match="MemoryError: too much"):
            await session.open(image="an-image", memory_bytes=1, context_chars=100)
        await session.open(image="an-image", memory_bytes=1)
        with pytest.raises(PeerFailedError, match="ZeroDivisionError"):
            await session.run("1 / 0")
        assert (await session.run("6 * 7"))[1] == "42"


async def test_peer_that_dies_is_an_error_and_no_wait(ready: ReadyPeer) -> None:
    """A process that ends in mid-order is noticed at once."""
    async with open_peer(ready) as session:
        await session.open(image="an-image", memory_bytes=1)
        with pytest.raises(PeerFailedError, match="it ended"):
            await session.run("end")


async def test_peer_that_does_not_start_says_why(ready: ReadyPeer) -> None:
    """A peer whose package is not there is an error with Python's own words."""
    peer = replace(ready.peer, adapter="rlms.py")

    with pytest.raises(PeerFailedError, match="No module named 'rlm'"):
        async with open_peer(replace(ready, peer=peer)):
            pass


def test_each_peer_has_its_adapter() -> None:
    """Every peer is pinned, has an adapter, and says what it lacks and what was changed."""
    for peer in PEERS:
        assert (DRIVERS / peer.adapter).is_file()
        assert "==" in peer.requirement
        assert peer.lacks
        assert peer.changed


def test_environment_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """What was installed once, by the same Python, is used."""
    home = tmp_path / "a-peer-1"
    home.mkdir()
    (home / "installed").write_text(f"a-peer==1 {sys.version}\n")
    said: list[str] = []

    assert ensure_environment(peer_of(), tmp_path, said.append) == home / "bin" / "python"
    assert said == []


@pytest.mark.slow
def test_environment_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """What pip refuses is an error with its words, and nothing counts as installed."""
    peer = peer_of(requirement="not a requirement")

    with pytest.raises(PeerFailedError, match="could not be installed"):
        ensure_environment(peer, tmp_path, lambda _sentence: None)

    assert list(tmp_path.glob("*/installed")) == []


def test_machine_without_the_engines_program_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where peers cannot start containers the report says so of each, and nothing is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))

    found = install_peers(
        endpoint="unix:///nowhere.sock", image_id="", folder=tmp_path, report=print
    )

    assert found.ready == ()
    assert set(found.states) == {peer.name for peer in PEERS}
    assert all("not measured" in state for state in found.states.values())
    assert list(tmp_path.iterdir()) == []
