"""What a pool says of itself: its condition in figures, and to a caller how long it will take.

Without it a burst of sessions would look like a hang, and whoever watches a server could not tell
a pool that is too small from an engine that is too slow.
"""

from collections import deque
from dataclasses import dataclass

_REMEMBERED_STARTS = 16  # enough to smooth one slow start, few enough to follow a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One moment of a pool. Counts of what has happened go up only; the others are of now.

    Attributes:
        ready_count: Sandboxes that wait for a session.
        starting_count: Sandboxes that are being started.
        waiting_count: Callers who wait for a sandbox.
        in_use_count: Sandboxes that sessions have.
        handed_out_count: Sandboxes that sessions were given, ever.
        failed_start_count: Starts that failed, ever.
        destroyed_unused_count: Sandboxes that became ready and that no session was given, ever.
        acquire_wait_sum_s: What callers who were given one have waited for it, together; as many
            waits as `handed_out_count`.
        acquire_wait_max_s: The longest of these waits.
    """

    ready_count: int
    starting_count: int
    waiting_count: int
    in_use_count: int
    handed_out_count: int
    failed_start_count: int
    destroyed_unused_count: int
    acquire_wait_sum_s: float
    acquire_wait_max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedWait:
    """What a caller who has to wait is told; as text, one sentence.

    Attributes:
        position: Place in the line: 1 is served next.
        expected_s: How long it takes, as far as is known; None before a first start has succeeded.
    """

    position: int
    expected_s: float | None

    def __str__(self) -> str:
        """Returns the sentence for people."""
        when = "it is not known yet how long a start takes here"
        if self.expected_s is not None:
            when = f"one is expected in {self.expected_s:.1f} s"
        return f"No sandbox is ready; number {self.position:,} in line, {when}."


class StartTimes:
    """How long starts take here, by the last of them."""

    def __init__(self) -> None:
        """Begins without any."""
        self._last_s: deque[float] = deque(maxlen=_REMEMBERED_STARTS)

    def add(self, start_s: float) -> None:
        """Takes one that succeeded."""
        self._last_s.append(start_s)

    @property
    def mean_s(self) -> float | None:
        """What one takes; None before the first."""
        return sum(self._last_s) / len(self._last_s) if self._last_s else None
