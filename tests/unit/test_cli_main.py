import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.front_end import FakeParts, forget_settings

from orchestrator.cli.exit_codes import ExitCode, exit_code_of_error, exit_code_of_run
from orchestrator.cli.main import command_line
from orchestrator.domain import FinishReason
from orchestrator.errors import (
    BudgetExhaustedError,
    InputError,
    ModelRefusedError,
    ModelUnavailableError,
    ProtocolViolationError,
    RlmSandboxError,
    SandboxLostError,
    SandboxStartError,
    SessionCancelledError,
    SettingsError,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


def test_help_lists_commands_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists commands without importing them; each that it lists is there."""
    command_line(["--help"])
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", capsys.readouterr().out, re.MULTILINE)

    assert listed == [
        *("run", "exec", "trace", "stats", "export", "prompt"),
        *("doctor", "bench", "setup", "image", "model"),
    ]
    for name in listed:
        assert command_line([name, "--help"]) == ExitCode.DONE
        assert f"Usage: rlm {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["exec", "--help"]])
def test_help_has_the_exit_codes(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Whoever writes a script finds every exit code in the help."""
    assert command_line(arguments) == ExitCode.DONE

    text = capsys.readouterr().out
    codes = {int(code) for code in re.findall(r"\b(\d+)\s+[a-z]", text.partition("Exit codes:")[2])}
    assert codes == {int(code) for code in ExitCode}


def test_help_imports_none_of_the_parts() -> None:
    """`rlm --help` does not wait for an engine's client, a provider's SDK or gRPC."""
    program = (
        "import sys; from orchestrator.cli.main import command_line; command_line(['--help']);"
        "print([name for name in ('docker', 'openai', 'grpc', 'pydantic', 'asyncio')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["run", "q"], "Missing option '--context'"),
        (["run", "q", "--context", "x", "--memory", "2x"], "expected a size"),
        (["run", "q", "--context", "x", "--max-turns", "0"], "--max-turns"),
        (["run", "q", "--context", "x", "--max-queries", "-1"], "--max-queries"),
        (["run", "q", "--context", "x", "--max-time", "nan"], "a number above zero, got 'nan'"),
        (["run", "q", "--context", "x", "--timeout", "soon"], "a number above zero, got 'soon'"),
        (["run", "q", "--context", "x", "--policy", "none"], "not one of 'guarded', 'open'"),
        (["exec"], "Missing argument"),
        (["model", "serve", "--port", "0"], "--port"),
    ],
)
def test_wrong_usage_is_said_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """A mistyped command line ends with 2, names the mistake, and prints nothing else."""
    assert command_line(arguments, parts=FakeParts().parts) == ExitCode.BAD_INPUT

    streams = capsys.readouterr()
    assert said in streams.err
    assert streams.out == ""


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`rlm --version` says which release is installed."""
    assert command_line(["--version"]) == ExitCode.DONE
    assert re.fullmatch(r"rlm-sandbox \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_wrong_settings_end_with_4(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A misspelt variable stops the command before anything is run."""
    monkeypatch.setenv("RLM_MODLE", "x")
    context = tmp_path / "context"
    context.write_text("x", "utf-8")
    parts = FakeParts()

    code = command_line(["run", "q", "--context", str(context)], parts=parts.parts)

    assert code == ExitCode.NOT_STARTED
    assert "did you mean RLM_MODEL" in capsys.readouterr().err
    assert parts.settings == []


def test_config_option_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--config names the settings file for whichever command follows."""
    code = command_line(
        ["--config", str(tmp_path / "absent.toml"), "run", "q", "--context", "x"],
        parts=FakeParts().parts,
    )

    assert code == ExitCode.NOT_STARTED
    assert "absent.toml does not exist" in capsys.readouterr().err


def test_defect_is_one_message_and_debug_shows_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An exception nobody meant ends in a sentence; with --debug, in its traceback as well."""
    context = tmp_path / "context"
    context.write_text("x", "utf-8")

    def break_down(_messages: object) -> str:
        raise ZeroDivisionError("a defect\x1b[31m")

    parts = FakeParts(root=[break_down]).parts
    arguments = ["run", "q", "--context", str(context), "--quiet"]

    assert command_line(arguments, parts=parts) == ExitCode.FAILED
    plain = capsys.readouterr().err
    assert command_line(["--debug", *arguments], parts=parts) == ExitCode.FAILED
    debug = capsys.readouterr().err

    assert "unexpected ZeroDivisionError: a defect\n" in plain
    assert "Traceback" not in plain
    assert "Traceback" in debug
    assert "\x1b" not in plain + debug


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (BudgetExhaustedError("x", limit="queries", used=1, allowed=1), 3),
        (SettingsError("x"), 4),
        (SandboxStartError("x"), 4),
        (ModelUnavailableError("x", model="m"), 5),
        (ModelRefusedError("x", model="m"), 5),
        (SandboxLostError("x"), 6),
        (ProtocolViolationError("x"), 6),
        (SessionCancelledError("x"), 130),
        (RlmSandboxError("x"), 1),
    ],
)
def test_each_error_has_its_documented_exit_code(error: RlmSandboxError, code: int) -> None:
    """The numbers are part of the interface."""
    assert exit_code_of_error(error) == code


def test_each_end_of_a_run_has_an_exit_code() -> None:
    """No finish reason is left without a number, and only an answer is a success."""
    codes = {reason: exit_code_of_run(reason) for reason in FinishReason}

    assert [reason for reason, code in codes.items() if code == ExitCode.DONE] == [
        FinishReason.ANSWERED
    ]
