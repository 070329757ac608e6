"""A pool of sandboxes against fakes: who gets one, when, and that none is left over."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from dataclasses import replace

import pytest
from support.broker_host import EchoQueries
from support.fake_container import never_end
from support.pool_bench import START_S, PoolBench, in_virtual_time

from orchestrator.domain import CellId, QueryFailure, QueryFailureReason, QueryId, QueryRequest
from orchestrator.errors import ProtocolViolationError, SandboxLostError, SandboxStartError
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.pool_plan import GIVE_UP_AFTER

QUERY = QueryRequest(query_id=QueryId("q1"), cell_id=CellId(1), prompts=("any?",))


def now_s() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_ready_sandbox_is_had_at_once() -> None:
    """Nobody waits for a start, for the event loop, or for anything else, while one is ready."""
    bench = PoolBench(size=2)
    async with bench.opened() as pool:
        opening = pool.open(EchoQueries())
        # Driven by hand: a coroutine that suspends would yield here.
        with pytest.raises(StopIteration) as had:
            opening.__aenter__().__await__().__next__()
        assert had.value.value.sandbox_id in bench.broker.endpoints
        assert pool.figures.in_use_count == 1
        await opening.__aexit__(None, None, None)


@in_virtual_time
async def test_sandbox_is_never_given_twice() -> None:
    """Each session has one of its own, and it is destroyed when the session leaves it."""
    bench = PoolBench(size=2)
    async with bench.opened():
        had = [await bench.used() for _ in range(5)]

        assert len({one.sandbox.sandbox_id for one in had}) == 5
        assert all(one.sandbox.end.done() for one in had)


@in_virtual_time
async def test_pool_is_full_again_after_a_hand_out() -> None:
    """What a session has taken is started again, at once, while the session runs."""
    bench = PoolBench(size=2)
    async with bench.opened() as pool:
        using = asyncio.create_task(bench.used(hold_s=10 * START_S))
        await asyncio.sleep(2 * START_S)

        assert (pool.figures.ready_count, pool.figures.in_use_count) == (2, 1)
        await using


@in_virtual_time
async def test_queries_go_to_the_session() -> None:
    """What a sandbox asks is answered by the session that has it."""
    bench = PoolBench(size=1)
    async with bench.opened() as pool, pool.open(EchoQueries()) as sandbox:
        answers = await bench.broker.queries[sandbox.sandbox_id].answer(QUERY)

    assert answers == ["echo: any?"]


@in_virtual_time
async def test_query_before_the_hand_out_is_refused_and_ends_the_sandbox() -> None:
    """A sandbox that asks while it belongs to nobody is answered by nobody, and given to nobody."""
    bench = PoolBench(size=1)
    async with bench.opened() as pool:
        [sandbox_id] = bench.broker.endpoints
        [answer] = await bench.broker.queries[sandbox_id].answer(QUERY)
        had = await bench.used()

        assert isinstance(answer, QueryFailure)
        assert answer.reason is QueryFailureReason.CANCELLED
        assert had.sandbox.sandbox_id != sandbox_id
        assert pool.figures.destroyed_unused_count == 1


@in_virtual_time
async def test_burst_is_served_in_order_and_told_how_long_it_takes() -> None:
    """Fifty come to a pool of eight: all are served, in order, no later than they were told."""
    bench = PoolBench(size=8)
    async with bench.opened():
        had = await asyncio.gather(*(bench.used(hold_s=2 * START_S) for _ in range(50)))

        assert bench.had == had
        assert bench.backend.most_starting == 2
        waits_s = [one.waited_s for one in had]
        assert waits_s[:8] == [0] * 8
        assert waits_s == sorted(waits_s)
        told = {8 + wait.position - 1: wait for wait in bench.told}
        assert set(told) == set(range(10, 50))  # two more have theirs after one start
        for number, wait in told.items():
            assert wait.expected_s is not None
            assert waits_s[number] <= wait.expected_s + 0.01
            assert wait.expected_s <= waits_s[number] + START_S + 0.01


@in_virtual_time
async def test_wait_is_told_before_the_first_start_has_ended() -> None:
    """Whoever comes first to an empty pool reads that they are in line, and no invented figure."""
    bench = PoolBench(size=1, concurrent_starts=1)
    async with bench.opened(is_full=False):
        await asyncio.gather(bench.used(), bench.used())

    assert [str(wait) for wait in bench.told] == [
        "No sandbox is ready; number 2 in line, it is not known yet how long a start takes here."
    ]


@in_virtual_time
async def test_figures_count_what_has_happened() -> None:
    """A metrics exporter reads how many were had, and how long that took."""
    bench = PoolBench(size=1, concurrent_starts=1)
    async with bench.opened() as pool:
        await asyncio.gather(bench.used(), bench.used())
        await bench.filled()
        figures = pool.figures

    assert (figures.ready_count, figures.handed_out_count, figures.in_use_count) == (1, 2, 0)
    assert figures.acquire_wait_max_s == pytest.approx(START_S)
    assert figures.acquire_wait_sum_s == pytest.approx(START_S)


@in_virtual_time
async def test_pool_says_its_condition_in_one_line() -> None:
    """Whoever prints a pool reads what there is, and what is wrong."""
    bench = PoolBench(size=2)
    async with bench.opened() as pool:
        assert repr(pool) == "<SandboxPool 2 of 2 ready, 0 starting, 0 waiting, 0 in use>"
        bench.backend.start_error = SandboxStartError("no engine\nat all")
        using = asyncio.create_task(bench.used(hold_s=2 * START_S))
        await asyncio.sleep(1.5 * START_S)
        assert repr(pool).endswith("1 in use, 1 failed starts in a row: no engine>")
        await using

    assert repr(pool).endswith("closed>")


@in_virtual_time
async def test_sandbox_that_ends_while_it_waits_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Killed from outside, it is given to nobody; another one takes its place, and a line says so.

    Those that end together are one line.
    """
    bench = PoolBench(size=4)
    async with bench.opened() as pool:
        with caplog.at_level(logging.WARNING):
            for container in bench.backend.containers:
                container.stop("exit code 137")
            await asyncio.sleep(0.01)
            assert pool.figures.ready_count == 0
            await bench.filled()

        assert pool.figures.destroyed_unused_count == 4
        assert [record.message for record in caplog.records] == [
            "a sandbox ended before anybody had it; fresh ones follow: exit code 137"
        ]
        assert (await bench.used()).sandbox.container not in bench.backend.containers[:4]


