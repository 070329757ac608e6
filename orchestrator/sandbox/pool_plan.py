"""Decides what a pool of waiting sandboxes does next; does nothing itself.

Without it the rules (in order, once each, never too many, slower after failures) would be spread
over callbacks, and could be tried only with containers and a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Starts that fail one after the other before whoever waits is told. One alone may be a machine
#: that was busy; two fail together wherever two are started together.
GIVE_UP_AFTER: Final = 3

_FIRST_BACKOFF_S = 0.25  # about half a start: a hiccup costs a caller little
_LONGEST_BACKOFF_S = 30.0  # an engine that is back is found within half a minute
#: From this share of the longest age on, fresh sandboxes take the place of old ones, one at a time:
#: those that were started together would otherwise end together, and leave nobody waiting.
_OLD_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """What does not change while a pool is open.

    Attributes:
        size: Sandboxes that are to wait while nobody wants one.
        concurrent_starts: Sandboxes that may be starting at a time.
        max_wait_age_s: Longest that one may wait.
    """

    size: int
    concurrent_starts: int
    max_wait_age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadySandbox:
    """One that waits for a session.

    Attributes:
        number: Names it in plans.
        ready_s: When it began to wait.
        image_id: What it runs.
    """

    number: int
    ready_s: float
    image_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who waits for a sandbox.

    Attributes:
        number: Names them in plans.
        failed_count: Starts that had failed when they came.
    """

    number: int
    failed_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """Everything that a plan depends on.

    Attributes:
        now_s: By the clock of all other times.
        image_id: What is started now.
        ready: Those that wait, in the order in which they became ready.
        starting_count: Those that are being started.
        callers: Whoever waits, in the order in which they came.
        failed_count: Starts that have failed, ever.
        failed_in_row: Of these, since one last succeeded.
        retry_s: When something may be started again although nobody waits for it.
        is_closing: Whether the pool is about to end.
    """

    now_s: float
    image_id: str
    ready: Sequence[ReadySandbox] = ()
    starting_count: int = 0
    callers: Sequence[Caller] = ()
    failed_count: int = 0
    failed_in_row: int = 0
    retry_s: float = 0.0
    is_closing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, in this order; every number is in at most one place.

    Attributes:
        hand_out: Pairs of a sandbox and who gets it.
        destroy: Sandboxes that nobody will get.
        refuse: Callers who get an error.
        start_count: How many sandboxes to start.
        look_again_s: When to plan again although nothing has happened; None for never.
    """

    hand_out: tuple[tuple[int, int], ...] = ()
    destroy: tuple[int, ...] = ()
    refuse: tuple[int, ...] = ()
    start_count: int = 0
    look_again_s: float | None = None


def plan(state: PoolState, rules: PoolRules) -> Plan:
    """Returns what is to be done in a state.

    The oldest sandbox goes to the first caller. No more are started than are wanted: as many as
    the size and the callers, less those that are there; one beyond that takes the place of an old
    one. Callers are refused once `GIVE_UP_AFTER` starts have failed in a row, one of them since
    they came; whoever comes later has a start of their own tried for them.
    """
    callers = [caller.number for caller in state.callers]
    if state.is_closing:
        everything = tuple(sandbox.number for sandbox in state.ready)
        return Plan(destroy=everything, refuse=tuple(callers))
    fit = [sandbox for sandbox in state.ready if _is_fit(sandbox, state, rules)]
    handed_out_count = min(len(fit), len(callers))
    left, waiting = fit[handed_out_count:], state.callers[handed_out_count:]
    refused = _refused(waiting, state)
    waiting_count = len(waiting) - len(refused)
    left = left[max(len(left) - rules.size, 0) :]
    kept = {sandbox.number for sandbox in (*fit[:handed_out_count], *left)}

    wanted_count = rules.size + waiting_count - len(left) - state.starting_count
    if wanted_count <= 0 and not state.starting_count and _have_old(left, state, rules):
        wanted_count = 1
    room = _room(state, rules, waiting_count=waiting_count)
    start_count = max(min(wanted_count, room), 0)
    is_held_back = wanted_count > 0 and not start_count and not state.starting_count
    return Plan(
        hand_out=tuple(
            (sandbox.number, caller)
            for sandbox, caller in zip(fit[:handed_out_count], callers, strict=False)
        ),
        destroy=tuple(sandbox.number for sandbox in state.ready if sandbox.number not in kept),
        refuse=tuple(caller.number for caller in refused),
        start_count=start_count,
        look_again_s=min(
            (
                *([state.retry_s] if is_held_back else ()),
                *_birthdays(left, state, rules),
            ),
            default=None,
        ),
    )


def backoff_s(failed_in_row: int) -> float:
    """Returns how long to leave an engine alone after so many failed starts in a row."""
    # Bounded before it is raised: 2.0 ** 2000 is an error, and engines are away for days.
    doublings = min(failed_in_row - 1, 16)
    return float(min(_FIRST_BACKOFF_S * 2**doublings, _LONGEST_BACKOFF_S))


def expected_wait_s(*, ahead_count: int, concurrent_starts: int, start_s: float) -> float:
    """Returns how long it takes at most until a caller has a sandbox, if no start fails.

    Args:
        ahead_count: Callers who came before.
        concurrent_starts: Sandboxes that are started at a time.
        start_s: What a start takes beside so many others.
    """
    return start_s * (ahead_count // concurrent_starts + 1)


def _is_fit(sandbox: ReadySandbox, state: PoolState, rules: PoolRules) -> bool:
    return (
        sandbox.image_id == state.image_id and state.now_s < sandbox.ready_s + rules.max_wait_age_s
    )


def _refused(waiting: Sequence[Caller], state: PoolState) -> list[Caller]:
    # One that is still starting may succeed.
    if state.failed_in_row < GIVE_UP_AFTER or state.starting_count:
        return []
    return [caller for caller in waiting if caller.failed_count < state.failed_count]


def _room(state: PoolState, rules: PoolRules, *, waiting_count: int) -> int:
    """Returns how many may be started now."""
    is_due = state.now_s >= state.retry_s
    if not state.failed_in_row:
        return rules.concurrent_starts - state.starting_count if is_due or waiting_count else 0
    if state.starting_count:
        return 0  # one shows whether it is of use again
    # Whoever came after the failures is answered now, and not when the pool would look again.
    is_asked_for = waiting_count > 0 and state.failed_in_row >= GIVE_UP_AFTER
    return 1 if is_due or is_asked_for else 0


def _have_old(left: Sequence[ReadySandbox], state: PoolState, rules: PoolRules) -> bool:
    return any(state.now_s >= _old_s(sandbox, rules) for sandbox in left)


def _old_s(sandbox: ReadySandbox, rules: PoolRules) -> float:
    return sandbox.ready_s + _OLD_SHARE * rules.max_wait_age_s


def _birthdays(left: Sequence[ReadySandbox], state: PoolState, rules: PoolRules) -> list[float]:
    """Returns when each of those that wait is next to be looked at for its age."""
    return [
        due_s if state.now_s < due_s else sandbox.ready_s + rules.max_wait_age_s
        for sandbox in left
        for due_s in [_old_s(sandbox, rules)]
    ]
