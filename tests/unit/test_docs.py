"""The documents keep their word: links lead somewhere, samples work, tables are whole."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest
from support.front_end import forget_settings
from support.pages import PAGES, ROOT, name_of, samples

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.limits import CellLimits, QueryLimits, RunLimits
from orchestrator.models.script_file import load_script
from orchestrator.settings import Settings, load

_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
_FRAGMENT = re.compile(r"\]\(([^)#\s:]*\.md)?#([^)]+)\)")
_COMMAND = re.compile(
    r"\brlm ((?:run|exec|trace|stats|export|prompt|doctor|bench|setup|image|model)"
    r"(?: (?:list|show|build|ls|verify|sbom|prune|fetch|serve))?)\b"
)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the tree names one that is there."""
    missing = [
        target
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_headings(page: Path) -> None:
    """Every link to a part of a page names a heading of that page."""
    missing = []
    for target, fragment in _FRAGMENT.findall(page.read_text(encoding="utf-8")):
        other = page.parent / target if target else page
        headings = re.findall(r"^#+ (.*)$", other.read_text("utf-8"), flags=re.MULTILINE)
        # As GitHub makes them: lower case, no punctuation, hyphens for spaces.
        known = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}
        if fragment not in known:
            missing.append(f"{target}#{fragment}")

    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command a page names has a help page of its own."""
    for command in sorted(set(_COMMAND.findall(page.read_text(encoding="utf-8")))):
        assert command_line([*command.split(), "--help"]) == 0, command
        assert "Usage" in capsys.readouterr().out


def _options_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    capsys.readouterr()
    command_line([*command.split(), "--help"])
    return set(_OPTION.findall(capsys.readouterr().out))


def test_options_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option the README names belongs to one of the commands it shows."""
    commands = ("run", "doctor", "trace", "stats", "export", "bench")
    known = set().union(*(_options_of(command, capsys) for command in commands))

    named = set(_OPTION.findall((ROOT / "README.md").read_text(encoding="utf-8")))

    assert named - known == set()


def test_options_in_the_tables_of_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """An option beside a command in a table is one of that command; of `run` where none is."""
    page = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    section = page[page.index("## Commands") : page.index("## Exit codes")]
    for cell in re.findall(r"^\| (.*?) (?<!\\)\|", section, flags=re.MULTILINE):
        for written in cell.split(", `rlm "):
            command = _COMMAND.search(written if "rlm " in written else f"rlm {written}")
            name = command[1] if command else "run"
            named = set(_OPTION.findall(written)) - {"--help"}
            assert named <= _options_of(name, capsys), written


def test_settings_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of the settings file is one, and every value in it is the default."""
    forget_settings(monkeypatch, tmp_path)
    for variable in ("RLM_RUN__DIRECT_CHARS", "RLM_PROVIDER__MAX_RETRIES"):
        monkeypatch.delenv(variable)
    sample, *_others = samples(ROOT / "docs/usage.md", "toml")
    path = tmp_path / "config.toml"
    path.write_text(sample, encoding="utf-8")

    assert load(config_file=path) == load()


def test_settings_sample_knows_every_limit() -> None:
    """What a run and its queries may be is all in the sample, as a value or as a comment."""
    sample, *_others = samples(ROOT / "docs/usage.md", "toml")
    known = set(re.findall(r"^(?:# )?(\w+) = ", sample, flags=re.MULTILINE))
    limits = {item.name for kind in (RunLimits, QueryLimits, CellLimits) for item in fields(kind)}

    assert limits - known == {"models"}
    assert '[run.models."' in sample


def test_sample_of_several_providers_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models find their providers, and cells the models that have names for them."""
    forget_settings(monkeypatch, tmp_path)
    _defaults, sample, _script = samples(ROOT / "docs/usage.md", "toml")
    path = tmp_path / "config.toml"
    path.write_text(sample, encoding="utf-8")

    settings = load(config_file=path)

    assert settings.provider_of(settings.answering_model).base_url == "http://gpu:8000/v1"
    assert dict(settings.sub_models) == {"judge": "gpt-5"}


def test_script_sample_is_read(tmp_path: Path) -> None:
    """The sample of a script is one."""
    page = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    start = page.index('sub_otherwise = "echo"')
    path = tmp_path / "script.toml"
    # Cut by hand: the sample holds a fence of its own.
    path.write_text(page[start : page.index("\n```\n\n`--model replay", start)], encoding="utf-8")

    assert load_script(path).root_model().is_scripted


def test_table_of_exit_codes_is_whole() -> None:
    """Every exit code stands in the table."""
    page = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", page, flags=re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}

    assert {int(code) for code in ExitCode} <= listed


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_exist(page: Path) -> None:
    """A test that a page names as its proof is there."""
    missing = [
        f"{path}::{test}"
        for path, test in _TEST.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).is_file()
        or not re.search(
            rf"^(?:async )?def {test}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE
        )
    ]

    assert missing == []


def test_every_failure_names_a_test() -> None:
    """No row of the tables of failures rests on a promise alone."""
    page = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!-)(.*) \|$", page, flags=re.MULTILINE)
    bare = [row for row in rows if not row.endswith("shown by") and not _TEST.search(row)]

    assert rows
    assert bare == []


def test_layers_are_those_that_are_held() -> None:
    """The page shows the layers as import-linter reads them."""
    rules = ConfigParser()
    rules.read(ROOT / ".importlinter", encoding="utf-8")
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

    held = rules["importlinter:contract:host-layers"]["layers"].strip()

    assert f"```\n{held}\n```" in page


def test_configuration_for_operators_is_well_formed() -> None:
    """What an operator copies from the page is JSON, and units of which each line is a setting."""
    page = ROOT / "docs/host-setup.md"
    units = samples(page, "ini")
    engines = [json.loads(sample) for sample in samples(page, "json")]

    assert engines[0]["userns-remap"] == "default"
    assert engines[1]["runtimes"]["runsc"]["runtimeArgs"] == ["--network=none", "--host-uds=open"]
    assert len(units) == 2
    for unit in units:
        lines = [line for line in unit.splitlines() if line and not line.startswith("#")]
        odd = [line for line in lines if not re.fullmatch(r"\[[A-Z]\w+\]|[A-Z]\w+=.*", line)]
        assert odd == []


def test_variables_for_operators_are_settings() -> None:
    """Every RLM_ variable that the page names is read; a misspelt one would be an error."""
    named = set(re.findall(r"RLM_[A-Z_]+", (ROOT / "docs/host-setup.md").read_text("utf-8")))
    known = {f"RLM_{name.upper()}" for name in Settings.model_fields}

    assert named
    assert named <= known
