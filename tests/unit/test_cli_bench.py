"""`rlm bench` before anything is measured: what it takes, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.front_end import forget_settings

from orchestrator.bench.catalogue import BENCHMARKS
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


def test_help_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wants one row finds its name in the help."""
    assert command_line(["bench", "--help"]) == ExitCode.DONE

    text = "".join(capsys.readouterr().out.split())
    assert all(one.name in text for one in BENCHMARKS)


def test_unknown_row_is_refused_before_an_engine_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A misspelt row is bad input; the message has the names there are."""
    assert command_line(["bench", "--only", "empty-sell"]) == ExitCode.BAD_INPUT

    error = capsys.readouterr().err
    assert "Did you mean empty-cell?" in error
    assert "cold-start" in error
    assert "no-engine.sock" not in error


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--scale"], ["--peers", "--quick"]])
def test_without_an_engine_it_says_so_and_prints_nothing(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Where nothing can be measured the address that was tried is named, without a traceback."""
    assert command_line(["bench", *arguments]) == ExitCode.NOT_STARTED

    streams = capsys.readouterr()
    assert "no-engine.sock" in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


@pytest.mark.parametrize(
    "arguments", [["--sessions", "0"], ["--busy", "-1"], ["--seconds", "nan"], ["--seconds", "0"]]
)
def test_bounds_of_the_curve_are_checked(arguments: list[str]) -> None:
    """A curve of no session, or of no time, is bad usage."""
    assert command_line(["bench", "--scale", *arguments]) == ExitCode.BAD_INPUT
