"""When to ask again.

Without it a busy endpoint would end a run that has paid for an hour of work, or a run would wait
for ever on one that asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Rate limits are stated per minute, so a minute is what the longest of them needs to clear.
MAX_WAIT_S = 60.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Returns how long an endpoint asks to wait, or None where it does not say (RFC 9110 10.2.3).

    Args:
        headers: A response's headers, looked up in lower case.
        now: The time a date is counted from; the present where None.
    """
    for header, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(header)
        if value is None:
            continue
        try:
            wait_s = float(value) / per_second
        except ValueError:
            continue
        return wait_s if math.isfinite(wait_s) and wait_s >= 0 else None
    since = now or datetime.now(UTC)
    try:
        date = parsedate_to_datetime(headers.get("retry-after") or "")
        # "-0000" is parsed as a date without a zone; HTTP dates are always UTC.
        wait_s = (date.replace(tzinfo=date.tzinfo or UTC) - since).total_seconds()
    except (ValueError, OverflowError):
        # Overflow: an hour of a hundred digits, or a zone that leads out of the calendar.
        return None
    return max(wait_s, 0.0)


def next_wait_s(
    *,
    retry_count: int,
    max_retries: int,
    waited_s: float,
    asked_for_s: float | None,
    jitter: float,
) -> float | None:
    """Returns how long to wait before asking again, or None to give up.

    Args:
        retry_count: How many retries there have been.
        max_retries: How many there may be.
        waited_s: How long all waits took until now; with this one at most `MAX_WAIT_S`.
        asked_for_s: What the endpoint asks for; never shortened, so a longer one means giving up.
        jitter: 0 to 1; spreads requests that failed together.
    """
    if retry_count >= max_retries:
        return None
    wait_s = asked_for_s
    if wait_s is None:
        wait_s = min(_FIRST_WAIT_S * 2.0**retry_count, _LONGEST_WAIT_S) * (1 - jitter / 4)
    return wait_s if waited_s + wait_s <= MAX_WAIT_S else None
