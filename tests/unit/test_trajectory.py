"""A trajectory says what happened, survives what happens to files, and reads back as it was."""

from __future__ import annotations

import json
import logging
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.event_values import RECORDED_EVENTS, filled_with, instances_of
from support.trajectories import cancelled_run, rich_run, write

from orchestrator.domain import CellId, OutputStream, QueryId, RunId
from orchestrator.errors import InputError
from orchestrator.events import (
    CellPrinted,
    QueryStarted,
    ReplyPiece,
    RunEvent,
    TurnStarted,
)
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import open_trajectory, read_records, read_trajectory
from orchestrator.trajectory.lines import event_of, line_of, record_of

NOW = datetime(2026, 11, 3, tzinfo=UTC)
NASTY = "tenant's text: é \x00 \x1b[31m \u202e \u2028 \ud800 {} \n"
EVENTS: tuple[RunEvent, ...] = tuple(filled_with(NASTY, kind) for kind in RECORDED_EVENTS)
RUN = RunId("r1")
FIRST, SECOND = TurnStarted(run_id=RUN, turn=1), TurnStarted(run_id=RUN, turn=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a folder that is not there yet."""
    return tmp_path / "runs" / "one.jsonl"


@pytest.fixture
def one_line(path: Path) -> dict[str, object]:
    """The record of one event."""
    record_to(path, FIRST)
    record: dict[str, object] = json.loads(path.read_text())
    return record


def record_to(path: Path, *events: RunEvent) -> None:
    """Records events as a run would."""
    with open_trajectory(path) as sink:
        for event in events:
            sink(event)


@pytest.mark.parametrize("kind", RECORDED_EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_any_event_reads_back_as_it_was(kind: type[RunEvent], data: st.DataObject) -> None:
    """Every field of every event survives, whatever is in it."""
    event = data.draw(instances_of(kind))

    assert event_of(line_of(event, time=NOW, records_text=True)) == event


def test_events_in_a_file_read_back_as_they_were(path: Path) -> None:
    """Likewise on the way through a file."""
    record_to(path, *EVENTS)

    assert read_trajectory(path) == EVENTS


@pytest.mark.parametrize("records_text", [True, False])
def test_record_says_when_and_whether_texts_are_kept(*, records_text: bool) -> None:
    """A reader learns the time of each event, and whether its texts are digests."""
    record = record_of(line_of(FIRST, time=NOW, records_text=records_text))

    assert (record.event, record.time, record.records_text) == (FIRST, NOW, records_text)


def test_a_line_says_version_kind_run_and_time(one_line: dict[str, object]) -> None:
    """Each line can be read alone."""
    time = one_line.pop("time")

    assert one_line == {
        "version": 2,
        "event": "turn_started",
        "records_text": True,
        "run_id": "r1",
        "turn": 1,
        "messages": [],
    }
    assert str(time).endswith("+00:00")


def test_a_file_is_safe_to_look_at(path: Path) -> None:
    """One line an event, in printable ASCII: no escape sequence reaches a terminal."""
    record_to(path, *EVENTS)
    data = path.read_bytes()

    assert data.count(b"\n") == len(EVENTS)
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in data)


def test_a_file_is_for_its_owner_alone(path: Path) -> None:
    """It holds what a user asked, so others on the host do not read it."""
    record_to(path, FIRST)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_events_of_a_moment_are_left_out(path: Path) -> None:
    """Replies and results hold what their pieces would say twice."""
    piece = ReplyPiece(run_id=RUN, turn=1, text="x")
    printed = CellPrinted(run_id=RUN, cell_id=CellId(1), stream=OutputStream.STDOUT, data=b"x")
    record_to(path, piece, printed)

    assert read_trajectory(path) == ()


def test_events_are_in_the_file_as_they_happen(path: Path) -> None:
    """A run that is killed leaves what had happened."""
    with open_trajectory(path) as sink:
        sink(FIRST)

        assert read_trajectory(path) == (FIRST,)


def test_runs_are_appended(path: Path) -> None:
    """A second run does not erase the first."""
    record_to(path, FIRST)
    record_to(path, SECOND)

    assert read_trajectory(path) == (FIRST, SECOND)


def test_a_file_may_hold_several_run_trees(tmp_path: Path) -> None:
    """Runs one after the other, child runs among their parents' events, are told apart."""
    path = write(tmp_path / "t.jsonl", rich_run("one"), cancelled_run("two"), rich_run("three"))

    runs = runs_of(read_records(path))

    assert [run.run_id for run in runs] == ["one", "two", "three"]
    assert [len(run.child_runs) for run in runs] == [1, 0, 1]


def test_a_last_line_that_was_cut_off_is_left_out(path: Path) -> None:
    """What a killed process left of a line does not hide the lines before it."""
    record_to(path, *EVENTS)
    path.write_bytes(path.read_bytes()[:-20])

    assert read_trajectory(path) == EVENTS[:-1]


def test_a_line_that_was_cut_off_does_not_spoil_the_next_run(path: Path) -> None:
    """A run that is appended after a killed one has lines of its own, and both are read."""
    record_to(path, FIRST, SECOND)
    path.write_bytes(path.read_bytes()[:-20])

    record_to(path, FIRST)

    assert read_trajectory(path) == (FIRST, FIRST)
    assert path.read_text().splitlines()[1].endswith("(cut off)")


def test_a_line_without_its_line_feed_alone_is_not_taken_for_whole(path: Path) -> None:
    """A reader's rule is the same before and after the next run is appended."""
    record_to(path, FIRST, SECOND)
    path.write_bytes(path.read_bytes()[:-1])
    before = read_trajectory(path)

    record_to(path, FIRST)

    assert (before, read_trajectory(path)) == ((FIRST,), (FIRST, FIRST))


def test_a_full_disk_costs_the_trajectory_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, nothing is raised, and the result names no file."""
    with caplog.at_level(logging.WARNING), open_trajectory(Path("/dev/full")) as sink:
        before = sink.written_path
        for event in EVENTS:
            sink(event)

    assert (before, sink.written_path) == (Path("/dev/full"), None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text


def test_a_whole_file_is_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The control: where the disk takes every line, the file is named after the run."""
    with open_trajectory(path) as sink:
        sink(FIRST)

    assert (sink.written_path, caplog.records) == (path, [])


def test_a_file_that_cannot_be_opened_is_refused_before_the_run(tmp_path: Path) -> None:
    """Nothing has been paid for yet, so the caller is told."""
    with pytest.raises(InputError, match="name another file"):
        open_trajectory(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 1}, "line 1: trajectory version 1; this release reads version 2"),
        ({"version": "x" * 999}, "trajectory version 'x"),
        ({"event": "turn_skipped"}, "no event is called 'turn_skipped' in this release"),
        ({"event": ["turn_started"]}, "no event is called"),
        ({"mood": "good"}, "a field 'mood', which this release does not know"),
        (
            {"messages": [{"role": "user", "content": "", "mood": ""}]},
            "messages has a field 'mood'",
        ),
        ({"messages": [{"role": "robot", "content": ""}]}, "role has an unknown value: 'robot'"),
        ({"turn": "1"}, "turn_started.turn is of type str, expected int"),
        ({"turn": True}, "turn_started.turn is of type bool, expected int"),
        ({"turn": None}, "turn_started.turn is of type NoneType, expected int"),
        ({"time": "yesterday"}, "time is no time as ISO 8601 has it: 'yesterday'"),
        ({"time": "2026-11-03T14:05:12"}, "time has no offset from UTC"),
        ({"time": 5}, "time is of type int, expected str"),
        ({"records_text": "yes"}, "records_text is of type str, expected bool"),
    ],
)
def test_what_is_not_understood_is_refused(
    path: Path, one_line: dict[str, object], change: dict[str, object], complaint: str
) -> None:
    """A reader never guesses: it says where and what, and leaves nothing out unsaid."""
    path.write_text(json.dumps(one_line | change) + "\n")

    with pytest.raises(InputError) as caught:
        read_trajectory(path)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"version": 2}', "null", "\x80"])
