import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from support.front_end import forget_settings

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")


def test_doctor_says_what_is_missing_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """On a host without an engine, doctor fails and names the address that was tried."""
    assert command_line(["doctor"]) == ExitCode.FAILED

    out = capsys.readouterr().out
    assert re.search(r"^ failed +engine ", out, flags=re.MULTILINE)
    assert "no-engine.sock" in out
    assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_doctor_says_what_is_missing_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs: a verdict and each finding with its advice."""
    assert command_line(["doctor", "--json"]) == ExitCode.FAILED

    found = json.loads(capsys.readouterr().out)
    assert found["is_ready"] is False
    assert found["version"] == 1
    assert datetime.fromisoformat(found["made_at"]).tzinfo is not None
    assert {"engine", "socket-path"} <= {finding["id"] for finding in found["findings"]}
    assert all(
        set(finding) == {"id", "status", "found", "expected", "advice"}
        for finding in found["findings"]
    )


def test_attack_without_an_engine_is_a_report_of_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where no sandbox can be had the battery reports that, and ends like one that failed."""
    assert command_line(["doctor", "--attack", "--json"]) == ExitCode.FAILED

    streams = capsys.readouterr()
    report = json.loads(streams.out)["attack_report"]
    assert report["attacks"] == []
    assert report["summary"]["is_sealed"] is False
    assert "no-engine.sock" in report["summary"]["problem"]
    assert "Traceback" not in streams.err


@pytest.mark.parametrize(
    "arguments", [["setup"], ["image", "ls"], ["image", "build"], ["exec", "{file}"]]
)
def test_missing_engine_ends_with_4_and_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    """Every command that needs an engine ends the same where the named one does not answer."""
    (tmp_path / "cell.py").write_text("", "utf-8")
    given = [argument.format(file=tmp_path / "cell.py") for argument in arguments]

    assert command_line(given) == ExitCode.NOT_STARTED

    streams = capsys.readouterr()
    assert streams.out == ""
    assert "no-engine.sock" in streams.err
    assert "Traceback" not in streams.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model", "serve"], "rlm model fetch"),
        (["model", "fetch", "--from", "absent.gguf"], "absent.gguf: cannot be read"),
    ],
)
def test_missing_weights_end_with_4_and_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Without the model's file nothing is served, and the message says how to get it."""
    assert command_line(arguments) == ExitCode.NOT_STARTED

    assert said in capsys.readouterr().err
