from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.models.retry import MAX_WAIT_S, next_wait_s, retry_after_s

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": f"21 Oct 26 0:0{'1' * 80}"}, None),
    ],
)
def test_wait_an_endpoint_asks_for_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    """Both forms of Retry-After are understood, and nonsense asks for nothing."""
    assert retry_after_s(headers, now=NOON) == wait_s


@settings(max_examples=50, deadline=None)  # two cores shared with containers are slow at times
@given(
    max_retries=st.integers(min_value=0, max_value=10),
    asked_for_s=st.lists(st.none() | st.floats(min_value=0.0, max_value=40.0), min_size=11),
    jitter=st.floats(min_value=0.0, max_value=1.0),
)
def test_waits_and_retries_are_bounded(
    max_retries: int, asked_for_s: list[float | None], jitter: float
) -> None:
    """Whatever an endpoint asks for, a call ends after its retries and a minute of waiting."""
    retry_count, waited_s = 0, 0.0
    while True:
        wait_s = next_wait_s(
            retry_count=retry_count,
            max_retries=max_retries,
            waited_s=waited_s,
            asked_for_s=asked_for_s[retry_count],
            jitter=jitter,
        )
        if wait_s is None:
            break
        assert asked_for_s[retry_count] in {None, wait_s}
        waited_s += wait_s
        retry_count += 1

    assert retry_count <= max_retries
    assert waited_s <= MAX_WAIT_S
