from datetime import UTC, datetime

import pytest

from orchestrator.models.retry_after import retry_after_s

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
