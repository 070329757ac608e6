"""Money, seconds, shares and counts in as few characters as a reader needs.

Without it the same cost would be `$0.1` in one table and `0.10000000000000001` in the next.
"""

from __future__ import annotations

from orchestrator.trajectory.spending import Money

_MINUTES_FROM_S = 600.0
_BAR = " ▏▎▍▌▋▊▉"
_EIGHTHS = 8


def usd(money: Money) -> str:
    """Returns a sum as a reader wants it; what has no known price is a question mark."""
    if money.has_unpriced:
        return f"${money.usd:,.4f}+?" if money.usd else "$?"
    return f"${money.usd:,.4f}" if money.usd else "$0"


def seconds(value: float | None) -> str:
    """Returns a duration; a question mark where it is not known."""
    if value is None:
        return "?"
    if value >= _MINUTES_FROM_S:
        return f"{int(value) // 60}m {int(value) % 60:02}s"
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def percent(share: float) -> str:
    """Returns a share of 0 to 1 in a hundred; what is something is never shown as nothing."""
    if 0 < share < 0.01:  # noqa: PLR2004 - one in a hundred
        return "<1 %"
    return f"{share * 100:.0f} %"


def bar(share: float, *, width: int) -> str:
    """Returns a bar whose length is a share of `width` characters, to an eighth of one."""
    eighths = round(min(max(share, 0.0), 1.0) * width * _EIGHTHS)
    full, rest = divmod(eighths, _EIGHTHS)
    return "█" * full + (_BAR[rest] if rest else "")