@in_virtual_time
async def test_sandbox_whose_stream_ends_is_withdrawn_at_once() -> None:
    """One whose worker broke a rule is given to nobody while its container is being destroyed."""
    bench = PoolBench(size=1)
    async with bench.opened() as pool:
        [(broken, endpoint)] = bench.broker.endpoints.items()
        endpoint.attachment.has_ended.set()
        await asyncio.sleep(0.001)
        assert pool.figures.ready_count == 0

        assert (await bench.used()).sandbox.sandbox_id != broken


@in_virtual_time
async def test_sandbox_that_ends_as_soon_as_it_waits_is_not_started_in_a_loop() -> None:
    """A pool whose every sandbox dies starts some in a minute, not as many as it can."""
    bench = PoolBench(size=1, concurrent_starts=1)
    bench.backend.start_s = 0.001
    async with bench.opened(is_full=False):
        for _ in range(6000):
            await asyncio.sleep(0.01)
            for container in bench.backend.containers:
                container.stop("exit code 1")

    assert len(bench.backend.begun_s) < 60 / 0.25 + 2


@in_virtual_time
async def test_sandboxes_are_replaced_before_they_are_too_old() -> None:
    """None waits for longer than it may, and the pool is never short of one for it."""
    bench = PoolBench(size=4, max_wait_age_s=100.0)
    async with bench.opened() as pool:
        first = set(bench.broker.endpoints)
        fewest = 4
        for _ in range(400):
            await asyncio.sleep(1)
            fewest = min(fewest, pool.figures.ready_count)
            if now_s() > 101:
                alive = [one for one in bench.backend.containers if not one.is_destroyed]
                assert not any(one in alive for one in bench.backend.containers[: len(first)])

        assert fewest == 4
        assert pool.figures.destroyed_unused_count >= 12


