"""What a pool does next: in order, once each, no more than is wanted, slower after failures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sandbox.pool_plan import (
    GIVE_UP_AFTER,
    Caller,
    Plan,
    PoolRules,
    PoolState,
    ReadySandbox,
    backoff_s,
    expected_wait_s,
    plan,
)

RULES = PoolRules(size=3, concurrent_starts=2, max_wait_age_s=100.0)
IMAGE, OTHER_IMAGE = "sha256:1", "sha256:2"
NOW_S = 1000.0
IDLE = PoolState(now_s=NOW_S, image_id=IMAGE)


def ready(*numbers: int, age_s: float = 1.0, image_id: str = IMAGE) -> list[ReadySandbox]:
    return [
        ReadySandbox(number=number, ready_s=NOW_S - age_s, image_id=image_id) for number in numbers
    ]


def callers(*numbers: int, failed_count: int = 0) -> list[Caller]:
    return [Caller(number=number, failed_count=failed_count) for number in numbers]


def test_empty_pool_fills_by_as_many_as_may_start() -> None:
    """Nothing is there, three are wanted, two may start at a time."""
    assert plan(IDLE, RULES) == Plan(start_count=2)


def test_full_pool_waits_for_the_age_of_its_oldest() -> None:
    """With nothing to do, it looks again when the first one has become old."""
    state = replace(IDLE, ready=[*ready(1, age_s=30), *ready(2, 3)])

    assert plan(state, RULES) == Plan(look_again_s=NOW_S - 30 + 80)


def test_first_caller_has_the_oldest() -> None:
    """Callers and sandboxes are paired in order, and what is gone is started again."""
    state = replace(IDLE, ready=ready(1, 2, 3), callers=callers(8, 9))

    decision = plan(state, RULES)

    assert decision.hand_out == ((1, 8), (2, 9))
    assert decision.start_count == 2


def test_waiting_callers_are_wanted_sandboxes() -> None:
    """Ten callers want thirteen; one may start beside the one that is starting."""
    state = replace(IDLE, callers=callers(*range(10)), starting_count=1)

    assert plan(state, RULES) == Plan(start_count=1)


@pytest.mark.parametrize(
    "stale", [ready(1, age_s=100), ready(1, image_id=OTHER_IMAGE)], ids=["age", "image"]
)
def test_stale_sandbox_is_destroyed_and_given_to_nobody(stale: list[ReadySandbox]) -> None:
    """One that has waited too long, or runs another image than is started now, is no use."""
    decision = plan(replace(IDLE, ready=stale, callers=callers(9)), RULES)

    assert (decision.hand_out, decision.destroy) == ((), (1,))
    assert decision.start_count == 2


def test_old_sandboxes_are_replaced_one_at_a_time() -> None:
    """Those that were started together do not end together: a fresh one is there before."""
    state = replace(IDLE, ready=ready(1, 2, 3, age_s=80))

    assert plan(state, RULES).start_count == 1
    assert plan(replace(state, starting_count=1), RULES).start_count == 0
    assert plan(replace(state, ready=[*state.ready, *ready(4)]), RULES).destroy == (1,)


def test_old_sandbox_is_still_handed_out() -> None:
    """Old is not stale: until its place is taken it is as good as any."""
    state = replace(IDLE, ready=ready(1, age_s=99), callers=callers(9))

    assert plan(state, RULES).hand_out == ((1, 9),)


def failing(in_row: int, *, retry_in_s: float = 5.0) -> PoolState:
    return replace(IDLE, failed_in_row=in_row, failed_count=in_row, retry_s=NOW_S + retry_in_s)


def test_after_a_failure_the_pool_leaves_the_engine_alone() -> None:
    """Nothing is started before its time, and then one alone shows whether it is of use."""
    assert plan(failing(1), RULES) == Plan(look_again_s=NOW_S + 5)
    assert plan(failing(1, retry_in_s=0), RULES) == Plan(start_count=1)
    assert plan(replace(failing(1, retry_in_s=0), starting_count=1), RULES) == Plan()


def test_one_failure_refuses_nobody() -> None:
    """A caller waits for the next try while fewer have failed than make it certain."""
    state = replace(failing(GIVE_UP_AFTER - 1), callers=callers(9))

    assert plan(state, RULES) == Plan(look_again_s=NOW_S + 5)


def test_failures_in_a_row_refuse_whoever_has_seen_one() -> None:
    """Once it is certain, nobody waits for nothing; but not before the last start has ended."""
    state = replace(failing(GIVE_UP_AFTER), callers=callers(8, 9))

    assert plan(replace(state, starting_count=1), RULES).refuse == ()
    assert plan(state, RULES).refuse == (8, 9)


def test_later_caller_has_a_start_of_their_own() -> None:
    """Whoever comes while the pool leaves the engine alone is answered by a try, not by a guess."""
    state = replace(failing(GIVE_UP_AFTER), callers=callers(9, failed_count=GIVE_UP_AFTER))

    assert plan(state, RULES) == Plan(start_count=1)


def test_pause_without_failures_holds_nobody_up() -> None:
    """What ends as soon as it waits is replaced later; a caller has one started at once."""
    state = replace(IDLE, retry_s=NOW_S + 1)

    assert plan(state, RULES) == Plan(look_again_s=NOW_S + 1)
    assert plan(replace(state, callers=callers(9)), RULES).start_count == 2


def test_closing_pool_starts_nothing_and_keeps_nobody_waiting() -> None:
    """Everything is destroyed, everybody is refused."""
    state = replace(IDLE, ready=ready(1, 2), callers=callers(8, 9), is_closing=True)

    assert plan(state, RULES) == Plan(destroy=(1, 2), refuse=(8, 9))


@pytest.mark.parametrize(
    ("ahead_count", "wait_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (41, 10.5)], ids=str
)
def test_expected_wait_is_that_of_the_rounds_before(ahead_count: int, wait_s: float) -> None:
    """Two at a time: the third in line waits for two starts, the last of 42 for 21."""
    found_s = expected_wait_s(ahead_count=ahead_count, concurrent_starts=2, start_s=0.5)

    assert found_s == wait_s


@given(st.integers(1, 10**9))
def test_backoff_is_bounded_and_never_falls(failed_in_row: int) -> None:
    """However long an engine is away, it is tried twice a minute, and never in a busy loop."""
    assert 0.25 <= backoff_s(failed_in_row) <= backoff_s(failed_in_row + 1) <= 30.0


rules = st.builds(
    PoolRules,
    size=st.integers(0, 6),
    concurrent_starts=st.integers(1, 4),
    max_wait_age_s=st.sampled_from([1.0, 10.0, 100.0]),
)


@st.composite
def states(draw: st.DrawFn) -> PoolState:
    """Draws any state, also such as no pool comes to."""
    ages_s = sorted(draw(st.lists(st.floats(0, 200), max_size=8)), reverse=True)
    failed_count = draw(st.integers(0, 6))
    return PoolState(
        now_s=NOW_S,
        image_id=IMAGE,
        ready=[
            ReadySandbox(
                number=number,
                ready_s=NOW_S - age_s,
                image_id=draw(st.sampled_from([IMAGE, IMAGE, OTHER_IMAGE])),
            )
            for number, age_s in enumerate(ages_s)
        ],
        starting_count=draw(st.integers(0, 4)),
        callers=[
            Caller(number=100 + number, failed_count=draw(st.integers(0, failed_count)))
            for number in range(draw(st.integers(0, 8)))
        ],
        failed_count=failed_count,
        failed_in_row=draw(st.integers(0, failed_count)),
        retry_s=NOW_S + draw(st.sampled_from([-1.0, 0.0, 1.0])),
        is_closing=draw(st.booleans()),
    )


@given(states(), rules)
def test_plan_never_starts_more_than_is_wanted(state: PoolState, of_pool: PoolRules) -> None:
    """Together with those that are there: the size and the callers, and one for an old one."""
    decision = plan(state, of_pool)

    gone_count = len(decision.hand_out) + len(decision.destroy)
    left_count = len(state.ready) - gone_count
    waiting_count = len(state.callers) - len(decision.hand_out) - len(decision.refuse)
    assert decision.start_count >= 0
    if decision.start_count:
        starting_count = state.starting_count + decision.start_count
        assert starting_count <= of_pool.concurrent_starts
        assert starting_count <= of_pool.size + waiting_count + 1
        assert left_count + starting_count <= of_pool.size + waiting_count + 1
    assert left_count <= of_pool.size


@given(states(), rules)
def test_plan_names_each_sandbox_and_each_caller_once(state: PoolState, of_pool: PoolRules) -> None:
    """No sandbox goes to two callers, nor is one destroyed that is given; no caller has two."""
    decision = plan(state, of_pool)

    sandboxes = [*(number for number, _ in decision.hand_out), *decision.destroy]
    served = [*(caller for _, caller in decision.hand_out), *decision.refuse]
    assert len(set(sandboxes)) == len(sandboxes)
    assert len(set(served)) == len(served)
    assert set(sandboxes) <= {sandbox.number for sandbox in state.ready}
    assert set(served) <= {caller.number for caller in state.callers}


@given(states(), rules)
def test_plan_serves_in_order(state: PoolState, of_pool: PoolRules) -> None:
    """Whoever is given one came before everybody who is not, and has an older one than the next."""
    decision = plan(state, of_pool)

    given_to = [caller for _, caller in decision.hand_out]
    given_away = [number for number, _ in decision.hand_out]
    assert given_to == [caller.number for caller in state.callers][: len(given_to)]
    assert given_away == sorted(given_away)


@given(states(), rules)
def test_plan_never_gives_away_what_is_stale(state: PoolState, of_pool: PoolRules) -> None:
    """What is handed out or kept runs the image of now, and has not waited for too long."""
    decision = plan(state, of_pool)

    for sandbox in state.ready:
        if sandbox.number not in decision.destroy:
            assert sandbox.image_id == IMAGE
            assert NOW_S - sandbox.ready_s < of_pool.max_wait_age_s


@given(states(), rules)
def test_plan_never_leaves_a_caller_to_nothing(state: PoolState, of_pool: PoolRules) -> None:
    """Whoever goes on waiting waits for a start, or for a time at which the pool looks again."""
    decision = plan(state, of_pool)

    is_waiting = len(state.callers) > len(decision.hand_out) + len(decision.refuse)
    if is_waiting:
        starts = state.starting_count + decision.start_count
        assert starts or (decision.look_again_s is not None and decision.look_again_s > NOW_S)
