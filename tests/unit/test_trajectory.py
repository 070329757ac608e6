"""A trajectory says what happened, survives what happens to files, and reads back as it was."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
from pathlib import Path
from typing import get_args

import pytest
from support.statements import controls_of

from orchestrator.domain import (
    AnswerSource,
    CellError,
    CellId,
    CellResult,
    CellUsage,
    ContextKind,
    Draft,
    FinishReason,
    ModelReply,
    ModelUsage,
    Outcome,
    OutputStream,
    Printed,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    RunId,
    Timings,
    Variable,
    VariableState,
)
from orchestrator.errors import InputError
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    QueryEnded,
    QueryRefused,
    QueryStarted,
    ReplyReceived,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
    TurnStarted,
)
from orchestrator.trajectory.jsonl import open_trajectory, read_trajectory

TENANT_TEXT = "tenant's text"
NASTY = f"{TENANT_TEXT}: é \x00 \x1b[31m \u202e \u2028 \ud800 {{}} \n"

FAILURE = QueryFailure(reason=QueryFailureReason.TOO_LARGE, message="cut it into pieces")
EVENTS: tuple[RunEvent, ...] = (
    RunStarted(
        run_id=RunId("r1"),
        question=NASTY,
        context_kind=ContextKind.DOCUMENTS,
        context_chars=10_000_000,
        context_sha256_hex="ab" * 32,
        root_model="root",
        sub_model="sub",
        profile="small",
        is_scripted=True,
    ),
    SandboxReady(
        sandbox_id="s1",
        image_id="sha256:1",
        runtime="runsc",
        start_s=0.25,
        controls=controls_of("s1"),
    ),
    TurnStarted(turn=0),
    ReplyReceived(
        turn=1,
        reply=ModelReply(text=NASTY, prompt_tokens=5, cost_usd=0.125, was_cut=True),
        cell_count=2,
        wall_s=1.0,
    ),
    CellStarted(turn=1, cell_id=CellId(3), source=NASTY),
    CellEnded(
        turn=1,
        result=CellResult(
            cell_id=CellId(3),
            outcome=Outcome.RAISED,
            state=VariableState.ROLLED_BACK,
            stdout=Printed(head=NASTY, tail=NASTY, total_bytes=2**40, dropped_bytes=1),
            stderr=Printed(head=NASTY, total_bytes=3),
            error=CellError(type_name="ValueError", message=NASTY, traceback=NASTY),
            answer=Draft(content=NASTY, is_ready=True),
            variables=(
                Variable(name="x", type_name="int", size=None),
                Variable(name="y", type_name="list", size=3),
            ),
            usage=CellUsage(wall_s=1.5, cpu_s=1.0, peak_memory_bytes=7, query_count=2),
        ),
    ),
    CellEnded(
        turn=2,
        result=CellResult(cell_id=CellId(4), outcome=Outcome.SUCCEEDED, state=VariableState.KEPT),
    ),
    QueryStarted(
        query_id=QueryId("q"), prompt_index=0, cell_id=CellId(3), prompt=NASTY, is_repeat=True
    ),
    QueryEnded(
        query_id=QueryId("q"),
        prompt_index=0,
        reply=ModelReply(text=NASTY),
        failure=None,
        wall_s=0.0,
    ),
    QueryEnded(query_id=QueryId("q"), prompt_index=1, reply=None, failure=FAILURE, wall_s=2.5),
    QueryRefused(query_id=QueryId("p"), cell_id=CellId(3), prompt_count=9, failure=FAILURE),
    RunEnded(
        run_id=RunId("r1"),
        finish_reason=FinishReason.SANDBOX_LOST,
        answer=NASTY,
        answer_source=AnswerSource.DRAFT,
        failure="the container exited with 137",
        usage={"root": ModelUsage(request_count=1, cost_usd=0.5), "sub": ModelUsage()},
        turn_count=2,
        query_count=9,
        timings=Timings(total_s=3.0, start_s=0.25, root_model_s=1.0, cells_s=1.5),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a folder that is not there yet."""
    return tmp_path / "runs" / "one.jsonl"


@pytest.fixture
def one_line(path: Path) -> dict[str, object]:
    """The record of one event."""
    write(path, TurnStarted(turn=1))
    record: dict[str, object] = json.loads(path.read_text())
    return record


def write(path: Path, *events: RunEvent, records_text: bool = True) -> None:
    """Writes events as a run would."""
    with open_trajectory(path, records_text=records_text) as sink:
        for event in events:
            sink(event)


def test_the_sample_holds_every_event_of_a_trajectory() -> None:
    """An event that is added to the run is added to this test."""
    assert {type(event) for event in EVENTS} == set(get_args(RunEvent)) - {CellPrinted}


def test_events_read_back_as_they_were(path: Path) -> None:
    """Every field of every event survives, whatever characters it holds."""
    write(path, *EVENTS)

    assert read_trajectory(path) == EVENTS


def test_a_line_says_version_kind_and_time(one_line: dict[str, object]) -> None:
    """Each line can be read alone."""
    time = one_line.pop("time")

    assert one_line == {"version": 1, "event": "turn_started", "records_text": True, "turn": 1}
    assert str(time).endswith("+00:00")


def test_a_file_is_safe_to_look_at(path: Path) -> None:
    """One line an event, in printable ASCII: no escape sequence reaches a terminal."""
    write(path, *EVENTS)
    data = path.read_bytes()

    assert data.count(b"\n") == len(EVENTS)
    assert all(0x20 <= byte < 0x7F or byte == 0x0A for byte in data)