@in_virtual_time
async def test_superseded_image_is_handed_out_to_nobody() -> None:
    """Once the launcher starts another image, what runs the old one is stale."""
    bench = PoolBench(size=2)
    async with bench.opened() as pool:
        bench.backend.image = "sha256:newer"
        had = await bench.used()

        assert had.sandbox.image_id == "sha256:newer"
        assert pool.figures.destroyed_unused_count == 2


@in_virtual_time
async def test_lifetime_counts_from_the_hand_out() -> None:
    """However long a sandbox has waited, its session has all of its lifetime, and no more."""
    limits = replace(SandboxLimits(), lifetime_s=100.0)
    bench = PoolBench(size=1, max_wait_age_s=50.0, sandbox=limits)
    async with bench.opened() as pool:
        await asyncio.sleep(39)
        async with pool.open(EchoQueries()) as sandbox:
            given_s = now_s()
            bench.broker.endpoints[sandbox.sandbox_id].attachment.body = never_end
            with pytest.raises(SandboxLostError, match="lifetime"):
                await sandbox.run_cell("1", timeout_s=1)

            assert now_s() - given_s >= 100
            assert now_s() - given_s < 102  # its last words are waited for


@in_virtual_time
async def test_one_failed_start_costs_no_caller_their_sandbox() -> None:
    """A hiccup of the engine is a longer wait."""
    bench = PoolBench(size=1)
    bench.backend.errors = [SandboxStartError("hiccup")] * (GIVE_UP_AFTER - 1)
    async with bench.opened(is_full=False) as pool:
        had = await bench.used()

        assert had.waited_s < 5
        assert pool.figures.failed_start_count == GIVE_UP_AFTER - 1


@pytest.mark.parametrize(
    "error",
    [SandboxStartError("The engine has no image"), ProtocolViolationError("hello first")],
    ids=["start", "violation"],
)
@in_virtual_time
async def test_callers_get_the_error_they_would_have_without_a_pool(
    error: SandboxStartError | ProtocolViolationError,
) -> None:
    """Where no start succeeds, whoever waits reads why, each in an error of their own."""
    bench = PoolBench(size=4)
    bench.backend.start_error = error
    async with bench.opened(is_full=False):
        results = await asyncio.gather(*(bench.used() for _ in range(6)), return_exceptions=True)

        assert {type(result) for result in results} == {type(error)}
        assert {str(result) for result in results} == {str(error)}
        assert len({id(result) for result in results}) == 6


@in_virtual_time
async def test_caller_after_many_failures_waits_for_one_try_alone() -> None:
    """While an engine is away each caller hears so after a start; once it is back they have one."""
    bench = PoolBench(size=2)
    bench.backend.start_error = SandboxStartError("no engine")
    async with bench.opened(is_full=False):
        await asyncio.sleep(600)
        begun_s = now_s()
        with pytest.raises(SandboxStartError, match="no engine"):
            await bench.used()
        assert now_s() - begun_s <= 2 * START_S + 0.01

        bench.backend.start_error = None
        assert (await bench.used()).waited_s <= 2 * START_S + 0.01


