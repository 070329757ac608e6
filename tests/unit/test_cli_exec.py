import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_sandbox import CellRun, FakeProvider
from support.front_end import FakeParts, forget_settings

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.errors import ProtocolViolationError, SandboxLostError, SandboxStartError
from orchestrator.limits import CellLimits


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[int], list[str]]:
    def write(count: int) -> list[str]:
        paths = [tmp_path / f"cell{number}.py" for number in range(count)]
        for path in paths:
            path.write_text(f"# {path.name}", "utf-8")
        return [str(path) for path in paths]

    return write


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def speak(run: CellRun) -> None:
    run.print("printed")
    run.draft("so far")


async def fail(_run: CellRun) -> None:
    raise ValueError("wrong")


async def die(_run: CellRun) -> None:
    raise SandboxLostError("the kernel ended it")


async def cheat(_run: CellRun) -> None:
    raise ProtocolViolationError("two results")


def test_line_of_a_cell_has_all_there_is_to_know(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """One JSON object a cell, with the keys that programs rely on."""
    (path,) = files(1)

    code = command_line(["exec", path], parts=FakeParts(speak).parts)

    (found,) = lines()
    usage = found.pop("usage")
    assert code == ExitCode.DONE
    assert found == {
        "file": path,
        "outcome": "succeeded",
        "stdout": "printed\n",
        "stderr": "",
        "stdout_bytes": 8,
        "stderr_bytes": 0,
        "error": None,
        "answer": {"content": "so far", "ready": False},
        "variables": [],
        "state": "kept",
    }
    assert set(usage) == {"wall_s", "cpu_s", "peak_memory_bytes", "query_count"}


def test_files_share_one_sandbox_whatever_became_of_the_first(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """A cell that raised does not keep the next from running, in the same sandbox."""
    parts = FakeParts(fail, speak)

    code = command_line(["exec", *files(2)], parts=parts.parts)

    first, second = lines()
    assert code == ExitCode.FAILED
    assert (first["outcome"], second["outcome"]) == ("raised", "succeeded")
    assert first["error"] == {"type": "ValueError", "message": "wrong", "traceback": ""}
    assert len(parts.provider.opened) == 1
    assert parts.provider.opened[0].sources == ["# cell0.py", "# cell1.py"]


@pytest.mark.parametrize(
    ("cell", "error_type"), [(die, "SandboxLostError"), (cheat, "ProtocolViolationError")]
)
def test_file_that_kills_its_sandbox_has_its_line_and_the_next_a_fresh_one(
    files: Callable[[int], list[str]],
    capsys: pytest.CaptureFixture[str],
    cell: Callable[[CellRun], Any],
    error_type: str,
) -> None:
    """No file is without its line, and what follows runs in a sandbox that nothing has touched."""
    parts = FakeParts(cell)

    code = command_line(["exec", *files(2), "--context", files(1)[0]], parts=parts.parts)

    streams = capsys.readouterr()
    first, second = (json.loads(line) for line in streams.out.splitlines())
    assert code == ExitCode.FAILED
    assert (first["outcome"], first["state"]) == ("killed", "lost")
    assert first["error"]["type"] == error_type
    assert second["error"]["type"] == error_type  # the script of the fakes begins again
    assert "what follows has a fresh one" in streams.err
    assert len(parts.provider.opened) == 2
    assert all("context" in sandbox.contexts for sandbox in parts.provider.opened)


def test_every_file_has_a_line_where_no_second_sandbox_can_be_had(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """An engine that dies in the middle is said in the line of each file that was left."""

    class DyingEngine(FakeProvider):
        def open(self, queries: Any) -> Any:  # noqa: ANN401 - the base class has the types
            if self.opened:
                raise SandboxStartError("no engine any more")
            return super().open(queries)

    code = command_line(["exec", *files(3)], parts=FakeParts(provider=DyingEngine(die)).parts)

    found = lines()
    assert code == ExitCode.FAILED
    assert [line["error"]["type"] for line in found] == [
        "SandboxLostError",
        "SandboxStartError",
        "SandboxStartError",
    ]


def test_no_first_sandbox_ends_with_4(
    files: Callable[[int], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing was run, there is a message and no line."""
    provider = FakeProvider(start_error=SandboxStartError("no image"))

    code = command_line(["exec", *files(2)], parts=FakeParts(provider=provider).parts)

    streams = capsys.readouterr()
    assert (code, streams.out, streams.err) == (ExitCode.NOT_STARTED, "", "rlm: no image\n")


def test_unreadable_file_ends_with_2_before_anything_is_opened(
    files: Callable[[int], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file that cannot be read keeps all from being run."""
    parts = FakeParts()

    code = command_line(["exec", *files(1), str(tmp_path / "no.py")], parts=parts.parts)

    assert code == ExitCode.BAD_INPUT
    assert "no.py cannot be read" in capsys.readouterr().err
    assert parts.settings == []


def test_queries_are_echoed_unless_a_model_is_named(files: Callable[[int], list[str]]) -> None:
    """No model is paid for by running files; --model names one all the same."""
    parts = FakeParts()

    command_line(["exec", *files(1)], parts=parts.parts)
    command_line(["exec", *files(1), "--model", "m"], parts=parts.parts)

    assert [settings.sub_model for settings in parts.settings] == ["echo", "m"]


def test_queries_are_answered(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """What a cell asks reaches the sub-model, and the answer reaches the cell."""

    async def ask(run: CellRun) -> None:
        run.print(str((await run.ask("prompt"))[0]))

    parts = FakeParts(ask, sub=["answered"])
    command_line(["exec", *files(1)], parts=parts.parts)

    assert lines()[0]["stdout"] == "answered\n"
    assert parts.sub.requests[0][0].content == "prompt"


def test_timeout_is_the_cells(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """--timeout bounds each cell, and a cell that runs out of time has its line."""

    async def hang(_run: CellRun) -> None:
        await asyncio.Event().wait()

    code = command_line(["exec", *files(1), "--timeout", "0.05"], parts=FakeParts(hang).parts)

    assert code == ExitCode.FAILED
    assert lines()[0]["outcome"] == "timed_out"


def test_flood_is_shown_with_its_true_length(
    files: Callable[[int], list[str]], lines: Callable[[], list[dict[str, Any]]]
) -> None:
    """Output that was cut says so, and says how much there was."""

    async def flood(run: CellRun) -> None:
        run.print("x" * 1000)

    provider = FakeProvider(flood, limits=CellLimits(output_bytes=100))
    command_line(["exec", *files(1)], parts=FakeParts(provider=provider).parts)

    (found,) = lines()
    assert found["stdout_bytes"] == 1001
    assert "901 of 1,001 bytes not shown" in found["stdout"]


def test_terminal_gets_text_that_cannot_act(
    files: Callable[[int], list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person reads what happened; a cell's control sequences do nothing."""

    async def hostile(run: CellRun) -> None:
        run.print("a\x1b[2Jb")
        raise ValueError("c\x1b[2Jd")

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    paths = files(1)
    command_line(["exec", *paths], parts=FakeParts(hostile).parts)
    shown = capsys.readouterr().out
    command_line(["exec", *paths, "--json"], parts=FakeParts(hostile).parts)
    as_json = capsys.readouterr().out

    assert "cell 1 raised" in shown
    assert "\nab\n" in shown
    assert "cd" in shown
    assert "\x1b" not in shown
    assert json.loads(as_json)["stdout"] == "a\x1b[2Jb\n"


def test_interrupt_destroys_the_sandbox(
    files: Callable[[int], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the middle of a cell leaves nothing behind, and ends with 130."""

    async def interrupt(_run: CellRun) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    parts = FakeParts(interrupt)

    assert command_line(["exec", *files(2)], parts=parts.parts) == ExitCode.INTERRUPTED
    assert capsys.readouterr().out == ""
    assert parts.provider.opened[0].is_destroyed
    assert parts.open_count == 0
