"""Opens more and more sessions, keeps some of them busy, and looks at what each gets.

Without it nobody would know how many sessions a host holds, and what gives way when there are more.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import psutil

from orchestrator.app.host import find_host_engine
from orchestrator.app.parts import OpenSandboxes
from orchestrator.bench.figures import summarize
from orchestrator.bench.ground import MS_PER_S, EchoModel, run_cell
from orchestrator.bench.machine import describe_machine
from orchestrator.bench.our_processes import (
    broker_processes,
    own_cpu_s,
    own_unique_bytes,
    unique_bytes,
)
from orchestrator.bench.scale_report import ScaleReport, Step, plan_counts
from orchestrator.domain import RunOffer
from orchestrator.errors import SandboxError
from orchestrator.ports import Sandbox, SandboxProvider
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.settings import Settings

_QUERIES_A_CELL = 4
_SOURCE = f"""
for number in range({_QUERIES_A_CELL}):
    answer_text = llm_query(f"{{number:0100}}")
"""
_STARTS_AT_A_TIME = 4
_LOOK_AROUND_S = 2.0
_KEPT_FREE_BYTES = 2 * 2**30  # of the host's memory: a benchmark is not to bring a host down


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOptions:
    """How far the curve goes.

    Attributes:
        session_count: Sessions at its end.
        busy_count: The most that are busy at a time; the others are idle.
        window_s: For how long each step is looked at.
    """

    session_count: int
    busy_count: int
    window_s: float


@dataclass(slots=True, kw_only=True)
class _Curve:
    """What is open, and what has been seen."""

    provider: SandboxProvider
    stack: AsyncExitStack
    free_bytes_before: int
    sandboxes: list[Sandbox]
    steps: list[Step]
    open_s: float = 0.0


async def measure_scale(
    settings: Settings,
    options: ScaleOptions,
    *,
    open_sandboxes: OpenSandboxes,
    say: Callable[[str], None],
) -> ScaleReport:
    """Measures the curve on this host; what ends it early is part of the report.

    Raises:
        SandboxStartError: There is no engine that can be used, or no image.
        SettingsError: The runtime or the engine's address is not usable.
    """
    begun_s, problem = time.monotonic(), ""
    engine = await asyncio.to_thread(find_host_engine, settings)
    image = await asyncio.to_thread(find_image, engine)
    answers = await asyncio.to_thread(ask_engine, engine.endpoint)
    runtime = choose_runtime(settings.runtime, answers.info)
    machine = describe_machine(engine, image, runtime=runtime.name)
    async with open_sandboxes(settings, report=say) as provider, AsyncExitStack() as stack:
        cpu_before = _read_cpu()
        await asyncio.sleep(_LOOK_AROUND_S)
        others_cpu_share = _busy_share(cpu_before, _read_cpu())
        curve = _Curve(
            provider=provider,
            stack=stack,
            free_bytes_before=psutil.virtual_memory().available,
            sandboxes=[],
            steps=[],
        )
        try:
            for count in plan_counts(options.session_count):
                await _open_up_to(curve, count)
                await _take_step(curve, min(count, options.busy_count), options.window_s, say)
            await _take_step(curve, 0, options.window_s, say)
        except (SandboxError, MemoryError, OSError) as error:
            problem = str(error) or type(error).__name__
            say(f"The curve ends early: {problem}")
        say(f"Destroying {len(curve.sandboxes)} sandboxes …")
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    return ScaleReport(
        machine=machine,
        others_cpu_share=others_cpu_share,
        steps=tuple(curve.steps),
        open_s=curve.open_s,
        problem=problem,
        took_s=time.monotonic() - begun_s,
    )


async def _open_up_to(curve: _Curve, count: int) -> None:
    """Opens sessions until there are `count`.

    Raises:
        MemoryError: The host would have too little memory left.
        SandboxError: One could not be had.
    """
    begun_s = time.perf_counter()
    while len(curve.sandboxes) < count:
        if psutil.virtual_memory().available < _KEPT_FREE_BYTES:
            raise MemoryError(
                f"{len(curve.sandboxes)} sessions leave less than "
                f"{_KEPT_FREE_BYTES / 2**30:.0f} GiB of the host's memory"
            )
        # Each starts in a task, but is entered here: its exit is this task's.
        some = min(_STARTS_AT_A_TIME, count - len(curve.sandboxes))
        opened = [curve.provider.open(EchoModel()) for _ in range(some)]
        found = await asyncio.gather(*(one.__aenter__() for one in opened), return_exceptions=True)
        for one, sandbox in zip(opened, found, strict=True):
            if not isinstance(sandbox, BaseException):
                curve.stack.push_async_exit(one.__aexit__)
                curve.sandboxes.append(sandbox)
        for sandbox in found:
            if isinstance(sandbox, BaseException):
                raise sandbox
        for sandbox in curve.sandboxes[-some:]:
            await sandbox.begin_run(RunOffer())
            await run_cell(sandbox, _SOURCE)
    curve.open_s += time.perf_counter() - begun_s


async def _take_step(
    curve: _Curve, busy_count: int, window_s: float, say: Callable[[str], None]
) -> None:
    cpu_before, own_before_s = _read_cpu(), own_cpu_s()
    begun_s = time.perf_counter()
    if busy_count:
        busy = curve.sandboxes[:busy_count]
        took_ms = await asyncio.gather(*(_keep_busy(one, begun_s + window_s) for one in busy))
    else:
        took_ms = []
        await asyncio.sleep(window_s)
    passed_s = time.perf_counter() - begun_s
    own_share = (own_cpu_s() - own_before_s) / passed_s
    step = Step(
        session_count=len(curve.sandboxes),
        busy_count=busy_count,
        window_s=passed_s,
        cells=tuple(len(each) for each in took_ms),
        queries_per_cell=_QUERIES_A_CELL,
        cell_ms=summarize([one for each in took_ms for one in each]) if took_ms else None,
        cpu_share=_busy_share(cpu_before, _read_cpu()),
        own_cpu_share=own_share,
        own_bytes=own_unique_bytes(),
        broker_bytes=unique_bytes(broker_processes()),
        host_bytes=curve.free_bytes_before - psutil.virtual_memory().available,
    )
    curve.steps.append(step)
    say(
        f"{step.session_count} sessions, {busy_count} busy: {step.cells_per_s:,.0f} cells/s, "
        f"{step.queries_per_s:,.0f} queries/s, {step.cpu_share:.0%} of all cores"
    )


async def _keep_busy(sandbox: Sandbox, end_s: float) -> Sequence[float]:
    """Runs cells until `end_s` and returns how long each took; at least one."""
    took_ms: list[float] = []
    while not took_ms or time.perf_counter() < end_s:
        begun_s = time.perf_counter()
        await run_cell(sandbox, _SOURCE)
        took_ms.append((time.perf_counter() - begun_s) * MS_PER_S)
    return took_ms


def _read_cpu() -> tuple[float, float]:
    """Returns how long all cores together have been idle, and how long there were any, in s."""
    times = psutil.cpu_times()
    # The first eight are apart from each other; those of guests are counted in `user` (proc(5)).
    return times.idle + times.iowait, sum(times[:8])


def _busy_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    idle_s, total_s = (later - earlier for earlier, later in zip(before, after, strict=True))
    return 1.0 - idle_s / total_s if total_s else 0.0
