"""The documents keep their word: links lead somewhere, samples work, tables are whole."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from support.fake_sandbox import CellRun
from support.front_end import FakeParts, forget_settings

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.models.script_file import load_script
from orchestrator.settings import Settings, load

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md")])
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")
_COMMAND = re.compile(
    r"\brlm ((?:run|exec|doctor|setup|image|model)"
    r"(?: (?:build|ls|verify|sbom|prune|fetch|serve))?)\b"
)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")


async def _answer(run: CellRun) -> None:
    run.final("Pierre")


def _samples(page: Path, language: str) -> list[str]:
    """Returns the fenced samples of one language; a longer fence may hold shorter ones."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the tree names one that is there."""
    missing = [
        target
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert missing == []


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command a page names has a help page of its own."""
    for command in sorted(set(_COMMAND.findall(page.read_text(encoding="utf-8")))):
        assert command_line([*command.split(), "--help"]) == 0, command
        assert "Usage" in capsys.readouterr().out


def test_options_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option the README names belongs to `rlm run` or to `rlm doctor`."""
    for name in ("run", "doctor"):
        command_line([name, "--help"])
    known = set(_OPTION.findall(capsys.readouterr().out))

    named = set(_OPTION.findall((_ROOT / "README.md").read_text(encoding="utf-8")))

    assert named - known == set()


def test_settings_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of the settings file is one, and states the defaults it shows."""
    forget_settings(monkeypatch, tmp_path)
    [sample, _script] = _samples(_ROOT / "docs/usage.md", "toml")
    path = tmp_path / "config.toml"
    path.write_text(sample, encoding="utf-8")

    read, default = load(config_file=path), load()

    assert (read.run, read.cell, read.sandbox) == (default.run, default.cell, default.sandbox)
    assert (read.model, read.policy, read.runtime) == (
        default.model,
        default.policy,
        default.runtime,
    )


def test_script_sample_is_read(tmp_path: Path) -> None:
    """The sample of a script is one."""
    page = (_ROOT / "docs/usage.md").read_text(encoding="utf-8")
    start = page.index('sub_otherwise = "echo"')
    path = tmp_path / "script.toml"
    # Cut by hand: the sample holds a fence of its own.
    path.write_text(page[start : page.index("\n```\n\n## Trajectories", start)], encoding="utf-8")

    assert load_script(path).root_model().is_scripted


def test_table_of_exit_codes_is_whole() -> None:
    """Every exit code stands in the table."""
    page = (_ROOT / "docs/usage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", page, flags=re.MULTILINE)
    listed = {int(code) for row in rows for code in row.split(",")}

    assert {int(code) for code in ExitCode} <= listed


def test_python_sample_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the README shows works as shown, but for the model and the sandbox under it."""
    forget_settings(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "war-and-peace.txt").write_text("Natasha marries Pierre.", encoding="utf-8")
    [sample] = _samples(_ROOT / "README.md", "python")
    tree = ast.parse(sample)
    parts = FakeParts(_answer)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RLM":
            node.keywords.append(ast.keyword(arg="parts", value=ast.Name("parts", ast.Load())))
    code = compile(ast.fix_missing_locations(tree), "README.md", "exec")

    exec(code, {"parts": parts.parts})  # noqa: S102 - our own page

    assert capsys.readouterr().out == "Pierre\nanswered\nNone\n"


def test_configuration_for_operators_is_well_formed() -> None:
    """What an operator copies from the page is JSON, and units of which each line is a setting."""
    page = _ROOT / "docs/host-setup.md"
    units = _samples(page, "ini")
    engines = [json.loads(sample) for sample in _samples(page, "json")]

    assert engines[0]["userns-remap"] == "default"
    assert engines[1]["runtimes"]["runsc"]["runtimeArgs"] == ["--network=none", "--host-uds=open"]
    assert len(units) == 2
    for unit in units:
        lines = [line for line in unit.splitlines() if line and not line.startswith("#")]
        odd = [line for line in lines if not re.fullmatch(r"\[[A-Z]\w+\]|[A-Z]\w+=.*", line)]
        assert odd == []


def test_variables_for_operators_are_settings() -> None:
    """Every RLM_ variable that the page names is read; a misspelt one would be an error."""
    named = set(re.findall(r"RLM_[A-Z_]+", (_ROOT / "docs/host-setup.md").read_text("utf-8")))
    known = {f"RLM_{name.upper()}" for name in Settings.model_fields}

    assert named
    assert named <= known
