"""Runs benchmarks one after the other and makes their report.

Without it a row that cannot be measured would take all others with it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.app.host import find_host_engine
from orchestrator.app.parts import OpenSandboxes
from orchestrator.bench.benchmark import Benchmark, run_benchmark
from orchestrator.bench.ground import Ground
from orchestrator.bench.machine import describe_machine
from orchestrator.bench.peers.installing import InstalledPeers, install_peers
from orchestrator.bench.report import BenchReport, Row
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.settings import Settings
from orchestrator.settings.cache_directory import cache_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How benchmarks are run.

    Attributes:
        is_quick: Whether few turns are taken.
        with_peers: Whether peers are installed and measured, too.
    """

    is_quick: bool
    with_peers: bool


async def run_benchmarks(  # noqa: PLR0913 - keyword-only from the third on: who is told of what
    benchmarks: Sequence[Benchmark],
    settings: Settings,
    *,
    options: BenchOptions,
    open_sandboxes: OpenSandboxes,
    say: Callable[[str], None],
    on_row: Callable[[Row], None],
) -> BenchReport:
    """Measures on this host and returns the report.

    Args:
        benchmarks: What is measured, in this order.
        settings: As the user has them; sandboxes are made from them.
        options: How.
        open_sandboxes: Where sandboxes come from.
        say: Told in a sentence what is being done.
        on_row: Told of each row as it is there.

    Raises:
        SandboxStartError: There is no engine that can be used, or no image.
        SettingsError: The runtime or the engine's address is not usable.
    """
    begun_s = time.monotonic()
    engine = await asyncio.to_thread(find_host_engine, settings)
    image = await asyncio.to_thread(find_image, engine)
    answers = await asyncio.to_thread(ask_engine, engine.endpoint)
    runtime = choose_runtime(settings.runtime, answers.info)
    installed = InstalledPeers(ready=(), states={})
    if options.with_peers:
        installed = await asyncio.to_thread(
            install_peers,
            endpoint=engine.endpoint,
            image_id=image.image_id,
            folder=cache_directory() / "peers",
            report=say,
        )
    machine = describe_machine(engine, image, runtime=runtime.name)
    ground = Ground(
        settings=settings,
        open_sandboxes=open_sandboxes,
        endpoint=engine.endpoint,
        image_id=image.image_id,
        peers=installed.ready,
        is_quick=options.is_quick,
        say=say,
    )
    rows = []
    for number, benchmark in enumerate(benchmarks, start=1):
        say(f"{number}/{len(benchmarks)} {benchmark.title} …")
        row = await run_benchmark(benchmark, ground)
        rows.append(row)
        on_row(row)
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    return BenchReport(
        machine=machine,
        rows=tuple(rows),
        is_quick=options.is_quick,
        peers=installed.states,
        took_s=time.monotonic() - begun_s,
    )
