"""Figures as a sentence holds them: `1 query`, `41 queries`, `30 minutes`."""

from __future__ import annotations

_COARSE_FROM_S = 120  # below two minutes, minutes are too coarse to plan by


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun in singular or plural."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Returns a time as a person would say it, rounded down."""
    if seconds < _COARSE_FROM_S:
        return counted(int(seconds), "second")
    return counted(int(seconds) // 60, "minute")
