"""When a model that did not answer is asked again.

Without it a busy endpoint would end a run that has paid for an hour of work, or a run would wait
for ever on one that asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Rate limits are stated per minute, so a minute is what the longest of them needs to clear.
MAX_WAIT_S = 60.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how patiently, one request is tried again.

    Attributes:
        max_retries: Further tries after the first.
    """

    max_retries: int = 4

    def next_wait_s(
        self, *, retry_count: int, waited_s: float, asked_for_s: float | None, jitter: float
    ) -> float | None:
        """Returns how long to wait before asking again, or None to give up.

        Args:
            retry_count: How many retries there have been.
            waited_s: How long all waits took until now; with this one at most `MAX_WAIT_S`.
            asked_for_s: What the endpoint asks for; never shortened, so a longer one means giving
                up.
            jitter: 0 to 1; spreads requests that failed together.
        """
        if retry_count >= self.max_retries:
            return None
        wait_s = asked_for_s
        if wait_s is None:
            wait_s = min(_FIRST_WAIT_S * 2.0**retry_count, _LONGEST_WAIT_S) * (1 - jitter / 4)
        return wait_s if waited_s + wait_s <= MAX_WAIT_S else None
