import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.admission_schedule import Schedule

from orchestrator.models.admission import Admission, Ticket, TrafficLimits

ONE_AT_A_TIME = TrafficLimits(concurrent_requests=1)


def join(admission: Admission, *names: str, tokens: int = 1) -> list[Ticket]:
    return [admission.join(on_behalf_of=name, tokens=tokens) for name in names]


def test_as_many_go_at_once_as_may() -> None:
    """The limit is on what is under way: whoever ends makes room for the next."""
    admission = Admission(TrafficLimits(concurrent_requests=2))
    first, second, third = join(admission, "a", "a", "a")

    assert admission.admit(now_s=0.0).tickets == (first, second)
    assert admission.admit(now_s=0.0).tickets == ()
    admission.leave(first)
    assert admission.admit(now_s=0.0).tickets == (third,)
    assert (admission.open_count, admission.waiting_count) == (2, 0)


def test_requests_of_a_minute_are_counted() -> None:
    """The next one goes a minute after the first, and whoever waits is told when that is."""
    admission = Admission(TrafficLimits(requests_per_minute=2))
    tickets = join(admission, "a", "a", "a", "a")
    for ticket in admission.admit(now_s=10.0).tickets:
        admission.leave(ticket)
    waiting = admission.admit(now_s=30.0)

    assert (waiting.tickets, waiting.look_again_s) == ((), 70.0)
    assert admission.admit(now_s=69.9).tickets == ()
    assert admission.admit(now_s=70.0).tickets == (tickets[2], tickets[3])


def test_tokens_of_a_minute_are_counted_and_corrected() -> None:
    """What a request took in truth makes room, or takes it."""
    admission = Admission(TrafficLimits(tokens_per_minute=100))
    first, second, third = join(admission, "a", "a", "a", tokens=60)

    assert admission.admit(now_s=0.0).tickets == (first,)
    admission.settle(first, tokens=40)
    assert admission.admit(now_s=1.0).tickets == (second,)
    admission.settle(second, tokens=90)
    assert admission.admit(now_s=2.0).look_again_s == 61.0
    assert admission.admit(now_s=61.0).tickets == (third,)


def test_request_beyond_the_whole_limit_goes_alone() -> None:
    """A prompt that takes more than a minute's tokens is late, and not refused for ever."""
    admission = Admission(TrafficLimits(tokens_per_minute=100))
    small, large, after = [
        admission.join(on_behalf_of="a", tokens=tokens) for tokens in (10, 5_000, 1)
    ]

    assert admission.admit(now_s=0.0).tickets == (small,)
    assert admission.admit(now_s=60.0).tickets == (large,)
    assert admission.admit(now_s=119.0).tickets == ()
    assert admission.admit(now_s=120.0).tickets == (after,)


def test_single_prompt_is_not_behind_hundreds_of_another_run() -> None:
    """Runs take turns, whichever of them came first with however many."""
    admission = Admission(ONE_AT_A_TIME)
    many = join(admission, *["many"] * 256)
    assert admission.admit(now_s=0.0).tickets == (many[0],)
    (single,) = join(admission, "single")
    order: list[Ticket] = []
    for ended in (many[0], many[1]):
        admission.leave(ended)
        order += admission.admit(now_s=0.0).tickets

    assert order == [many[1], single]


def test_nobody_overtakes_whoever_has_to_wait_for_room() -> None:
    """A large request is not put off for ever by small ones that would fit."""
    admission = Admission(TrafficLimits(tokens_per_minute=100))
    join(admission, "a", tokens=60)
    admission.admit(now_s=0.0)
    large = admission.join(on_behalf_of="b", tokens=80)
    small = admission.join(on_behalf_of="c", tokens=1)

    assert admission.admit(now_s=30.0).tickets == ()
    assert admission.admit(now_s=60.0).tickets == (large, small)


def test_endpoint_that_asks_to_wait_is_asked_by_nobody() -> None:
    """Until then nobody goes; an earlier time does not shorten a later one."""
    admission = Admission(TrafficLimits())
    (ticket,) = join(admission, "a")
    admission.shut_until(9.0)
    admission.shut_until(5.0)

    assert admission.admit(now_s=8.0).look_again_s == 9.0
    assert admission.admit(now_s=9.0).tickets == (ticket,)


def test_request_that_was_never_sent_is_not_counted() -> None:
    """Whoever is cancelled between its turn and its sending has asked for nothing."""
    admission = Admission(TrafficLimits(requests_per_minute=1, tokens_per_minute=1))
    gone, waiting, next_one = join(admission, "a", "a", "b")
    admission.admit(now_s=0.0)
    admission.withdraw(gone)
    admission.withdraw(waiting)

    assert admission.admit(now_s=0.0).tickets == (next_one,)


@pytest.mark.parametrize("end", [Admission.leave, Admission.withdraw])
def test_ending_twice_changes_nothing(end: object) -> None:
    """A place is given back once."""
    admission = Admission(ONE_AT_A_TIME)
    first, second = join(admission, "a", "a")
    admission.admit(now_s=0.0)
    for _ in range(2):
        end(admission, first)  # type: ignore[operator] # one of two methods

    assert admission.admit(now_s=0.0).tickets == (second,)
    assert admission.open_count == 1


def test_two_requests_that_are_alike_are_two() -> None:
    """Taking one back does not take back its twin, begun at the same time for as much."""
    admission = Admission(TrafficLimits(tokens_per_minute=100))
    first, second = join(admission, "a", "a", tokens=40)
    admission.admit(now_s=0.0)
    admission.withdraw(second)
    admission.settle(first, tokens=90)
    (third,) = join(admission, "a", tokens=20)

    assert admission.admit(now_s=59.0).tickets == ()
    assert admission.admit(now_s=60.0).tickets == (third,)


steps = st.one_of(
    st.tuples(st.just("join"), st.sampled_from("abcd"), st.integers(0, 150)),
    st.tuples(st.just("withdraw"), st.integers(0, 99), st.none()),
    st.tuples(st.just("end"), st.integers(0, 99), st.floats(0, 1)),
    st.tuples(st.just("wait"), st.floats(0, 90), st.none()),
    st.tuples(st.just("shut"), st.floats(0, 90), st.none()),
)
bounds = st.none() | st.integers(1, 5)


@settings(deadline=None)  # two cores shared with containers are slow at times
@given(
    limits=st.builds(
        TrafficLimits,
        concurrent_requests=bounds,
        requests_per_minute=bounds,
        tokens_per_minute=st.none() | st.integers(1, 120),
    ),
    schedule=st.lists(steps, max_size=60),
)
def test_limits_hold_in_every_window_and_everybody_is_served_in_turn(
    limits: TrafficLimits, schedule: list[tuple[str, object, object]]
) -> None:
    """Whatever comes, ends, is withdrawn or asked to wait: within limits, by turns, all of it."""
    state = Schedule(limits)
    for what, one, other in schedule:
        match what, one, other:
            case "join", str(name), int(tokens):
                state.join(name, tokens)
            case "withdraw", int(number), _:
                state.withdraw(number)
            case "end", int(number), float(share):
                state.end(number, share)
            case "wait", float(wait_s), _:
                state.now_s += wait_s
            case "shut", float(wait_s), _:
                state.shut(wait_s)
        state.admit()
    for _ in range(3 * state.waiting_count + 1):
        look_again_s = state.admit()
        if look_again_s is not None:
            state.now_s = look_again_s
        elif state.open:
            state.end(0, 1.0)

    assert state.waiting_count == 0
    assert state.admission.waiting_count == 0
    assert state.admission.open_count == len(state.open)
