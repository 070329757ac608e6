"""A line of a trajectory, as a reader of any file meets it.

Holds: nothing is raised but an input error; an event that is read can be written and is then read
as the same event; with texts left out, none is in the line.
"""

from __future__ import annotations

from datetime import UTC, datetime

from support.fuzz_data import text_of

from orchestrator.errors import InputError
from orchestrator.trajectory.lines import event_of, line_of

TOKENS = (
    *(
        b'"version": 2',
        b'"event"',
        b'"time"',
        b'"run_started"',
        b'"turn_started"',
        b'"cell_ended"',
        b'"query_ended"',
        b'"run_ended"',
    ),
    *(
        b'"result"',
        b'"usage"',
        b'"state"',
        b'"outcome"',
        b'"reply"',
        b'"turn"',
        b'"messages"',
        b'"controls"',
        b'"text"',
    ),
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"1e999",
        b"NaN",
        b"-1",
        b'"kept"',
        b'"succeeded"',
        b'"\\ud800"',
    ),
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def TestOneInput(data: bytes) -> None:
    """Reads a line; writes and reads again what was in it."""
    try:
        event = event_of(text_of(data))
    except InputError:
        return
    line = line_of(event, time=NOW, records_text=True)
    assert line.isascii()
    assert "\n" not in line
    assert event_of(line) == event
    without_text = line_of(event, time=NOW, records_text=False)
    again = event_of(without_text)
    assert type(again) is type(event)
    assert line_of(event, time=NOW, records_text=False) == without_text
