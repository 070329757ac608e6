"""What root models are told, as the command line shows it."""

import hashlib
import json
from pathlib import Path

import pytest
from support.front_end import forget_settings

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.engine.prompts.profiles import PROFILES, PROMPT_VERSION


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("options", [[], ["--no-child-runs"]])
def test_system_message_is_shown_to_the_byte(
    name: str, options: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What is printed can be hashed and compared: no line feed is added, none is changed."""
    code = command_line(["prompt", "show", "--profile", name, *options])

    streams = capfdbinary.readouterr()
    expected = PROFILES[name].system_text(has_child_runs=not options)
    assert (code, streams.out, streams.err) == (ExitCode.DONE, expected.encode(), b"")


def test_json_has_every_message_before_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    """Examples are sent and paid for too."""
    command_line(["prompt", "show", "--profile", "small", "--json"])

    shown = json.loads(capsys.readouterr().out)
    profile = PROFILES["small"]
    sent = [{"role": each.role, "content": each.content} for each in profile.few_shot]
    assert shown["messages"] == [{"role": "system", "content": profile.system}, *sent]
    assert shown["prompt_version"] == PROMPT_VERSION
    assert shown["sha256"] == hashlib.sha256(profile.system.encode()).hexdigest()


@pytest.mark.parametrize(
    ("model", "name"), [("gpt-5", "gpt-5"), ("local", "small"), ("anything", "default")]
)
def test_profile_is_that_of_the_configured_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, name: str
) -> None:
    """Without a name, what is shown is what a run would send."""
    monkeypatch.setenv("RLM_MODEL", model)

    command_line(["prompt", "show", "--json"])

    assert json.loads(capsys.readouterr().out)["profile"] == name


def test_unknown_profile_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name shows nothing, rather than the text of another profile."""
    code = command_line(["prompt", "show", "--profile", "gpt5"])

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.NOT_STARTED, "")
    assert "expected one of default, gpt-5, qwen-coder, small; got 'gpt5'" in streams.err


def test_list_has_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """A change of any text shows in its digest."""
    command_line(["prompt", "list"])
    lines = capsys.readouterr().out.splitlines()
    command_line(["prompt", "list", "--json"])
    listed = json.loads(capsys.readouterr().out)

    assert [line.split()[0] for line in lines] == list(PROFILES)
    assert [row["sha256"] for row in listed["profiles"]] == [line.split()[-1] for line in lines]
