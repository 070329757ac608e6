"""Figures for readers: short, never misleading."""

from __future__ import annotations

import pytest

from orchestrator.cli.figures_text import bar, percent, seconds, usd
from orchestrator.trajectory.spending import Money


@pytest.mark.parametrize(
    ("money", "shown"),
    [
        (Money(), "$0"),
        (Money(usd=0.0004), "$0.0004"),
        (Money(usd=1234.5), "$1,234.5000"),
        (Money(has_unpriced=True), "$?"),
        (Money(usd=0.01, has_unpriced=True), "$0.0100+?"),
    ],
)
def test_money_says_what_is_not_known(money: Money, shown: str) -> None:
    """What has no known price is not shown as nothing."""
    assert usd(money) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "?"),
        (0.0, "0.00 s"),
        (0.314, "0.31 s"),
        (46.39, "46.4 s"),
        (599.9, "599.9 s"),
        (754.6, "12m 34s"),
        (3_605.0, "60m 05s"),
    ],
)
def test_seconds_are_as_exact_as_is_of_use(value: float | None, shown: str) -> None:
    """Hundredths below a second, minutes above ten of them."""
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0 %"), (0.0001, "<1 %"), (0.425, "42 %"), (1.0, "100 %")]
)
def test_something_is_never_shown_as_nothing(share: float, shown: str) -> None:
    """A share below one in a hundred is still one."""
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, ""), (0.5, "██"), (1.0, "████"), (7.0, "████"), (-1.0, ""), (0.3, "█▎")],
)
def test_bar_is_as_long_as_its_share(share: float, shown: str) -> None:
    """To an eighth of a character, and never longer than its place."""
    assert bar(share, width=4) == shown
