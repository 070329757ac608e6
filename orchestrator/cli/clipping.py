"""Cuts untrusted text to what a reader takes in at a glance, and says how much was cut.

Without it one cell's output would push everything else off the screen.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from orchestrator.cli.sanitize import for_one_line, for_terminal
from orchestrator.trajectory.elision import described_elision

_TAB = "    "
#: Longer than any line on any screen; what is behind it is cut before it is looked at.
_LINE_CHARS = 1_000
_FOLDED_CHARS = 400  # of a line that is folded: five lines of a terminal
_CUT_STYLE = "dim italic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """How much of a text is shown.

    Attributes:
        head_lines: From its beginning.
        tail_lines: From its end.
        is_whole: All of it, its long lines folded.
        folds: Whether long lines are folded, up to a few; else they are cut where the screen ends.
    """

    head_lines: int
    tail_lines: int = 0
    is_whole: bool = False
    folds: bool = False


def clipped(text: str, clip: Clip, *, style: str = "") -> list[Text]:
    """Returns a text's lines, safe for a terminal; what was left out is a line of its own."""
    elision = described_elision(text)
    if elision is not None:
        return [Text(elision, style=_CUT_STYLE)]
    lines = for_terminal(text).replace("\t", _TAB).strip("\n").split("\n")
    if clip.is_whole:
        return [Text(line, style=style, overflow="fold") for line in lines]
    left_out = len(lines) - clip.head_lines - clip.tail_lines
    if left_out <= 1:  # the line that says so would take as much room
        return [_cut_line(line, clip, style) for line in lines]
    tail = lines[len(lines) - clip.tail_lines :]
    return [
        *(_cut_line(line, clip, style) for line in lines[: clip.head_lines]),
        Text(f"… {left_out:,} more lines", style=_CUT_STYLE),
        *(_cut_line(line, clip, style) for line in tail),
    ]


def in_one_line(text: str, *, max_chars: int = _LINE_CHARS) -> str:
    """Returns a text as one line, safe for a terminal; an elision in short."""
    return described_elision(text) or for_one_line(text, max_chars=max_chars)


def _cut_line(line: str, clip: Clip, style: str) -> Text:
    if not clip.folds:
        return Text(line[:_LINE_CHARS], style=style, no_wrap=True, overflow="ellipsis")
    cut = line if len(line) <= _FOLDED_CHARS else f"{line[: _FOLDED_CHARS - 1]}…"
    return Text(cut, style=style, overflow="fold")
