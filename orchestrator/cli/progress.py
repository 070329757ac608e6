"""Shows a run while it runs: one changing panel in a terminal, plain lines anywhere else.

Everything goes to standard error, so that standard output holds the answer alone. Without this
module a run of half an hour would look like a program that hangs.
"""

import sys
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.event_lines import describe
from orchestrator.cli.sanitize import for_terminal
from orchestrator.cli.tally import Tally
from orchestrator.events import (
    CellEnded,
    QueryRefused,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
)

_LINE_CHARS = 160
_SOURCE_LINES = 6
_OUTPUT_LINES = 6
_FRAMES_PER_S = 4


class Progress(Protocol):
    """Shows events as they come. Entering and leaving it begins and ends the display.

    Attributes:
        shows_replies: Whether it has a use for the pieces of a reply while it is being written.
    """

    shows_replies: bool

    def __enter__(self) -> Self:
        """Begins to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends; what follows on the stream stands on lines of its own."""
        ...

    def show(self, event: RunEvent, tally: Tally) -> None:
        """Shows one event; `tally` has it counted already. Neither blocks for long nor raises."""
        ...

    def note(self, sentence: str) -> None:
        """Shows a sentence that the user is to read whatever else is shown."""
        ...


def progress_for(stream: TextIO, *, is_quiet: bool) -> Progress:
    """Returns the display that suits `stream`."""
    if is_quiet:
        return LineProgress(stream, shows_events=False)
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console)
    return LineProgress(stream, shows_events=True)


class LineProgress:
    """One line an event, for logs and pipes; notes alone where that is asked for."""

    shows_replies = False

    def __init__(self, stream: TextIO, *, shows_events: bool) -> None:
        """Writes to `stream`, which stays the caller's."""
        self._stream = stream
        self._shows_events = shows_events

    def __enter__(self) -> Self:
        """Does nothing: lines need no setting up."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Does nothing: each line is complete."""

    def show(self, event: RunEvent, tally: Tally) -> None:
        """Writes the event's line, if it has one."""
        line = describe(event, tally) if self._shows_events else None
        if line is not None:
            self._write(line)

    def note(self, sentence: str) -> None:
        """Writes the sentence."""
        self._write(sentence)

    def _write(self, line: str) -> None:
        try:
            print(for_terminal(line), file=self._stream, flush=True)
        except (OSError, ValueError):
            # Whoever read the lines is gone. A run that is being paid for goes on without them.
            self._shows_events = False


class LiveProgress:
    """A panel that changes in place, and goes away when the run has ended."""

    shows_replies = True

    def __init__(self, console: Console) -> None:
        """Draws on `console`."""
        self._console = console
        self._tally = Tally()
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=_FRAMES_PER_S,
            transient=True,
            redirect_stdout=False,  # the answer is nobody's progress
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Begins to draw, from a thread of its own."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the panel away."""
        self._live.stop()

    def show(self, event: RunEvent, tally: Tally) -> None:
        """Remembers the figures for the next frame; what ended stays as a line above the panel."""
        self._tally = tally
        if isinstance(event, RunStarted | SandboxReady | CellEnded | QueryRefused | RunEnded):
            self.note(describe(event, tally) or "")

    def note(self, sentence: str) -> None:
        """Puts the sentence above the panel."""
        self._console.print(Text(for_terminal(sentence)))  # Text: brackets in it are no markup

    def _draw(self) -> Group:
        tally = self._tally
        doing = f"turn {tally.turn} · asking the root model" if tally.turn else "starting"
        if tally.cell_id is not None:
            doing = f"turn {tally.turn} · cell {tally.cell_id}"
        children = ""
        if tally.child_count:
            children = f" · child runs {tally.open_child_count} open of {tally.child_count}"
        status = Text(doing, style="bold")
        status.append(
            f" · queries {tally.open_query_count} open of {tally.query_count}{children}"
            f" · {tally.spent()} · {tally.elapsed_s:.0f} s",
            style="default not bold",
        )
        lines = [status]
        if tally.cell_id is not None:
            lines += _block(tally.cell_source.splitlines()[:_SOURCE_LINES], "cyan")
            printed = tally.output_tail.decode("utf-8", errors="replace")
            lines += _block(printed.splitlines()[-_OUTPUT_LINES:], "dim")
        else:
            lines += _block(tally.reply_tail.splitlines()[-_OUTPUT_LINES:], "cyan")
        return Group(*lines)


def _block(lines: list[str], style: str) -> list[Text]:
    width = _LINE_CHARS
    return [
        Text(f"  {for_terminal(line[:width])}", style=style, no_wrap=True, overflow="ellipsis")
        for line in lines
    ]


def say(sentence: str) -> None:
    """Writes a sentence for the user to standard error."""
    LineProgress(sys.stderr, shows_events=False).note(sentence)
