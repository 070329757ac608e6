from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.retry import MAX_WAIT_S, RetryPolicy


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
    policy = RetryPolicy(max_retries=max_retries)
    retry_count, waited_s = 0, 0.0
    while True:
        wait_s = policy.next_wait_s(
            retry_count=retry_count,
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


def test_endpoint_that_asks_for_too_long_is_not_waited_for() -> None:
    """A wait that is asked for is never shortened: one that does not fit means giving up."""
    policy = RetryPolicy(max_retries=4)

    assert policy.next_wait_s(retry_count=0, waited_s=0.0, asked_for_s=3600.0, jitter=0.0) is None
    assert policy.next_wait_s(retry_count=0, waited_s=30.0, asked_for_s=31.0, jitter=0.0) is None
    assert policy.next_wait_s(retry_count=0, waited_s=30.0, asked_for_s=30.0, jitter=0.0) == 30.0
