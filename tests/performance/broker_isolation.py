"""Measures what a broker in a process of its own costs, beside one in the orchestrator's.

Not a test: figures depend on the machine and on what else it does. The ways are measured by turns
in one run, so that a load that comes and goes is in all of them. The worker is the real one, as a
plain process; the sub-model is an echo.

    python tests/performance/broker_isolation.py [--rounds 20] [--large-mb 400] > figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from performance.shared_process import open_shared_process
from support.broker_host import EchoQueries, short_directory
from support.process_sandbox import ProcessBackend

from orchestrator.app.brokers import open_brokers
from orchestrator.context import encode_context
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy, Outcome, SandboxId
from orchestrator.limits import QueryLimits, SandboxLimits
from orchestrator.ports import Broker, Sandbox
from orchestrator.sandbox.launcher import SandboxLauncher
from orchestrator.settings import Settings

SETTINGS = Settings(
    policy=LanguagePolicy.OPEN,
    query=QueryLimits(concurrent_queries=64),
    sandbox=SandboxLimits(memory_bytes=8 * 2**30),
)
QUERIES_A_CELL = 50
#: Turns in which all others together used less count as quiet.
QUIET_CORES = 0.6
SHARED_BY = 8
ONE_BY_ONE = f"""
import time
times = []
for _ in range({QUERIES_A_CELL}):
    begun = time.perf_counter()
    llm_query("x" * 100)
    times.append(time.perf_counter() - begun)
print(times)
"""
SIXTY_FOUR_AT_ONCE = """
import time
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(64) as threads:
    list(threads.map(len, ["warm"] * 64))
    begun = time.perf_counter()
    list(threads.map(llm_query, ["x" * 100] * 64))
    print([time.perf_counter() - begun])
"""

Figures: TypeAlias = "dict[str, float | str]"
Measure: TypeAlias = Callable[[Sandbox], Coroutine[Any, Any, list[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one measurement found, and how many cores others used meanwhile."""

    seconds: list[float]
    other_cores: float


@dataclass(slots=True, kw_only=True)
class Way:
    """One way to run a broker, with a sandbox that runs by it."""

    name: str
    sandbox: Sandbox
    broker_processes: list[psutil.Process]
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    async def take_turn(self, name: str, measure: Measure) -> None:
        """Measures once, and what else the machine did meanwhile."""
        begun, busy_s = time.monotonic(), _busy_s() - _own_s()
        seconds = await measure(self.sandbox)
        others = (_busy_s() - _own_s() - busy_s) / (time.monotonic() - begun)
        self.turns.setdefault(name, []).append(Turn(seconds=seconds, other_cores=others))

    def summaries(self, name: str) -> dict[str, Figures]:
        """Returns the figures of all turns, and of those in which the machine was nearly ours."""
        turns = self.turns[name]
        quiet = [turn for turn in turns if turn.other_cores < QUIET_CORES]
        found = {"all": summary([s for turn in turns for s in turn.seconds])}
        if quiet:
            found["quiet"] = summary([s for turn in quiet for s in turn.seconds])
        return found


async def times_of(sandbox: Sandbox, source: str) -> list[float]:
    """Returns the seconds that a cell measured in itself."""
    result = await sandbox.run_cell(source, timeout_s=300)
    assert result.outcome is Outcome.SUCCEEDED, result
    found: list[float] = json.loads(str(result.stdout))
    return found


async def empty_cells(sandbox: Sandbox) -> list[float]:
    """Returns how long each of ten cells takes that do nothing."""
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        await sandbox.run_cell("pass", timeout_s=60)
        times.append(time.perf_counter() - begun)
    return times


