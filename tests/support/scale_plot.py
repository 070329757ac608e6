"""Draws the curve of `rlm bench --scale` as SVG, without a plotting library.

Without it a reader would have to find the bend of the curve in a column of figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _MARGIN, _GAP = 380, 240, 56, 42
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c")
_MB = 1e6

#: Of each panel: its title, whether its axis is logarithmic, and its lines.
_Line = tuple[str, Callable[[Mapping[str, Any]], float | None]]
_PANELS: Sequence[tuple[str, bool, Sequence[_Line]]] = (
    (
        "a second, all sessions together",
        False,
        (
            ("cells", lambda step: step["cells_per_s"]),
            ("queries", lambda step: step["queries_per_s"]),
        ),
    ),
    (
        "a cell that asks four times, ms",
        True,
        (
            ("median", lambda step: _of_cell(step, "median")),
            ("95th percentile", lambda step: _of_cell(step, "p95")),
        ),
    ),
    (
        "most cells of a session over the fewest",
        False,
        (("most over fewest", lambda step: step["most_over_fewest_cells"]),),
    ),
    (
        "memory, MB",
        True,
        (
            ("orchestrator", lambda step: step["own_bytes"] / _MB),
            ("brokers' processes", lambda step: step["broker_bytes"] / _MB),
            ("the whole host", lambda step: max(step["host_bytes"], _MB) / _MB),
        ),
    ),
)


def draw_curve(report: Mapping[str, Any]) -> str:
    """Returns the SVG of a report's steps in which any session was busy.

    Args:
        report: The JSON of `rlm bench --scale`.
    """
    steps = [step for step in report["steps"] if step["busy"]]
    busy = max(step["busy"] for step in steps)
    width, height = 2 * (_WIDTH + _MARGIN), 2 * (_HEIGHT + _MARGIN) + 3 * _GAP
    size, font = f'viewBox="0 0 {width} {height}"', 'font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (title, is_log, lines) in enumerate(_PANELS):
        left = _MARGIN + (number % 2) * (_WIDTH + _MARGIN)
        top = _GAP + (number // 2) * (_HEIGHT + _MARGIN + _GAP)
        parts.append(f'<g transform="translate({left},{top})">')
        parts += _panel(title, steps, lines, is_log=is_log)
        parts.append("</g>")
    caption = f"open sessions; of these at most {busy} busy at a time"
    parts.append(f'<text x="{_MARGIN}" y="{height - 8}">{escape(caption)}</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(
    title: str, steps: Sequence[Mapping[str, Any]], lines: Sequence[_Line], *, is_log: bool
) -> Iterator[str]:
    width = _WIDTH - _MARGIN // 2
    found = [value for _, read in lines for step in steps if (value := read(step)) is not None]
    low, high = (min(found, default=1.0), max(found, default=1.0)) if is_log else (0.0, 1.0)
    high = max(found, default=1.0) * (1.0 if is_log else 1.05)
    last = max(step["sessions"] for step in steps)

    def place_x(sessions: float) -> float:
        return width * math.log(sessions) / math.log(max(last, 2))

    def place_y(value: float) -> float:
        if is_log:
            span = math.log(high / low) or 1.0
            return _HEIGHT * (1 - math.log(value / low) / span)
        return _HEIGHT * (1 - value / (high or 1.0))

    scale = ", logarithmic" if is_log else ""
    yield f'<text x="0" y="-24" font-weight="bold">{escape(title + scale)}</text>'
    # Above the panel: within it a curve would run through it.
    names = "  ".join(
        f'<tspan fill="{_COLOURS[number]}">— {escape(name)}</tspan>'
        for number, (name, _) in enumerate(lines)
    )
    yield f'<text x="0" y="-8" xml:space="preserve">{names}</text>'
    yield f'<path d="M0 0V{_HEIGHT}H{width}" fill="none" stroke="#888"/>'
    for step in steps:
        x = place_x(step["sessions"])
        yield f'<text x="{x:.1f}" y="{_HEIGHT + 14}" text-anchor="middle">{step["sessions"]}</text>'
    for value in (low, math.sqrt(low * high) if is_log else high / 2, high):
        y = place_y(value)
        yield f'<text x="-4" y="{y + 4:.1f}" text-anchor="end">{_rounded(value)}</text>'
        yield f'<path d="M0 {y:.1f}H{width}" stroke="#eee"/>'
    for number, (_, read) in enumerate(lines):
        points = [
            f"{place_x(step['sessions']):.1f},{place_y(value):.1f}"
            for step in steps
            if (value := read(step)) is not None
        ]
        yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{_COLOURS[number]}"/>'


def _rounded(value: float) -> str:
    """Returns three significant digits, in full: 9,420."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _of_cell(step: Mapping[str, Any], name: str) -> float | None:
    figures = step["cell_ms"]
    return None if figures is None else float(figures[name])
