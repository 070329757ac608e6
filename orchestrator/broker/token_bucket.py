"""Counts what may happen so often and no oftener.

Without it a rule about a rate would need a history, which a peer could make grow.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much may happen at once, and how much more each second after."""

    burst: float
    per_s: float

    def __str__(self) -> str:
        """Returns both figures as a rule's sentence has them."""
        return f"{self.burst:,.0f} at once and {self.per_s:,.0f} a second after are the most"


class TokenBucket:
    """Full at first; each token is taken once, and grows back with time."""

    def __init__(self, allowance: Allowance, *, now_s: float) -> None:
        """Begins full at `now_s`, on any clock that does not go backwards."""
        self.allowance = allowance
        self._tokens = allowance.burst
        self._at_s = now_s

    def take(self, count: float, *, now_s: float) -> float:
        """Takes `count` tokens and returns how many are missing: 0 where there were enough."""
        grown = self._tokens + (now_s - self._at_s) * self.allowance.per_s
        self._tokens = min(grown, self.allowance.burst) - count
        self._at_s = now_s
        return max(-self._tokens, 0.0)

    def wait_s(self, missing: float) -> float:
        """Returns how long it takes until `missing` tokens have grown back."""
        return missing / self.allowance.per_s