def test_what_is_no_event_is_refused(path: Path, line: str) -> None:
    """A file that is something else is said to be."""
    path.parent.mkdir()
    path.write_text(f"{line}\n", "latin-1")

    with pytest.raises(InputError, match="line 1"):
        read_trajectory(path)


def test_a_missing_field_is_refused(path: Path, one_line: dict[str, object]) -> None:
    """A field without a default has to be there."""
    del one_line["turn"]
    path.write_text(json.dumps(one_line) + "\n")

    with pytest.raises(InputError, match=r"turn_started\.turn is missing"):
        read_trajectory(path)


def test_a_field_with_a_default_may_be_missing(path: Path) -> None:
    """Within a version, files of earlier releases are read."""
    event = QueryStarted(
        run_id=RUN, query_id=QueryId("q"), prompt_index=0, cell_id=CellId(1), prompt="p"
    )
    record_to(path, event)
    record = json.loads(path.read_text())
    for name in ("kind", "model", "tool_name", "context_chars", "is_repeat"):
        del record[name]
    path.write_text(json.dumps(record) + "\n")

    assert read_trajectory(path) == (event,)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The caller learns that there is no such file."""
    with pytest.raises(InputError, match="cannot be read"):
        read_trajectory(tmp_path / "none.jsonl")
