"""What performance is promised, as the table of docs/specification.md has it, and what holds it.

Without it the page would be written by hand, and would say tomorrow what was measured last year.
Everything here is pure: the JSON of `rlm bench` goes in, Markdown comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: The rows that are measured with each test run, and what ours is compared with there: a floor
#: that any machine has. A peer is not installed by tests.
GUARDED: Final = {
    "empty-cell": "raw gRPC",
    "query": "raw gRPC",
    "cold-start": "docker run",
    "context-40mb": "socket copy",
    "idle-memory": "bare python",
    "command-start": "python -c pass",
}
#: A ratio may be so many times what is stated, on another machine or a busy one.
SLACK: Final = 2.0
#: Where that is too little: on a virtual machine the pages of a new file are sometimes memory that
#: its host has to find first, which takes six times as long; in pieces a context took 27 times.
_MORE_SLACK: Final = {"context-40mb": 4.0}

_HEADINGS = ("what", "against", "ratio", "goal", "kept", "a test fails above", "measured by")
_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a test holds one row to.

    Attributes:
        row: The row's name.
        against: What ours is compared with.
        stated: The ratio that was measured when the page was written.
    """

    row: str
    against: str
    stated: float

    @property
    def at_most(self) -> float:
        """The largest ratio that passes."""
        return _MORE_SLACK.get(self.row, SLACK) * self.stated


def read_bounds(report: Mapping[str, Any]) -> tuple[Bound, ...]:
    """Returns what tests hold rows to, as a report states it.

    Args:
        report: The JSON of `rlm bench`.

    Raises:
        ValueError: It lacks a row, or what the row is compared with.
    """
    rows = {row["name"]: row for row in report["rows"]}
    bounds = []
    for name, against in GUARDED.items():
        found = [one for one in rows.get(name, {}).get("series", ()) if one["name"] == against]
        if not found:
            raise ValueError(f"expected a row {name!r} compared with {against!r} in the report")
        stated = float(found[0]["ours_over_it"]["median"])
        bounds.append(Bound(row=name, against=against, stated=stated))
    return tuple(bounds)


def render_promises(report: Mapping[str, Any]) -> str:
    """Returns the table of promises, and under it what it was measured on.

    Args:
        report: The JSON of `rlm bench`, with peers or without.
    """
    bounds = {(bound.row, bound.against): bound for bound in read_bounds(report)}
    lines = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
    for row in report["rows"]:
        lines += [_line(cells) for cells in _cells_of(row, bounds)]
    return "\n".join([*lines, "", *_machine_lines(report)]) + "\n"


def _cells_of(
    row: Mapping[str, Any], bounds: Mapping[tuple[str, str], Bound]
) -> Iterator[Sequence[str]]:
    goals = {goal["against"]: goal for goal in row["goals"]}
    ours = next((one for one in row["series"] if one["kind"] == "ours"), None)
    if ours is None:
        yield (row["title"], "", "", "", f"not measured: {row['problem']}", "", _command(row))
        return
    title = f"{row['title']}: {_figure(ours['median'])} {row['unit']}"
    for goal in row["goals"]:
        if goal["against"] is None:
            what = f"{goal['statistic']} ≤ {_figure(goal['at_most'])} {row['unit']}"
            yield (title, "", "", what, _kept(goal), "", _command(row))
            title = ""
    for one in row["series"]:
        goal, bound = goals.get(one["name"]), bounds.get((row["name"], one["name"]))
        if one["kind"] in {"ours", "variant"}:
            continue
        statistic = one["compared_by"]
        yield (
            title,
            f"{one['name']}: {_figure(one[statistic])} {row['unit']}{_mark(statistic)}",
            _figure(one["ours_over_it"]["median"]),
            f"≤ {_figure(goal['at_most'])}" if goal else "",
            _kept(goal) if goal else "",
            _figure(bound.at_most) if bound else "",
            _command(row) if title else "",
        )
        title = ""
    if title:
        yield (title, "", "", "", "", "", _command(row))


def _machine_lines(report: Mapping[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield (
        f"Measured with {machine['rlm_sandbox']} on {machine['cpu_count']} cores "
        f"({machine['cpu']}), Linux {machine['kernel']}, {machine['engine']}, "
        f"{machine['runtime']}, Python {machine['python']}, "
        f"{'few turns (--quick)' if report['is_quick'] else 'all turns'}; "
        f"load before {machine['load_before'][0]}, after {machine['load_after'][0]}."
    )
    for name, state in report["peers"].items():
        yield ""
        yield f"{name}: {state}."


def _command(row: Mapping[str, Any]) -> str:
    has_peer = any(one["kind"] == "peer" for one in row["series"])
    return f"`rlm bench --only {row['name']}{' --peers' if has_peer else ''}`"


def _kept(goal: Mapping[str, Any]) -> str:
    return {True: "yes", False: "no", None: "not measured"}[goal["is_reached"]]


def _mark(statistic: str) -> str:
    return "" if statistic == "median" else f" ({statistic})"


def _figure(value: float) -> str:
    if value >= 10**_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{_DIGITS}g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
