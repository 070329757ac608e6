"""Measures what a checkpoint after each cell costs: time of cells, and memory.

Not a test: figures depend on the machine and on what else it does. Two sandboxes are measured by
turns in one run: one leaves a checkpoint after each cell, the other cannot, because a thread of a
cell lives in it.

    python tests/performance/checkpoint_cost.py [--runtime runc|gvisor] [--rounds 30] > figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.broker_host import EchoQueries
from support.docker_sandboxes import container_id_of, engine_client, open_provider
from support.runtimes import GVISOR, RUNC, tested_under

from orchestrator.context import encode_context
from orchestrator.domain import Outcome
from orchestrator.limits import SandboxLimits
from orchestrator.ports import Sandbox

MIB = 2**20
WITHOUT = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
#: What a session holds, by name: the cell that makes it, and one that goes through all of it.
HOLDINGS = {
    "nothing": ("pass", "pass"),
    "100 MB of text, read": (
        "text = 'x' * 10**8",
        "found = text.count('y')",
    ),
    "1,000,000 numbers in a list, read": (
        "numbers = list(range(10**6, 2 * 10**6))",
        "found = sum(numbers)",
    ),
    "100 MB, written to": (
        "block = bytearray(10**8)",
        "for place in range(0, len(block), 4096): block[place] += 1",
    ),
}
PAUSE_S = 0.05  # a root model takes seconds between two cells


async def cell_s(sandbox: Sandbox, source: str) -> float:
    """Runs a cell and returns how long it took, as its caller sees it."""
    begun_s = time.perf_counter()
    result = await sandbox.run_cell(source, timeout_s=120)
    took_s = time.perf_counter() - begun_s
    assert result.outcome is Outcome.SUCCEEDED, result
    return took_s


def used_mib(sandbox: Sandbox) -> float:
    """Returns what the container's processes hold, files that could be given back left out."""
    client = engine_client()
    try:
        stats = client.api.stats(container_id_of(sandbox), stream=False, one_shot=True)
    finally:
        client.close()
    memory = stats["memory_stats"]
    figures = memory.get("stats", {})
    cached = figures.get("total_inactive_file", figures.get("inactive_file", 0))
    return round(float(memory["usage"] - cached) / MIB, 1)


async def measure(rounds: int) -> dict[str, object]:
    """Returns the figures of one runtime."""
    figures: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(
            open_provider(sandbox=SandboxLimits(memory_bytes=2**30))
        )
        sandboxes: dict[str, Sandbox] = {}
        for name in ("with", "without"):
            sandboxes[name] = await stack.enter_async_context(provider.open(EchoQueries()))
            await sandboxes[name].bind_context("context", encode_context("a context"))
        await cell_s(sandboxes["without"], WITHOUT)
        for pause_s, what in ((PAUSE_S, "with pauses"), (0.0, "back to back")):
            times: dict[str, list[float]] = {name: [] for name in sandboxes}
            for _ in range(rounds):
                for name, sandbox in sandboxes.items():
                    for _ in range(5):
                        await asyncio.sleep(pause_s)
                        times[name].append(await cell_s(sandbox, "pass"))
            figures[f"empty cell {what}, median ms"] = {
                name: round(1e3 * statistics.median(found), 3) for name, found in times.items()
            }
        for holding, (make, go_through) in HOLDINGS.items():
            used: dict[str, list[float]] = {}
            for name in sandboxes:
                sandbox = await stack.enter_async_context(provider.open(EchoQueries()))
                if name == "without":
                    await cell_s(sandbox, WITHOUT)
                await cell_s(sandbox, make)
                await asyncio.sleep(0.2)
                made_mib = used_mib(sandbox)
                await cell_s(sandbox, go_through)
                await asyncio.sleep(0.2)
                used[name] = [made_mib, used_mib(sandbox)]
            figures[f"{holding}, MiB at rest and after a cell went through it"] = used
    return figures


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=[RUNC.setting, GVISOR.setting], default=RUNC.setting)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tested_under(GVISOR if arguments.runtime == GVISOR.setting else RUNC):
        json.dump(asyncio.run(measure(arguments.rounds)), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