def test_a_file_is_for_its_owner_alone(path: Path) -> None:
    """It holds what a user asked, so others on the host do not read it."""
    write(path, TurnStarted(turn=1))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pieces_of_output_are_left_out(path: Path) -> None:
    """The result of a cell holds its output; the pieces would say it twice."""
    write(path, CellPrinted(cell_id=CellId(1), stream=OutputStream.STDOUT, data=b"x"))

    assert read_trajectory(path) == ()


def test_texts_are_left_out_on_request(path: Path) -> None:
    """No text of a tenant is in the file; digest and length are, and it still reads back."""
    write(path, *EVENTS, records_text=False)
    digest = hashlib.sha256(NASTY.encode("utf-8", "surrogatepass")).hexdigest()
    started, *_, ended = read_trajectory(path)

    assert TENANT_TEXT not in path.read_text()
    assert isinstance(started, RunStarted)
    assert started.question == f"sha256:{digest} chars:{len(NASTY)}"
    assert isinstance(ended, RunEnded)
    assert ended.failure == "the container exited with 137"


def test_an_empty_text_stays_empty_without_texts(path: Path) -> None:
    """That a run had no answer is not a secret."""
    write(path, EVENTS[6], records_text=False)

    assert read_trajectory(path) == (EVENTS[6],)


def test_events_are_in_the_file_as_they_happen(path: Path) -> None:
    """A run that is killed leaves what had happened."""
    with open_trajectory(path) as sink:
        sink(TurnStarted(turn=1))

        assert read_trajectory(path) == (TurnStarted(turn=1),)


def test_runs_are_appended(path: Path) -> None:
    """A second run does not erase the first."""
    write(path, TurnStarted(turn=1))
    write(path, TurnStarted(turn=2))

    assert read_trajectory(path) == (TurnStarted(turn=1), TurnStarted(turn=2))


def test_a_last_line_that_was_cut_off_is_left_out(path: Path) -> None:
    """What a killed process left of a line does not hide the lines before it."""
    write(path, *EVENTS)
    path.write_bytes(path.read_bytes()[:-20])

    assert read_trajectory(path) == EVENTS[:-1]


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
        sink(TurnStarted(turn=1))

    assert (sink.written_path, caplog.records) == (path, [])


def test_a_file_that_cannot_be_opened_is_refused_before_the_run(tmp_path: Path) -> None:
    """Nothing has been paid for yet, so the caller is told."""
    with pytest.raises(InputError, match="name another file"):
        open_trajectory(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 2}, "line 1: trajectory version 2; this release reads version 1"),
        ({"version": "x" * 999}, "trajectory version 'x"),
        ({"event": "turn_skipped"}, "no event is called 'turn_skipped'"),
        ({"event": ["turn_started"]}, "no event is called"),
        ({"turn": "1"}, "turn_started.turn is of type str, expected int"),
        ({"turn": True}, "turn_started.turn is of type bool, expected int"),
        ({"turn": None}, "turn_started.turn is of type NoneType, expected int"),
    ],
)
def test_what_is_not_understood_is_refused(
    path: Path, one_line: dict[str, object], change: dict[str, object], complaint: str
) -> None:
    """A reader never guesses: it says where and what, and names no event it made up."""
    path.write_text(json.dumps(one_line | change) + "\n")

    with pytest.raises(InputError) as caught:
        read_trajectory(path)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"version": 1}', "null"])
def test_what_is_no_event_is_refused(path: Path, line: str) -> None:
    """A file that is something else is said to be."""
    path.parent.mkdir()
    path.write_text(f"{line}\n")

    with pytest.raises(InputError, match="line 1"):
        read_trajectory(path)


def test_a_missing_field_is_refused(path: Path, one_line: dict[str, object]) -> None:
    """A field without a default has to be there."""
    del one_line["turn"]
    path.write_text(json.dumps(one_line) + "\n")

    with pytest.raises(InputError, match=r"turn_started\.turn is missing"):
        read_trajectory(path)


def test_a_field_of_a_later_release_is_passed_over(path: Path, one_line: dict[str, object]) -> None:
    """Within a version, fields are only added; an older reader leaves out what it does not know."""
    path.write_text(json.dumps(one_line | {"mood": "good"}) + "\n")

    assert read_trajectory(path) == (TurnStarted(turn=1),)


def test_sandbox_without_a_statement_is_read(path: Path) -> None:
    """A file of a release that made no statement of controls is read as it was."""
    write(path, EVENTS[1])
    record = json.loads(path.read_text())
    del record["controls"]
    path.write_text(json.dumps(record) + "\n")

    [read] = read_trajectory(path)

    assert isinstance(read, SandboxReady)
    assert read.controls is None


def test_a_field_with_a_default_may_be_missing(path: Path) -> None:
    """Within a version, files of earlier releases are read."""
    event = EVENTS[7]
    write(path, event)
    record = json.loads(path.read_text())
    del record["is_repeat"]
    path.write_text(json.dumps(record) + "\n")

    [read] = read_trajectory(path)
    assert isinstance(read, QueryStarted)
    assert not read.is_repeat


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The caller learns that there is no such file."""
    with pytest.raises(InputError, match="cannot be read"):
        read_trajectory(tmp_path / "none.jsonl")
