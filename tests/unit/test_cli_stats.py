"""What a reader of `rlm stats` sees, and what its exit code says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.trajectories import cancelled_run, direct_run, rich_run, write

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four runs in three files, one of them further down."""
    (tmp_path / "deep").mkdir()
    write(tmp_path / "a.jsonl", rich_run("aaaa"))
    write(tmp_path / "deep" / "b.jsonl", cancelled_run("bbbb"), direct_run("cccc"))
    small = rich_run("dddd")
    first = small.records[0]
    object.__setattr__(first.event, "root_model", "small-model")
    object.__setattr__(first.event, "profile", "small")
    write(tmp_path / "c.jsonl", small)
    (tmp_path / "notes.txt").write_text("no trajectory")
    return tmp_path


def counted(capsys: Capture, *arguments: str, code: ExitCode = ExitCode.DONE) -> str:
    """Returns what `rlm stats` prints."""
    assert command_line(["stats", *arguments]) == code
    return capsys.readouterr().out


def report(capsys: Capture, *arguments: str, code: ExitCode = ExitCode.DONE) -> Any:  # noqa: ANN401 - JSON
    line = counted(capsys, *arguments, "--json", code=code)
    assert line.isascii()
    return json.loads(line)


def test_runs_of_a_folder_are_counted(folder: Path, capsys: Capture) -> None:
    """Every *.jsonl at any depth; how many runs, how they ended, and how much of what."""
    text = counted(capsys, str(folder))

    assert text.startswith("4 runs in 3 files\n")
    assert "3 answered, 1 cancelled" in text
    assert re.search(r"cost +\$0\.0200 +\$0\.1015 +\$0\.1015 +\$0\.2234", text)
    assert re.search(r"turns +1 +5 +5 +11", text)
    assert re.search(r"prompts repeated +0 +3 +3 +6", text)
    assert re.search(r"cost against one prompt +0\.03 x +0\.03 x +0\.03 x +2 of 4", text)


def test_most_expensive_runs_are_named_with_their_files(folder: Path, capsys: Capture) -> None:
    """The tail is what users fear: each run of it has the line to look into it with."""
    tail = counted(capsys, str(folder)).partition("most expensive\n")[2]

    assert tail.lstrip().startswith("$0.1015")
    assert "Which function parses the header" in tail
    command = re.search(r"rlm (trace \S+ --run \S+)", tail)
    assert command is not None
    assert command_line(command[1].split()) == ExitCode.DONE


def test_groups_are_by_model_and_profile(folder: Path, capsys: Capture) -> None:
    """All together first, then each root model with its profile."""
    groups = report(capsys, str(folder), "--by", "model")["groups"]

    assert [(group["name"], group["run_count"]) for group in groups] == [
        ("", 4),
        ("gpt-5, profile gpt-5", 3),
        ("small-model, profile small", 1),
    ]
    names = [group["name"] for group in report(capsys, str(folder), "--by", "profile")["groups"]]
    assert names == ["", "profile gpt-5", "profile small"]
    assert "small-model, profile small: 1 run" in counted(capsys, str(folder), "--by", "model")


def test_json_has_the_figures_and_how_they_were_made(folder: Path, capsys: Capture) -> None:
    """For programs: exact figures, by measure, and the method of percentiles."""
    told = report(capsys, str(folder))

    assert (told["version"], told["percentiles"], told["file_count"]) == (1, "nearest-rank", 3)
    cost = told["groups"][0]["distributions"]["cost_usd"]
    assert cost["known_count"] == 4
    assert cost["max"] == pytest.approx(0.1015)
    assert told["groups"][0]["finish_reasons"] == {"answered": 3, "cancelled": 1}
    assert {run["run_id"] for run in told["most_expensive"]} == {"aaaa", "bbbb", "cccc", "dddd"}
    assert told["skipped"] == {}


def test_file_that_cannot_be_read_is_named_and_skipped(folder: Path, capsys: Capture) -> None:
    """The others are counted; the exit code says that not all were."""
    bad = folder / "bad.jsonl"
    bad.write_text('{"version": 1}\n')

    assert command_line(["stats", str(folder)]) == ExitCode.FAILED
    streams = capsys.readouterr()
    assert streams.out.startswith("4 runs in 4 files")
    assert f"skipped: {bad}, line 1: trajectory version 1" in streams.err

    told = report(capsys, str(folder), code=ExitCode.FAILED)
    assert list(told["skipped"]) == [str(bad)]


def test_file_that_is_not_there_and_folder_without_any_are_said(
    folder: Path, capsys: Capture
) -> None:
    """A mistyped name is no empty result."""
    empty = folder / "empty"
    empty.mkdir()

    told = report(
        capsys,
        str(folder / "a.jsonl"),
        str(folder / "absent.jsonl"),
        str(empty),
        code=ExitCode.FAILED,
    )

    assert set(told["skipped"]) == {str(folder / "absent.jsonl"), str(empty)}
    assert told["groups"][0]["run_count"] == 1


def test_no_run_at_all_is_bad_input(tmp_path: Path, capsys: Capture) -> None:
    """Where there is nothing to count, that is what is said."""
    assert command_line(["stats", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert "none of the files holds a run" in capsys.readouterr().err


def test_run_that_was_cut_off_is_in_the_figures(tmp_path: Path, capsys: Capture) -> None:
    """With what it had cost until then."""
    chronicle = rich_run("kkkk")
    chronicle.records = chronicle.records[:30]
    path = write(tmp_path / "t.jsonl", chronicle)

    told = report(capsys, str(path))

    assert told["groups"][0]["finish_reasons"] == {"cut_off": 1}
    assert told["most_expensive"][0]["cost_usd"] > 0
    assert "1 cut off" in counted(capsys, str(path))
