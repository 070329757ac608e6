import json
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
    assert out.startswith("failed   engine: ")
    assert "no-engine.sock" in out


def test_doctor_says_what_is_missing_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs: a verdict and each finding with its advice."""
    assert command_line(["doctor", "--json"]) == ExitCode.FAILED

    found = json.loads(capsys.readouterr().out)
    assert found["is_ready"] is False
    assert {"engine", "socket-path"} <= {finding["name"] for finding in found["findings"]}
    assert all(set(f) == {"name", "status", "found", "advice"} for f in found["findings"])


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
