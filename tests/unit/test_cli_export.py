"""What `rlm export` writes, where to, and what it refuses."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from support.trajectories import cancelled_run, direct_run, rich_run, write

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A run that ended well with its child run, one that was cancelled, and a direct one."""
    chronicles = (rich_run("rich"), cancelled_run("gone"), direct_run("direct"))
    return str(write(tmp_path / "t.jsonl", *chronicles))


def exported(capsys: Capture, *arguments: str) -> list[Any]:
    """Returns the rows that `rlm export` prints."""
    assert command_line(["export", *arguments, "--out", "-"]) == ExitCode.DONE
    printed = capsys.readouterr().out
    assert printed.isascii()
    return [json.loads(line) for line in printed.splitlines()]


def refused(capsys: Capture, *arguments: str) -> str:
    """Returns why `rlm export` ends with 2."""
    assert command_line(["export", *arguments]) == ExitCode.BAD_INPUT
    streams = capsys.readouterr()
    assert streams.out == ""
    return streams.err


def test_sft_rows_are_printed(file: str, capsys: Capture) -> None:
    """A row for each chat of a root model: two of a compacted run, its child run's, and so on."""
    rows = exported(capsys, file, "--to", "sft")

    assert [row["metadata"]["run_id"] for row in rows] == ["rich", "rich", "c0ffeerich", "gone"]
    assert all(row.keys() == {"messages", "metadata"} for row in rows)


def test_rl_episodes_are_printed(file: str, capsys: Capture) -> None:
    """An episode for each run in which a root model replied."""
    rows = exported(capsys, file, "--to", "rl")

    assert [row["run_id"] for row in rows] == ["rich", "c0ffeerich", "gone"]
    assert {row["reward"] for row in rows} == {None}


def test_what_was_written_is_said(file: str, capsys: Capture) -> None:
    """How many rows of how many runs, on standard error; runs without a row are mentioned."""
    command_line(["export", file, "--to", "sft", "--out", "-"])

    assert capsys.readouterr().err == ("4 rows of 4 runs; 1 run without a reply of a root model.\n")


def test_runs_can_be_left_out(file: str, capsys: Capture) -> None:
    """Those that did not come to an answer, and child runs."""
    finished = exported(capsys, file, "--to", "rl", "--finished-only")
    roots = exported(capsys, file, "--to", "rl", "--root-only")
    one = exported(capsys, file, "--to", "rl", "--run", "go")

    assert [row["run_id"] for row in finished] == ["rich", "c0ffeerich"]
    assert [row["run_id"] for row in roots] == ["rich", "gone"]
    assert [row["run_id"] for row in one] == ["gone"]
    assert "no run to export" in refused(
        capsys, file, "--to", "rl", "--out", "-", "--run", "go", "--finished-only"
    )


def test_log_for_the_viewer_is_of_one_run(file: str, capsys: Capture) -> None:
    """The viewer reads one run a file; of several one has to be named, or a folder."""
    metadata, *iterations = exported(capsys, file, "--to", "visualizer", "--run", "rich")

    assert metadata["type"] == "metadata"
    assert len(iterations) == 5
    assert "there are 3: name one with --run" in refused(
        capsys, file, "--to", "visualizer", "--out", "-"
    )


def test_logs_of_several_runs_go_into_a_folder(file: str, tmp_path: Path, capsys: Capture) -> None:
    """One file a run of a caller's; child runs are nested."""
    out = tmp_path / "logs"

    assert command_line(["export", file, "--to", "visualizer", "--out", f"{out}/"]) == 0

    assert sorted(path.name for path in out.iterdir()) == [
        "direct.jsonl",
        "gone.jsonl",
        "rich.jsonl",
    ]
    assert "3 logs" in capsys.readouterr().err


def test_run_of_elsewhere_cannot_choose_where_it_is_written(
    tmp_path: Path, capsys: Capture
) -> None:
    """A trajectory that somebody sent may call its run anything; no file is written for it."""
    out = tmp_path / "logs"
    out.mkdir()
    path = write(tmp_path / "t.jsonl", direct_run("../escaped"), direct_run("second"))

    assert "an id that is no file name" in refused(
        capsys, str(path), "--to", "visualizer", "--out", str(out)
    )
    assert not (tmp_path / "escaped.jsonl").exists()


def test_rows_go_into_a_file_for_its_owner_alone(
    file: str, tmp_path: Path, capsys: Capture
) -> None:
    """It holds what trajectories hold; an older file of that name is replaced."""
    out = tmp_path / "deep" / "rows.jsonl"

    for _ in range(2):
        assert command_line(["export", file, "--to", "rl", "--out", str(out)]) == ExitCode.DONE

    assert len(out.read_text().splitlines()) == 3
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert capsys.readouterr().out == ""


def test_trajectory_is_never_overwritten(file: str, tmp_path: Path, capsys: Capture) -> None:
    """A mistyped target does not cost the source, by whichever name it is called."""
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    before = Path(file).read_bytes()

    for target in (file, str(link)):
        assert "is one of the trajectories" in refused(capsys, file, "--to", "sft", "--out", target)
    assert Path(file).read_bytes() == before


def test_digests_are_no_training_rows(tmp_path: Path, capsys: Capture) -> None:
    """A trajectory without texts is refused for training, and can be looked at all the same."""
    path = str(write(tmp_path / "t.jsonl", rich_run("r"), records_text=False))

    for form in ("sft", "rl"):
        assert "run r was recorded without texts" in refused(
            capsys, path, "--to", form, "--out", "-"
        )
    _, *iterations = exported(capsys, path, "--to", "visualizer")
    assert iterations[0]["response"].startswith("sha256:")


def test_file_that_cannot_be_read_stops_the_export(
    file: str, tmp_path: Path, capsys: Capture
) -> None:
    """Half of the rows would be taken for all of them."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n")
    out = tmp_path / "rows.jsonl"

    assert "bad.jsonl, line 1" in refused(capsys, file, str(bad), "--to", "sft", "--out", str(out))
    assert not out.exists()


def test_target_that_cannot_be_written_is_said(file: str, tmp_path: Path, capsys: Capture) -> None:
    """With what to do about it."""
    (tmp_path / "plain").touch()

    assert "cannot be written" in refused(
        capsys, file, "--to", "rl", "--out", str(tmp_path / "plain" / "rows.jsonl")
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["t.jsonl", "--out", "-"], "Missing option '--to'"),
        (["t.jsonl", "--to", "sft"], "Missing option '--out'"),
        (["t.jsonl", "--to", "csv", "--out", "-"], "'csv' is not one of"),
    ],
)
def test_wrong_usage_is_said(capsys: Capture, arguments: list[str], said: str) -> None:
    """What is missing or unknown is named."""
    assert said in refused(capsys, *arguments)
