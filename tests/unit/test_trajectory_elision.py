"""A trajectory without texts holds no word of a tenant, and stays of use."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import get_type_hints

import pytest
from support.event_values import RECORDED_EVENTS, classes_in, filled_with
from support.trajectories import ANSWER, QUESTION, rich_run, write

from orchestrator import chat, controls, domain, events
from orchestrator.events import RunEvent, RunStarted
from orchestrator.trajectory.elision import TEXT_FIELDS, described_elision, elided
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records
from orchestrator.trajectory.lines import line_of, record_of
from orchestrator.trajectory.spending import time_shares, usage_by_model
from orchestrator.trajectory.tree import RecordedRun

NOW = datetime(2026, 11, 3, tzinfo=UTC)
MARK = "tenant's text: é \ud800"

#: Texts that nobody but the operator or this product wrote: ids, digests, names that the settings
#: or the caller's program chose, and sentences that are the engine's own.
OURS: dict[type, set[str]] = {
    events.RunStarted: {
        *("run_id", "context_sha256_hex", "root_model", "sub_model", "profile"),
        *("parent_run_id", "parent_query_id", "tool_names"),
    },
    events.SandboxReady: {"run_id", "sandbox_id", "image_id", "runtime"},
    events.TurnStarted: {"run_id"},
    events.ReplyReceived: {"run_id"},
    events.CellStarted: {"run_id"},
    events.CellEnded: {"run_id"},
    events.QueryStarted: {"run_id", "query_id", "model", "tool_name"},
    events.QueryEnded: {"run_id", "query_id"},
    events.QueryRefused: {"run_id", "query_id"},
    events.RequestFailed: {"run_id", "model"},
    events.Noticed: {"run_id", "text"},
    events.TranscriptCompacted: {"run_id"},
    events.RunEnded: {"run_id", "limit", "usage"},
    chat.Message: {"role"},
}
#: What a sandbox is made of and shut in by; nothing of it comes from a run.
NOT_OF_A_RUN = set(classes_in(controls.Controls))


def text_fields(kind: type) -> set[str]:
    """Returns the fields of a class that hold text, by their types alone."""
    hints = get_type_hints(kind)
    ids = (domain.RunId, domain.QueryId, domain.SandboxId)
    texts: list[object] = [str, str | None, tuple[str, ...], chat.Role, *ids]
    texts += [each | None for each in ids]
    return {
        field.name
        for field in fields(kind)
        if hints[field.name] in texts or "dict[str" in str(hints[field.name])
    }


EVENT_PARTS = sorted(
    {part for kind in RECORDED_EVENTS for part in classes_in(kind)} - NOT_OF_A_RUN,
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", EVENT_PARTS, ids=lambda kind: kind.__name__)
def test_every_text_is_somebodys(kind: type) -> None:
    """Whoever adds a text to an event says whether a tenant may have written it."""
    theirs, ours = set(TEXT_FIELDS.get(kind, ())), OURS.get(kind, set())

    assert theirs | ours == text_fields(kind)
    assert theirs & ours == set()


@pytest.mark.parametrize("kind", RECORDED_EVENTS, ids=lambda kind: kind.__name__)
def test_no_text_of_a_tenant_is_left(kind: type[RunEvent]) -> None:
    """However deep it stands, a text that may be a tenant's is replaced by digest and length."""
    event = filled_with(MARK, kind)
    digest = hashlib.sha256(MARK.encode("utf-8", "surrogatepass")).hexdigest()
    record = record_of(line_of(event, time=NOW, records_text=False))
    stood_in = f"sha256:{digest} chars:{len(MARK)}"

    for held in _parts(record.event):
        for name in TEXT_FIELDS.get(type(held), ()):
            assert getattr(held, name) == stood_in


def _parts(value: object) -> list[object]:
    """Returns a value and all that is in it."""
    inside: list[object] = [value]
    if type(value) in EVENT_PARTS:
        for name in (field.name for field in fields(value)):  # type: ignore[arg-type]  # a dataclass
            inside += _parts(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            inside += _parts(item)
    return inside


def test_no_text_of_a_run_is_in_its_file(tmp_path: Path) -> None:
    """Looked at from outside: what was asked, written, printed and answered is not in the file."""
    kept = write(tmp_path / "kept.jsonl", rich_run()).read_text()
    without = write(tmp_path / "without.jsonl", rich_run(), records_text=False).read_text()

    for text in (QUESTION, ANSWER, "parse_headers", "LineTooLong", "http.client", "api.example"):
        assert text in kept
        assert text not in without


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("", ""),
        ("MemoryError", "MemoryError"),
        ("list", "list"),
        ("x", f"sha256:{hashlib.sha256(b'x').hexdigest()} chars:1"),
        ("PatientNameError", f"sha256:{hashlib.sha256(b'PatientNameError').hexdigest()} chars:16"),
    ],
)
def test_names_that_tell_nothing_stay(text: str, stands: str) -> None:
    """No answer is no secret, nor is a name of Python's; one that a cell made up may be."""
    assert elided(text) == stands


def test_elision_is_described_in_short() -> None:
    """A reader sees that there was a text, which one where it is seen again, and how long."""
    digest = hashlib.sha256(b"word" * 500).hexdigest()

    assert described_elision(elided("word" * 500)) == f"sha256:{digest[:12]}… (2,000 characters)"
    assert described_elision("sha256: something else") is None


def test_figures_of_a_run_need_no_text(tmp_path: Path) -> None:
    """What was spent on what, and where the time went, is the same with and without texts."""
    kept = _read(write(tmp_path / "kept.jsonl", rich_run()))
    without = _read(write(tmp_path / "without.jsonl", rich_run(), records_text=False))

    assert usage_by_model(without) == usage_by_model(kept)
    assert time_shares(without) == time_shares(kept)
    assert (kept.records_text, without.records_text) == (True, False)
    assert all(not run.records_text for run in without.walk())


def test_question_that_is_recorded_as_a_digest_is_the_same_digest_again() -> None:
    """The same question in two trajectories can be told to be the same."""
    first, second = (filled_with("which?", RunStarted) for _ in range(2))

    lines = [record_of(line_of(event, time=NOW, records_text=False)) for event in (first, second)]

    assert lines[0] == lines[1]


def _read(path: Path) -> RecordedRun:
    [run] = runs_of(read_records(path))
    return run
