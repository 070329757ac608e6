"""What attacks on one sandbox's socket cost a neighbour, with the gate and without.

Run it by hand; it prints JSON. Broker, gate and servers are in this one process, which is the worst
case; attacker and neighbour are processes. A round has the neighbour ask without a pause while an
attacker attaches and does nothing, and then while another one attacks, for two seconds at least.
`ratio` is the neighbour's p99 under attack over its p99 beside the idle one.

    python tests/performance/hostile_neighbour.py [--rounds 5] [ATTACK …]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from performance.gate_cost import Peer, open_peer
from support.broker_host import short_directory
from support.hostile_peer import open_target, strike

#: Those of which a default server was measured, and what became of memory.
_ATTACKS = (
    "ping_flood",
    "settings_flood",
    "rapid_reset",
    "unfinished_streams",
    "continuation_flood",
    "one_byte_data",
    "empty_data",
    "connection_flood",
    "message_over_the_cap",
    "never_reading",
    "held_messages",
)
_BLOCK = 10
_LINGER_S = 0.3
#: How long a neighbour asks at least. An attack that is ended at once is over long before, and that
#: it is over is what the neighbour has of it.
_WINDOW_S = 2.0


async def ask_during(peer: Peer, attack: str, *, past_the_gate: bool) -> tuple[list[float], int]:
    """Returns how long a neighbour's queries took while an attack ran, and this side's growth."""
    async with open_target() as target:
        attacking = asyncio.create_task(
            strike(target, attack, past_the_gate=past_the_gate, patience_s=_LINGER_S)
        )
        took_s: list[float] = []
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _WINDOW_S
        while not attacking.done() or loop.time() < end_s:
            await peer.tell(do="ask", count=_BLOCK, chars=200)
            took_s += (await peer.hear())["took_s"]
        return took_s, (await attacking).growth_bytes


async def compare(
    peer: Peer, attack: str, *, past_the_gate: bool, round_count: int
) -> dict[str, Any]:
    """Returns what an attack costs a neighbour, measured in turn with what an idle peer costs."""
    idle_s: list[float] = []
    attacked_s: list[float] = []
    growth_bytes = 0
    for _ in range(round_count):
        idle_s += (await ask_during(peer, "nothing", past_the_gate=past_the_gate))[0]
        found_s, grown = await ask_during(peer, attack, past_the_gate=past_the_gate)
        attacked_s += found_s
        growth_bytes = max(growth_bytes, grown)
    idle_p99_s, attacked_p99_s = (
        statistics.quantiles(found, n=100)[98] for found in (idle_s, attacked_s)
    )
    return {
        "p50_ms": [round(statistics.median(found) * 1e3, 2) for found in (idle_s, attacked_s)],
        "p99_ms": [round(idle_p99_s * 1e3, 2), round(attacked_p99_s * 1e3, 2)],
        "longest_ms": [round(max(found) * 1e3, 1) for found in (idle_s, attacked_s)],
        "ratio": round(attacked_p99_s / idle_p99_s, 2),
        "growth_mib": round(growth_bytes / 2**20, 1),
        "queries": [len(idle_s), len(attacked_s)],
    }


async def examine(attack: str, *, round_count: int) -> dict[str, Any]:
    """Returns what an attack costs with the gate and without, with a neighbour of its own.

    A sandbox makes 65,536 queries in its life, and a neighbour of all attacks would make more.
    """
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(short_directory())
        peer = await stack.enter_async_context(open_peer(directory, with_gate=True))
        await peer.tell(do="cell")
        cell = asyncio.create_task(peer.attachment.run_cell("pass", timeout_s=1e6))
        await peer.hear()
        found = {
            name: await compare(peer, attack, past_the_gate=past_the_gate, round_count=round_count)
            for name, past_the_gate in (("with", False), ("without", True))
        }
        await peer.hang_up()
        await asyncio.wait({cell})
        cell.exception()
        return found


async def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=_ATTACKS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.ERROR)  # each attack says that it was one
    report: dict[str, Any] = {"load_before": os.getloadavg()[0], "attacks": {}}
    for attack in options.attacks:
        report["attacks"][attack] = await examine(attack, round_count=options.rounds)
    report["load_after"] = os.getloadavg()[0]
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
