"""No schedule of sessions, cancellations, failures and deaths breaks what a pool promises."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.broker_host import EchoQueries
from support.pool_bench import PoolBench
from support.virtual_time import run_in_virtual_time

from orchestrator.domain import SandboxId
from orchestrator.errors import SandboxStartError


@dataclass(frozen=True)
class Step:
    """What happens next, so long after what happened before."""

    kind: str
    after_s: float


@dataclass(frozen=True)
class Session:
    """One caller: when they come, how long they wait at most, how long they stay."""

    after_s: float
    patience_s: float
    hold_s: float


moments = st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 7.0])
sessions = st.lists(
    st.builds(
        Session,
        after_s=moments,
        patience_s=st.sampled_from([0.0, 0.3, 0.5, 1.0, 1e6, 1e6, 1e6]),
        hold_s=moments,
    ),
    max_size=12,
)
steps = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(["kill one", "kill all", "fail one", "engine away", "engine back"]),
        after_s=moments,
    ),
    max_size=6,
)


@dataclass
class Schedule:
    """Sessions and mishaps on one pool, and what came of them."""

    bench: PoolBench
    sessions: list[Session]
    steps: list[Step]

    def __post_init__(self) -> None:
        """Begins with nothing seen."""
        self.given: list[tuple[int, SandboxId]] = []
        self.errors = 0

    async def run(self) -> None:
        """Runs all of it, and leaves the pool."""
        async with self.bench.opened(is_full=False):
            breaking = asyncio.create_task(self._break_things())
            tasks = []
            for number, session in enumerate(self.sessions):
                await asyncio.sleep(session.after_s)
                tasks.append(asyncio.create_task(self._use(number, session)))
            await breaking
            self.bench.backend.start_error = None
            await asyncio.gather(*tasks)
            await self.bench.filled()

    async def _use(self, number: int, session: Session) -> None:
        try:
            async with asyncio.timeout(session.patience_s) as patience:
                async with self.bench.pool.open(EchoQueries()) as sandbox:
                    patience.reschedule(None)
                    self.given.append((number, sandbox.sandbox_id))
                    await asyncio.sleep(session.hold_s)
        except SandboxStartError:
            self.errors += 1
        except TimeoutError:
            event("gave up waiting")

    async def _break_things(self) -> None:
        backend = self.bench.backend
        for step in self.steps:
            await asyncio.sleep(step.after_s)
            alive = [one for one in backend.containers if not one.is_destroyed]
            if step.kind == "kill one" and alive:
                alive[0].stop("exit code 137")
            elif step.kind == "kill all":
                for container in alive:
                    container.stop("exit code 137")
            elif step.kind == "fail one":
                backend.errors.append(SandboxStartError("hiccup"))
            else:
                is_away = step.kind == "engine away"
                backend.start_error = SandboxStartError("no engine") if is_away else None


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), sessions, steps)
def test_schedule_keeps_the_pool_to_its_word(
    size: int, concurrent_starts: int, callers: list[Session], mishaps: list[Step]
) -> None:
    """No sandbox is given twice, callers are served in order, starts are bounded, nothing is left.

    And once the engine is back the pool is full again, whatever happened before.
    """
    bench = PoolBench(size=size, concurrent_starts=concurrent_starts, max_wait_age_s=20.0)
    schedule = Schedule(bench, callers, mishaps)

    run_in_virtual_time(schedule.run())

    sandboxes = [sandbox_id for _, sandbox_id in schedule.given]
    assert len(set(sandboxes)) == len(sandboxes)
    served = [number for number, _ in schedule.given]
    assert served == sorted(served)
    assert bench.backend.most_starting <= concurrent_starts
    figures = bench.pool.figures
    assert (figures.in_use_count, figures.waiting_count, figures.starting_count) == (0, 0, 0)
    assert figures.handed_out_count >= len(sandboxes)
    if not any(step.kind in {"fail one", "engine away"} for step in mishaps):
        assert schedule.errors == 0
