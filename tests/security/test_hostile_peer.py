"""A container that holds no worker at all, but a client that attacks the broker in bare HTTP/2.

It is the product's own container but for what runs in it: after the first cell that is what a
worker may have become. Every attack is tried on a plain endpoint as well, and some that take long:
`tests/integration/test_hostile_peer_on_host.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from support.broker_host import EchoQueries, until
from support.docker_sandboxes import Weakening, open_provider
from support.hostile_peer import SOURCE, claimed_hello, hello_message
from support.probes import goes_on, probe

from orchestrator.domain import QueryAnswer, QueryRequest
from orchestrator.errors import ProtocolViolationError, SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Each attack, and the rule that names it.
ATTACKS = {
    "ping_flood": "too many PING frames",
    "settings_flood": "too many SETTINGS frames",
    "rapid_reset": "streams are given up for each message|too many streams",
    "unfinished_streams": "streams are open at once",
    "continuation_flood": "a header block has at most 8,192 bytes",
    "message_of_4_gib": "this one announces 4,294,967,295",
    "message_over_the_cap": "this one announces 4,194,305",
    "one_byte_data": "a message comes in few pieces",
    "empty_data": "too many empty DATA frames",
    "connection_flood": "at most 4 connections at once",
    # Whichever comes first: a slow attacker's are answered as fast as it asks.
    "never_reading": "streams are open at once|a query id is used once",
    "http_1": "begins with HTTP/2's preface",
}
#: Attacks that go on and on where nothing but gRPC's own server is dialled.
CONTROLS = ("settings_flood", "continuation_flood", "connection_flood")
#: A cell that asks until it is told to stop, and tells how often it asked and waited at most.
ASK_ON = """
count, longest_s, answer = 0, 0.0, ""
while answer != "stop":
    begun_s = time.monotonic()
    answer = llm_query(f"{count}?")
    longest_s = max(longest_s, time.monotonic() - begun_s)
    count += 1
tell([count, longest_s])
"""
GROWTH_BYTES = 32 * 2**20
#: Longest that a neighbour may wait for one answer: generous, because machines are noisy. What the
#: attacks cost a neighbour is measured in `tests/performance/hostile_neighbour.py`.
LONGEST_S = 5.0
_PATIENCE_S = "2.0"


class Metronome:
    """Answers at once, until it is told to have the asker stop."""

    def __init__(self) -> None:
        """Begins with nothing asked."""
        self.is_over = False
        self.answered_count = 0

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        self.answered_count += 1
        return ["stop" if self.is_over else "go on"] * len(request.prompts)


def attacker(attack: str, sandbox: Sandbox, *, share: float = 1.0) -> list[str]:
    """Returns what to run in a container in the worker's place.

    It claims to have found what the worker of `sandbox`, an honest one of the same kind, did find.
    """
    said = hello_message(claimed_hello(sandbox.controls.walls)).hex()
    return [
        *("/usr/bin/python3.13", "-I", "-c", SOURCE, "/run/rlm/broker.sock", "/run/rlm/token"),
        *(said, attack, str(share), _PATIENCE_S),
    ]


def held_by_this_side() -> tuple[int, int]:
    """Returns bytes and descriptors of this process and of those it has started."""
    here = psutil.Process()
    processes = [here, *here.children(recursive=True)]
    found = [(each.memory_info().rss, each.num_fds()) for each in processes]
    return sum(size for size, _ in found), sum(count for _, count in found)


async def attack_once(weakening: Weakening) -> Exception | None:
    """Opens a sandbox that attacks, and returns what its user is told."""
    async with open_provider(weakening=weakening) as hostile:
        try:
            async with hostile.open(EchoQueries()) as sandbox:
                await sandbox.run_cell("1", timeout_s=20)
        except (ProtocolViolationError, SandboxLostError) as error:
            return error
    return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbour(provider: SandboxProvider) -> AsyncIterator[tuple[Sandbox, Metronome]]:
    """An honest sandbox, and who answers it."""
    metronome = Metronome()
    async with provider.open(metronome) as sandbox:
        yield sandbox, metronome


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attack_costs_its_sandbox_and_nobody_else(
    neighbour: tuple[Sandbox, Metronome], attack: str
) -> None:
    """The attacker is ended by the rule it broke; a neighbour's queries are all answered in time.

    This side grows by little, and holds nothing of it afterwards.
    """
    sandbox, metronome = neighbour
    metronome.is_over = False
    asking = asyncio.create_task(probe(sandbox, ASK_ON, timeout_s=60))
    answered_before = metronome.answered_count
    await until(lambda: metronome.answered_count > answered_before + 10)
    bytes_before, descriptors_before = held_by_this_side()

    def run_the_attacker(config: dict[str, Any]) -> None:
        config |= {"Entrypoint": attacker(attack, sandbox), "Cmd": []}

    try:
        error = await attack_once(Weakening(change=run_the_attacker))
    finally:
        metronome.is_over = True
        count, longest_s = await asking

    assert isinstance(error, ProtocolViolationError), error
    with pytest.raises(ProtocolViolationError, match=ATTACKS[attack]):
        raise error
    assert count > 10
    assert longest_s < LONGEST_S
    assert held_by_this_side()[0] - bytes_before < GROWTH_BYTES
    await until(lambda: held_by_this_side()[1] <= descriptors_before)


@pytest.mark.parametrize("attack", CONTROLS)
async def test_attack_past_the_gate_control(
    neighbour: tuple[Sandbox, Metronome], attack: str
) -> None:
    """The same container goes on and on at the server itself, once the gate is no longer between.

    The attacker's own words, the last that the container logged, say that nobody closed on it.
    """

    def dial_the_server(config: dict[str, Any]) -> None:
        [bind] = config["HostConfig"]["Binds"]
        shown = Path(bind.partition(":")[0])
        [server_socket] = shown.parent.glob("*/s")
        server_socket.chmod(0o666)
        server_socket.parent.chmod(0o755)
        command = attacker(attack, neighbour[0], share=0.05)
        command[command.index("/run/rlm/broker.sock")] = "/run/rlm/s"
        command[command.index("/run/rlm/token")] = (shown / "token").read_text()
        config |= {"Entrypoint": command, "Cmd": []}
        config["HostConfig"]["Binds"] = [f"{server_socket.parent}:/run/rlm:ro"]

    error = await attack_once(Weakening(change=dial_the_server))

    assert isinstance(error, SandboxLostError), error
    assert '"is_closed": false' in str(error)


async def test_neighbour_has_lost_nothing(neighbour: tuple[Sandbox, Metronome]) -> None:
    """After all of it the neighbour's cells run, and keep what they bind."""
    sandbox, _ = neighbour
    await probe(sandbox, "sign = 'of life'\ntell(None)")

    assert await probe(sandbox, "tell(sign)") == "of life"


async def test_honest_container_control(provider: SandboxProvider) -> None:
    """A sandbox of the same definition with its own worker in it breaks no rule."""
    async with provider.open(EchoQueries()) as sandbox:
        assert await goes_on(sandbox)
