"""A recorded run, run again without a model."""

from pathlib import Path

import pytest
from support.fake_sandbox import CellRun, FakeProvider
from support.front_end import FakeParts, forget_settings

from orchestrator.app import Parts
from orchestrator.app.parts import open_registered_model
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line

ASK = "```repl\nfirst()\n```"
FINISH = "```repl\nsecond()\n```"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


@pytest.fixture
def context(tmp_path: Path) -> str:
    path = tmp_path / "context.txt"
    path.write_text("the context", "utf-8")
    return str(path)


async def ask(run: CellRun) -> None:
    [answer] = await run.ask("which?")
    run.draft(str(answer))
    run.print("asked")


async def ask_otherwise(run: CellRun) -> None:
    [answer] = await run.ask("which?")
    run.draft(str(answer))
    run.print("asked otherwise")


async def finish(run: CellRun) -> None:
    run.final(run.answer.content.upper())


@pytest.fixture
def recorded(context: str, tmp_path: Path) -> Path:
    """Records a run of two turns and a query."""
    path = tmp_path / "run.jsonl"
    parts = FakeParts(ask, finish, root=[ASK, FINISH], sub=["this one"]).parts
    arguments = ["run", "q", "--context", context, "--trajectory", str(path), "--quiet"]
    assert command_line(arguments, parts=parts) == ExitCode.DONE
    return path


def replaying(*cells: object) -> Parts:
    """Returns parts whose sandboxes are fakes, and whose models are those of the product."""
    fakes = FakeParts(provider=FakeProvider(*cells))  # type: ignore[arg-type]  # cells of a test
    return Parts(open_model=open_registered_model, open_sandboxes=fakes.parts.open_sandboxes)


def test_recorded_run_is_run_again(
    context: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turns and queries get the answers they got; no model is asked, and it says so."""
    code = command_line(
        ["run", "q", "--context", context, "--model", f"replay:{recorded}"],
        parts=replaying(ask, finish),
    )

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.DONE, "THIS ONE\n")
    assert "root model replay:fake-root, sub-model replay:fake-sub" in streams.err
    assert "No model is asked in this run" in streams.err
    assert "another way" not in streams.err


def test_first_difference_is_told(
    context: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where something around the models has changed, that is what a replay is for."""
    command_line(
        ["run", "q", "--context", context, "--model", f"replay:{recorded}"],
        parts=replaying(ask_otherwise, finish),
    )

    told = capsys.readouterr().err
    assert "from request 2 on the run goes another way than the recorded one" in told
    assert "asked otherwise" in told


def test_query_that_was_not_recorded_is_not_waited_for(
    context: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No retry brings what is not there."""

    async def ask_anew(run: CellRun) -> None:
        [failure] = await run.ask("something new?")
        run.final(str(failure))

    code = command_line(
        ["run", "q", "--context", context, "--model", f"replay:{recorded}"],
        parts=replaying(ask_anew),
    )

    assert code == ExitCode.DONE
    assert "did not answer" in capsys.readouterr().out


def test_file_that_is_no_trajectory_is_refused(
    context: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started for a recording that is not there."""
    code = command_line(
        ["run", "q", "--context", context, "--model", f"replay:{tmp_path / 'none.jsonl'}"],
        parts=replaying(),
    )

    assert code == ExitCode.BAD_INPUT
    assert "none.jsonl" in capsys.readouterr().err