@in_virtual_time
async def test_restart_of_the_engine_is_survived_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ten minutes without an engine are few tries and two lines, and the pool is full again."""
    caplog.set_level(logging.INFO)
    bench = PoolBench(size=4)
    async with bench.opened() as pool:
        bench.backend.start_error = SandboxStartError("no engine")
        for container in bench.backend.containers:
            container.lose_engine(SandboxLostError("The Docker engine went away"))
        started_before = len(bench.backend.begun_s)
        await asyncio.sleep(600)
        assert len(bench.backend.begun_s) - started_before < 35

        bench.backend.start_error = None
        await bench.filled()

        assert pool.figures.ready_count == 4
        said = [record.message for record in caplog.records]
        assert len(said) == 3
        assert said[0].endswith("fresh ones follow: The Docker engine went away")
        assert said[1].endswith("less often: no engine")
        assert said[2].startswith("sandboxes can be started again")


@in_virtual_time
async def test_closing_destroys_everything_and_answers_everybody() -> None:
    """Waiting, starting and in use: all of it goes, and whoever waits hears why, at once."""
    bench = PoolBench(size=2, concurrent_starts=1)
    async with bench.opened() as pool:
        users = [asyncio.create_task(bench.used(hold_s=60)) for _ in range(4)]
        await asyncio.sleep(START_S / 2)
        assert (pool.figures.in_use_count, pool.figures.starting_count) == (2, 1)

    for waiting in users[2:]:
        with pytest.raises(SandboxStartError, match="pool of sandboxes is closed"):
            await waiting
    with pytest.raises(SandboxStartError, match="pool of sandboxes is closed"):
        await bench.used()
    await asyncio.gather(*users[:2])
    await pool.aclose()


@in_virtual_time
async def test_cancelled_close_still_destroys_everything() -> None:
    """A Ctrl-C while a pool closes leaves nothing running."""
    bench = PoolBench(size=3)
    entered = asyncio.Event()

    async def hold() -> None:
        async with bench.opened():
            entered.set()
            await asyncio.sleep(3600)

    holding = asyncio.create_task(hold())
    await entered.wait()
    holding.cancel()
    await asyncio.sleep(0)
    holding.cancel()
    await asyncio.wait({holding})

    assert holding.cancelled()
    assert bench.is_empty


@in_virtual_time
async def test_cancelled_caller_leaves_the_line() -> None:
    """Who no longer waits is given nothing, and holds up nobody behind them."""
    bench = PoolBench(size=1, concurrent_starts=1)
    async with bench.opened(is_full=False) as pool:
        first, second = (asyncio.create_task(bench.used()) for _ in range(2))
        await asyncio.sleep(START_S / 2)
        first.cancel()

        assert (await second).waited_s == pytest.approx(START_S)
        assert first.cancelled()
        assert pool.figures.handed_out_count == 1


@in_virtual_time
async def test_sandbox_given_to_a_cancelled_caller_is_destroyed() -> None:
    """A cancellation that meets the hand-out costs the sandbox, which nobody may have twice."""
    bench = PoolBench(size=1, concurrent_starts=1)
    async with bench.opened(is_full=False) as pool:
        waiting = asyncio.create_task(bench.used())
        await asyncio.sleep(START_S)
        while not pool.figures.handed_out_count:  # noqa: ASYNC110 - it has no event to give
            await asyncio.sleep(0)  # no time passes: the caller has not been told yet
        waiting.cancel()
        await asyncio.wait({waiting})

        assert waiting.cancelled()
        assert bench.backend.containers[0].is_destroyed
        assert pool.figures.in_use_count == 0


@in_virtual_time
async def test_end_of_the_event_loop_starts_nothing_more() -> None:
    """Whoever ends a loop cancels what runs in it; a pool that went on starting would be left."""
    bench = PoolBench(size=2)
    async with bench.opened() as pool:
        started_count = len(bench.backend.begun_s)
        for task in asyncio.all_tasks():
            if task.get_name() == "rlm-pool-place":
                task.cancel()
        await asyncio.sleep(60)

        assert len(bench.backend.begun_s) == started_count
        assert bench.is_empty
        with pytest.raises(SandboxStartError, match="closed"):
            async with pool.open(EchoQueries()):
                pytest.fail("it was handed out")


@in_virtual_time
async def test_what_is_started_carries_nothing_of_a_caller() -> None:
    """A sandbox that one session's call has started is another one's later."""
    of_session: contextvars.ContextVar[str] = contextvars.ContextVar("of_session")
    bench = PoolBench(size=1)

    async def session() -> None:
        of_session.set("first")
        await bench.used(hold_s=2 * START_S)

    async with bench.opened():
        await asyncio.create_task(session())
        await bench.filled()

    assert len(bench.backend.contexts) > 1
    assert {context.get(of_session, "none") for context in bench.backend.contexts} == {"none"}
