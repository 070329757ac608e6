"""Writes the generated part of docs/specification.md, and the plot, from the figures beside it.

Without it the page could state what no run has shown. `make promises` runs it.
"""

from __future__ import annotations

import json
from typing import Any

from support.pages import ROOT
from support.scale_plot import draw_curve

from orchestrator.bench.promises import Bound, read_bounds, render_promises

PAGE = ROOT / "docs/specification.md"
FIGURES = ROOT / "docs/figures"
PLOT = FIGURES / "scale.svg"
_BEGIN, _END = "<!-- promises: begin -->", "<!-- promises: end -->"


def read_report(name: str) -> dict[str, Any]:
    """Returns the JSON of a run that is kept: `bench` or `scale`."""
    found: dict[str, Any] = json.loads((FIGURES / f"{name}.json").read_text("utf-8"))
    return found


def render_page() -> str:
    """Returns the page as it should be: its own words, and the generated part anew."""
    before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{render_promises(read_report('bench'))}\n{_END}{after}"


def render_plot() -> str:
    """Returns the plot of the curve that is kept."""
    return draw_curve(read_report("scale"))


def bounds() -> tuple[Bound, ...]:
    """Returns what the page says that tests hold."""
    return read_bounds(read_report("bench"))


if __name__ == "__main__":
    PAGE.write_text(render_page(), "utf-8")
    PLOT.write_text(render_plot(), "utf-8")
