"""When an endpoint asks to be asked again.

Without it a busy endpoint would be asked again too soon, and refuse again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


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
