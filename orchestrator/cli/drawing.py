"""Draws for a terminal as wide as it is, and for a pipe as wide as a page.

Without it each command would decide for itself what a pipe gets, and one of them would fill files
with colours and trailing spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

# Where nobody looks at a terminal (a pipe, a file) lines are as long as a page is wide in print.
_PRINT_WIDTH = 120
_RAIL_WIDTH = 2
#: Below this many characters nothing is readable, however deep it is nested.
_LEAST_WIDTH = 20


def draw(drawn: Iterable[RenderableType], *, stream: TextIO, width: int | None) -> None:
    """Draws one thing below the other.

    Args:
        drawn: What to draw; untrusted text in it has been made safe.
        stream: Where to.
        width: In characters; None for that of the terminal, or of a page where there is none.
    """
    if stream.isatty():
        _console(stream, width).print(*drawn, sep="\n")
        return
    text = StringIO()
    _console(text, width or _PRINT_WIDTH).print(*drawn, sep="\n")
    # Figures at the right edge fill lines up, which nobody wants where there are none.
    stream.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _console(stream: TextIO, width: int | None) -> Console:
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


class Rail:
    """What belongs together, along a line at its left. Costs two columns however deep it stands."""

    def __init__(
        self,
        drawn: Sequence[RenderableType],
        *,
        mark: str = "│",
        style: str = "dim",
        is_bullet: bool = False,
    ) -> None:
        """Puts some drawings beside one line.

        Args:
            drawn: One below the other.
            mark: The character the line is made of.
            style: Of the line.
            is_bullet: Whether the mark stands before the first line alone.
        """
        self._drawn = drawn
        self._mark = mark
        self._style = style
        self._is_bullet = is_bullet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws every line of what it holds with the mark before it."""
        inner = options.update(width=max(options.max_width - _RAIL_WIDTH, _LEAST_WIDTH))
        mark = Segment(f"{self._mark} ", Style.parse(self._style))
        for each in self._drawn:
            for line in console.render_lines(each, inner, pad=False):
                yield mark
                yield from line
                yield Segment.line()
                if self._is_bullet:
                    mark = Segment(" " * _RAIL_WIDTH)


class Ledgered:
    """One line with figures at its right edge, so that they stand below one another."""

    def __init__(self, left: Text, right: Text) -> None:
        """Joins what is at the left, which is cut where there is no room, and the figures."""
        self._left = left
        self._right = right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws the line."""
        del console
        left = self._left.copy()
        room = max(options.max_width - self._right.cell_len - 1, _LEAST_WIDTH)
        left.truncate(room, overflow="ellipsis", pad=bool(self._right.plain.strip()))
        yield Text.assemble(left, " ", self._right, no_wrap=True, overflow="crop")
