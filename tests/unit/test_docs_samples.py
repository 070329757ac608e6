"""What the pages show works as shown: programs that ask, and cells that are asked for."""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.fake_sandbox import CellRun
from support.front_end import FakeParts, forget_settings
from support.pages import ROOT, samples
from support.scripted_broker import ScriptedBroker

from rlm_sandbox.v1 import sandbox_pb2 as pb

_SAMPLED = ("README.md", "docs/usage.md", "docs/guide.md", "docs/engine.md")
_MOST_CELLS = 4


def _numbered(language: str) -> list[Any]:
    return [
        pytest.param(sample, id=f"{page}-{number}")
        for page in _SAMPLED
        for number, sample in enumerate(samples(ROOT / page, language), start=1)
    ]


async def _answer(run: CellRun) -> None:
    run.final("Pierre")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the samples read, for programs that nobody has configured."""
    forget_settings(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "war-and-peace.txt").write_text("Natasha marries Pierre.", encoding="utf-8")
    return tmp_path


def _run(sample: str) -> FakeParts:
    """Runs a program as it stands, with fakes under each `RLM` that it makes."""
    tree = ast.parse(sample)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RLM":
            node.keywords.append(ast.keyword(arg="parts", value=ast.Name("parts", ast.Load())))
    fakes = FakeParts(*[_answer] * _MOST_CELLS)
    code = compile(ast.fix_missing_locations(tree), "a page", "exec", dont_inherit=True)
    exec(code, {"parts": fakes.parts})  # noqa: S102 - our own page
    return fakes


@pytest.mark.usefixtures("desk")
def test_python_sample_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """What the README shows first prints what it says, but for the model and the sandbox."""
    _run(samples(ROOT / "README.md", "python")[0])

    assert capsys.readouterr().out == "Pierre\nanswered\nNone\n"


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("sample", _numbered("python"))
def test_python_samples_run(sample: str) -> None:
    """Every program of these pages can be pasted and run; each closes what it has opened."""
    assert _run(sample).open_count == 0


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rlm", dir="/tmp") as path:
        yield Path(path)


def _reply(request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
    """Answers as those do whom the samples ask: a reader, a form filler, the orchestrator."""
    text = "yes"
    if request.json_schema:
        text = json.dumps({"year": 1812, "author": "Natasha"})
    elif request.tool_name:
        text = json.dumps({"child_runs": 30})
    return pb.LlmQueryReply(answers=[pb.QueryAnswer(text=text) for _ in request.prompts])


@pytest.mark.parametrize("sample", _numbered("repl"))
def test_cells_run(sample: str, socket_directory: Path) -> None:
    """Every cell of these pages runs under the default policy, in the real REPL process."""
    with ScriptedBroker(socket_directory, answer=_reply) as broker:
        broker.begin_run()
        text = "A letter.\n\nCHAPTER 1\nNatasha speaks.\n"
        broker.bind(text.encode(), kind=pb.CONTEXT_KIND_TEXT)
        result, _, _ = broker.run(sample)

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
