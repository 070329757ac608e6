from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.broker.token_bucket import Allowance, TokenBucket


def test_burst_is_there_at_once_and_no_more() -> None:
    """As much as the burst may happen at one instant; one more is missing."""
    bucket = TokenBucket(Allowance(10, 2), now_s=5.0)

    assert [bucket.take(1, now_s=5.0) for _ in range(11)] == [0.0] * 10 + [1.0]


def test_tokens_grow_back_with_time_and_not_beyond_the_burst() -> None:
    """A second brings the rate back; an hour brings the burst, not an hour's worth."""
    bucket = TokenBucket(Allowance(10, 2), now_s=0.0)
    bucket.take(10, now_s=0.0)

    assert bucket.take(2, now_s=1.0) == 0
    assert bucket.take(1, now_s=1.0) == 1
    assert bucket.take(10, now_s=3601.0) == 0
    assert bucket.take(1, now_s=3601.0) == 1


def test_wait_is_until_what_is_missing_has_grown_back() -> None:
    """Whoever waits as long as told finds enough."""
    bucket = TokenBucket(Allowance(10, 4), now_s=0.0)
    missing = bucket.take(12, now_s=0.0)

    assert missing == 2
    assert bucket.wait_s(missing) == pytest.approx(0.5)
    assert bucket.take(0, now_s=0.5) == 0


@given(
    burst=st.integers(1, 1000),
    per_s=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50)), max_size=200),
)
def test_never_more_than_burst_and_rate(
    burst: int, per_s: int, steps: list[tuple[float, int]]
) -> None:
    """Whatever is tried when, what was granted fits into burst plus rate times time."""
    bucket = TokenBucket(Allowance(burst, per_s), now_s=0.0)
    now_s, granted = 0.0, 0
    for pause_s, count in steps:
        now_s += pause_s
        if bucket.take(count, now_s=now_s):
            break
        granted += count

    assert granted <= burst + per_s * now_s + 1e-6