def binding(size_mb: int) -> Measure:
    """Returns what measures how long a context of so many MB takes to be bound."""
    context = encode_context("0123456789abcdef" * (size_mb * 10**6 // 16))

    async def bind(sandbox: Sandbox) -> list[float]:
        begun = time.perf_counter()
        await sandbox.bind_context("context", context)
        return [time.perf_counter() - begun]

    return bind


def summary(times: Sequence[float]) -> Figures:
    """Returns milliseconds: median, 99th percentile, and how many were measured."""
    ordered = sorted(times)
    return {
        "p50_ms": round(1e3 * statistics.median(ordered), 3),
        "p99_ms": round(1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
        "count": len(ordered),
    }


def _busy_s() -> float:
    """Returns how long all cores together have been busy."""
    times = psutil.cpu_times()
    return sum((times.user, times.nice, times.system, times.irq, times.softirq, times.steal))


def _own_s() -> float:
    """Returns how long this process and those it has started have been busy."""
    total_s = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def peak_bytes(process: psutil.Process) -> int:
    """Returns the most memory that was resident since `forget_peak`."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


def forget_peak(process: psutil.Process) -> None:
    """Begins to count the peak anew (proc(5), clear_refs)."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


@asynccontextmanager
async def open_ways() -> AsyncIterator[list[Way]]:
    """Yields a sandbox for each way, all at once."""
    async with AsyncExitStack() as stack:
        ways = []
        for name, isolation in (
            ("in_process", BrokerIsolation.IN_PROCESS),
            ("own_process", BrokerIsolation.OWN_PROCESS),
        ):
            settings = SETTINGS.model_copy(update={"broker": isolation})
            make = await stack.enter_async_context(open_brokers(settings))
            broker = make(stack.enter_context(short_directory()))
            before = _children()
            sandboxes = await _open(stack, broker, count=1)
            processes = [] if isolation is BrokerIsolation.IN_PROCESS else _new(before)
            ways.append(Way(name=name, sandbox=sandboxes[0], broker_processes=processes))
        directory = stack.enter_context(short_directory())
        shared = await stack.enter_async_context(
            open_shared_process(SETTINGS, directory, sandbox_count=SHARED_BY)
        )
        sandboxes = await _open(stack, shared.broker, count=SHARED_BY)
        ways.append(
            Way(
                name=f"one_process_for_{SHARED_BY}",
                sandbox=sandboxes[0],
                broker_processes=[psutil.Process(shared.pid)],
            )
        )
        yield ways


async def _open(stack: AsyncExitStack, broker: Broker, *, count: int) -> list[Sandbox]:
    launcher = SandboxLauncher(backend=ProcessBackend(), broker=broker, limits=SETTINGS.sandbox)
    return [await stack.enter_async_context(launcher.open(EchoQueries())) for _ in range(count)]


def _children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _new(before: set[int]) -> list[psutil.Process]:
    """Returns the broker's process among what was started since: it has a parent that has ours."""
    us = psutil.Process()
    return [
        process
        for process in us.children(recursive=True)
        if process.pid not in before and _is_broker(process)
    ]


def _is_broker(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and "nursery_main" in " ".join(parent.cmdline())


async def measure_by_turns(rounds: int, large_mb: int) -> dict[str, Any]:
    """Returns the figures of everything that takes time in a running sandbox."""
    measures: dict[str, tuple[Measure, int]] = {
        "query": (lambda sandbox: times_of(sandbox, ONE_BY_ONE), rounds),
        "64_queries_at_once": (lambda sandbox: times_of(sandbox, SIXTY_FOUR_AT_ONCE), rounds),
        "empty_cell": (empty_cells, rounds),
        "bind_40_mb": (binding(40), max(rounds // 4, 3)),
        f"bind_{large_mb}_mb": (binding(large_mb), 2),
    }
    figures: dict[str, Any] = {}
    async with open_ways() as ways:
        for way in ways:
            await times_of(way.sandbox, ONE_BY_ONE)  # what is done once is done
        for name, (measure, times) in measures.items():
            for way in ways:
                for process in (psutil.Process(), *way.broker_processes):
                    forget_peak(process)
            for turn in range(times):
                # Each round begins with another one.
                for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                    await way.take_turn(name, measure)
            figures[name] = {way.name: way.summaries(name) for way in ways}
            figures[name]["broker_process_peak_mb"] = {
                way.name: round(peak_bytes(way.broker_processes[0]) / 1e6, 1)
                for way in ways
                if way.broker_processes
            }
            figures[name]["orchestrator_peak_mb"] = round(peak_bytes(psutil.Process()) / 1e6, 1)
    return figures


async def measure_start(count: int = 20) -> dict[str, Any]:
    """Returns how long an endpoint takes to open, and what memory each of them keeps."""
    figures: dict[str, Any] = {}
    for isolation in BrokerIsolation:
        settings = SETTINGS.model_copy(update={"broker": isolation})
        us = psutil.Process()
        async with AsyncExitStack() as stack:
            begun = time.perf_counter()
            make = await stack.enter_async_context(open_brokers(settings))
            broker = make(stack.enter_context(short_directory()))
            walls = ProcessBackend().promised_walls
            before, uss_before = _children(), 0
            times: list[float] = []
            first_s = 0.0
            for number in range(count + 1):
                opened = time.perf_counter()
                endpoint = await stack.enter_async_context(
                    broker.open(
                        sandbox_id=SandboxId(f"s{number}"),
                        queries=EchoQueries(),
                        promised_walls=walls,
                    )
                )
                await endpoint.listening()
                times.append(time.perf_counter() - opened)
                if number == 0:
                    first_s = time.perf_counter() - begun
                    uss_before = us.memory_full_info().uss
            processes = _new(before)
            figures[isolation.value] = {
                "first_ms": round(1e3 * first_s, 1),
                "next": summary(times[1:]),
                "orchestrator_uss_kb_each": round(
                    (us.memory_full_info().uss - uss_before) / count / 1e3, 1
                ),
                "broker_process_uss_mb": _mean_mb([p.memory_full_info().uss for p in processes]),
                "broker_process_rss_mb": _mean_mb([p.memory_info().rss for p in processes]),
                "nursery_uss_mb": _mean_mb(
                    [p.memory_full_info().uss for p in us.children() if _is_nursery(p)]
                ),
            }
    return figures


def _is_nursery(process: psutil.Process) -> bool:
    return "nursery_main" in " ".join(process.cmdline())


def _mean_mb(sizes: Sequence[int]) -> float | None:
    return round(statistics.mean(sizes) / 1e6, 2) if sizes else None


async def measure_shared_memory() -> Figures:
    """Returns what a process keeps for each of several sandboxes, idle."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(short_directory())
        shared = await stack.enter_async_context(
            open_shared_process(SETTINGS, directory, sandbox_count=SHARED_BY)
        )
        await _open(stack, shared.broker, count=SHARED_BY)
        uss = psutil.Process(shared.pid).memory_full_info().uss
    return {"uss_mb": round(uss / 1e6, 2), "uss_mb_each": round(uss / 1e6 / SHARED_BY, 2)}


async def main() -> None:
    """Measures everything and prints it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--large-mb", type=int, default=400)
    arguments = parser.parse_args()
    load_before = os.getloadavg()
    figures = {
        "start": await measure_start(),
        f"one_process_for_{SHARED_BY}": await measure_shared_memory(),
        "running": await measure_by_turns(arguments.rounds, arguments.large_mb),
        "load_before": load_before,
        "load_after": os.getloadavg(),
        "cpu_count": os.cpu_count(),
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
    }
    print(json.dumps(figures, indent=2))  # noqa: T201 # its only output


asyncio.run(main())
