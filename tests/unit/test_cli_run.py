import asyncio
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun
from support.front_end import ONE_CELL, FakeParts, forget_settings
from support.statements import controls_of

from orchestrator.chat import ModelReply
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.errors import (
    ModelError,
    ModelRefusedError,
    ModelUnavailableError,
    ProtocolViolationError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)

_DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


@pytest.fixture
def context(tmp_path: Path) -> str:
    path = tmp_path / "context.txt"
    path.write_text("the context", "utf-8")
    return str(path)


async def answer(run: CellRun) -> None:
    run.final("the answer")


async def draft(run: CellRun) -> None:
    run.draft("the draft")


async def ask_and_answer(run: CellRun) -> None:
    run.print("asking")
    first, _second, _repeat = await run.ask("one", "two", "one")
    run.final(str(first))


def raise_once(error: SandboxError) -> Callable[[CellRun], Awaitable[None]]:
    async def cell(_run: CellRun) -> None:
        raise error

    return cell


def test_answer_alone_is_on_standard_output(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a pipe gets is the answer; what a person reads on the way is on standard error."""
    code = command_line(["run", "q", "--context", context], parts=FakeParts(ask_and_answer).parts)

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.DONE, "sub-answer\n")
    assert "turn 1" in streams.err


def test_progress_is_a_line_an_event(context: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, each step of the run is one plain line, in order."""
    command_line(["run", "q", "--context", context], parts=FakeParts(ask_and_answer).parts)

    lines = capsys.readouterr().err.splitlines()
    starts = [
        "No model is asked",
        "run ",
        "sandbox fake-1 ready",
        "turn 1: asking fake-root",
        "turn 1: 1 cell in the reply",
        "turn 1, cell 1: look()",
        "query q1/2: one",
        "query q1/0: one",
        "query q1/1: two",
        "query q1/0: answered in",
        "query q1/1: answered in",
        "query q1/2: answered as before in",
        "turn 1, cell 1 succeeded",
        "run ended (answered): 1 turn, 2 queries, 30 + 6 tokens",
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_quiet_shows_nothing_but_that_no_model_was_asked(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scripted run says so however quiet it is: its answer is nobody's."""
    command_line(["run", "q", "--context", context, "--quiet"], parts=FakeParts(answer).parts)

    assert capsys.readouterr().err == (
        "No model is asked in this run: its replies come from a script.\n"
    )


def test_real_model_is_not_called_a_script(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: where a model is asked, nothing says otherwise."""
    model = FakeModel([ONE_CELL], name="real")
    model.is_scripted = False

    command_line(
        ["run", "q", "--context", context, "--quiet"], parts=FakeParts(answer, root=model).parts
    )

    assert capsys.readouterr().err == ""


def test_json_is_one_object_with_everything(
    context: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program gets the answer, how far to rely on it, and what it took."""
    trajectory = tmp_path / "trajectory.jsonl"

    code = command_line(
        ["run", "q", "--context", context, "--json", "--trajectory", str(trajectory)],
        parts=FakeParts(ask_and_answer).parts,
    )

    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    timings, run_id = found.pop("timings"), found.pop("run_id")
    efficiency = found.pop("efficiency")
    controls = controls_of(found["controls"]["sandbox_id"])
    assert code == ExitCode.DONE
    assert found == {
        "controls": controls.to_json(),
        "controls_sha256": controls.sha256_hex,
        "answer": "sub-answer",
        "answer_source": "final",
        "finish_reason": "answered",
        "failure": "",
        "limit": "",
        "is_scripted": True,
        "usage": {
            "fake-root": {
                "request_count": 1,
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "cached_prompt_tokens": 0,
                "cost_usd": None,
                "estimated_count": 0,
                "unanswered_count": 0,
                "unanswered_usd": 0.0,
            },
            "fake-sub": {
                "request_count": 2,
                "prompt_tokens": 20,
                "completion_tokens": 4,
                "cached_prompt_tokens": 0,
                "cost_usd": None,
                "estimated_count": 0,
                "unanswered_count": 0,
                "unanswered_usd": 0.0,
            },
        },
        "cost_usd": None,
        "turn_count": 1,
        "query_count": 2,
        "child_run_count": 0,
        "tool_call_count": 0,
        "trajectory_path": str(trajectory),
    }
    assert set(timings) == {"total_s", "start_s", "root_model_s", "cells_s"}
    assert (efficiency["sent_query_count"], efficiency["repeated_query_count"]) == (2, 1)
    assert run_id in trajectory.read_text("utf-8")


def test_json_keeps_what_a_terminal_must_not_see(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer arrives exactly as it was given, in ASCII that no terminal acts on."""
    hostile = "a\x1b[31m\u202eb\ud800\0"

    async def cell(run: CellRun) -> None:
        run.final(hostile)

    command_line(["run", "q", "--context", context, "--json"], parts=FakeParts(cell).parts)

    out = capsys.readouterr().out
    assert json.loads(out)["answer"] == hostile
    assert out.isascii()
    assert out.rstrip("\n").isprintable()


def test_nothing_hostile_reaches_a_terminal(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a cell, its output, a query, an error nor the answer carries a control sequence."""
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e\rx"

    async def fail(run: CellRun) -> None:
        run.print(hostile)
        await run.ask(hostile)
        raise ValueError(f"{hostile}\nrun ended (answered): all is well")

    async def cell(run: CellRun) -> None:
        run.final(hostile)

    root = [f"```repl\n{hostile}\n```", ONE_CELL]
    command_line(["run", "q", "--context", context], parts=FakeParts(fail, cell, root=root).parts)

    streams = capsys.readouterr()
    shown = streams.out + streams.err
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
    assert not any(line.startswith("run ended (answered): all") for line in shown.splitlines())
    assert streams.out == "\nx\n"


def test_limit_prints_the_draft_and_ends_with_3(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Work that was paid for is printed, and nobody takes it for a final answer."""
    code = command_line(
        ["run", "q", "--context", context, "--max-turns", "1"], parts=FakeParts(draft).parts
    )

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.NO_FINAL_ANSWER, "the draft\n")
    assert "Ended by turn_limit (run.turns); what is printed is the draft" in streams.err


@pytest.mark.parametrize("error", [SandboxLostError("it died"), ProtocolViolationError("a rule")])
def test_lost_sandbox_ends_with_6(
    context: str, capsys: pytest.CaptureFixture[str], error: SandboxError
) -> None:
    """A sandbox that dies in mid-run ends the run with what there is and why."""
    code = command_line(
        ["run", "q", "--context", context],
        parts=FakeParts(draft, raise_once(error), root=[ONE_CELL, "```repl\nother()\n```"]).parts,
    )

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.SANDBOX_LOST, "the draft\n")
    assert f"Ended by sandbox_lost: {error}" in streams.err


@pytest.mark.parametrize(
    "error",
    [ModelRefusedError("wrong key", model="m"), ModelUnavailableError("is down", model="m")],
)
def test_model_that_does_not_answer_ends_with_5(
    context: str, capsys: pytest.CaptureFixture[str], error: ModelError
) -> None:
    """A refused key and a provider that is down are said in one message, without a traceback."""
    code = command_line(
        ["run", "q", "--context", context, "--quiet"], parts=FakeParts(root=[error]).parts
    )

    streams = capsys.readouterr()
    assert (code, streams.out) == (ExitCode.MODEL_FAILED, "")
    assert streams.err.splitlines()[-1] == f"rlm: {error}"


def test_missing_engine_ends_with_4(context: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no sandbox can be had, nothing is run, and the message is the engine's."""
    parts = FakeParts(engine_error=SandboxStartError("no engine answers"))

    code = command_line(["run", "q", "--context", context], parts=parts.parts)

    streams = capsys.readouterr()
    assert (code, streams.out, streams.err) == (
        ExitCode.NOT_STARTED,
        "",
        "rlm: no engine answers\n",
    )
    assert parts.root.requests == []


def test_unusable_context_ends_with_2_before_anything_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing context costs neither a sandbox nor a request."""
    parts = FakeParts()

    code = command_line(["run", "q", "--context", str(tmp_path / "no")], parts=parts.parts)

    assert code == ExitCode.BAD_INPUT
    assert "cannot be read" in capsys.readouterr().err
    assert parts.settings == []


def test_question_that_is_too_long_ends_with_2(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A question of 10 MB is a context; the message says so."""
    code = command_line(["run", "q" * 10_000_000, "--context", context], parts=FakeParts().parts)

    assert code == ExitCode.BAD_INPUT
    assert "the question has 10,000,000 characters" in capsys.readouterr().err


@pytest.mark.parametrize("question", ["{x} {0} {}", "a\0b", "\ud800", "%s", ""])
def test_any_short_question_is_asked(context: str, question: str) -> None:
    """Braces, NUL, half a surrogate pair, or no question at all: the run takes place."""
    parts = FakeParts(answer)

    assert command_line(["run", question, "--context", context], parts=parts.parts) == ExitCode.DONE
    assert len(parts.root.requests) == 1


def test_standard_input_is_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rlm run … --context -` reads what is piped in."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve".encode())))
    parts = FakeParts(answer)

    assert command_line(["run", "q", "--context", "-"], parts=parts.parts) == ExitCode.DONE
    assert parts.provider.opened[0].contexts["context"].data == "naïve".encode()


def test_options_reach_the_settings(context: str) -> None:
    """Each option sets what it is named after."""
    parts = FakeParts(answer)

    command_line(
        ["run", "q", "--context", context, "--model", "m", "--sub-model", "s", "--profile", "small",
         "--policy", "open", "--runtime", "gvisor", "--memory", "2g", "--max-turns", "3",
         "--max-queries", "0", "--max-time", "5", "--timeout", "7"],
        parts=parts.parts,
    )  # fmt: skip

    (found,) = parts.settings
    assert (found.model, found.sub_model, found.profile) == ("m", "s", "small")
    assert (found.policy, found.runtime) == ("open", "gvisor")
    assert found.sandbox.memory_bytes == 2 * 2**30
    assert (found.run.turns, found.run.queries, found.run.time_s) == (3, 0, 5.0)
    assert found.cell.wall_s == 7.0


def test_unknown_profile_is_refused(context: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt profile is not replaced by another one."""
    code = command_line(
        ["run", "q", "--context", context, "--profile", "smal"], parts=FakeParts().parts
    )

    assert code == ExitCode.NOT_STARTED
    assert "profile: expected one of default, gpt-5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_signal_ends_the_run_destroys_the_sandbox_and_says_the_cost(
    context: str, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    """Ctrl-C, a service manager's end and a closed terminal leave no sandbox and a bill to read."""
    model = FakeModel([ModelReply(text=ONE_CELL, prompt_tokens=7, cost_usd=0.25)], name="paid")
    model.is_scripted = False
    is_running = threading.Event()

    async def hang(_run: CellRun) -> None:
        is_running.set()
        await asyncio.Event().wait()

    parts = FakeParts(hang, root=model)

    def send() -> None:
        if is_running.wait(_DEADLINE_S):
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    found = command_line(["run", "q", "--context", context, "--quiet"], parts=parts.parts)
    sender.join(_DEADLINE_S)

    streams = capsys.readouterr()
    assert found == code
    assert parts.provider.opened[0].is_destroyed
    assert parts.open_count == 0
    assert streams.out == ""
    assert "Interrupted. Spent: 1 turn, 0 queries, 7 + 0 tokens, $0.2500" in streams.err


def test_ignored_signal_stays_ignored(context: str) -> None:
    """A run that was started under nohup goes on when its terminal closes."""
    is_running = threading.Event()

    async def finish_after_signal(run: CellRun) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        is_running.set()
        run.final("finished")

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        code = command_line(
            ["run", "q", "--context", context], parts=FakeParts(finish_after_signal).parts
        )
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (code, is_running.is_set()) == (ExitCode.DONE, True)


def test_warnings_of_the_parts_are_shown_clean(
    context: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a part logs reaches the user as a line among the others, and cannot act either."""
    error = ModelUnavailableError("provider said \x1b[2Jno", model="m")

    async def fail_to_ask(run: CellRun) -> None:
        await run.ask("one")
        run.final("done")

    parts = FakeParts(fail_to_ask, sub=[error])
    command_line(["run", "q", "--context", context], parts=parts.parts)

    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("warning: ")] == [
        "warning: a query failed: provider said no"
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_panel_and_keeps_the_answer_apart(
    context: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal the run is a panel with cell, output and figures, and the answer is plain."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")

    async def cell(run: CellRun) -> None:
        run.print("some output [bold]\x1b[2J")
        deadline_s = time.monotonic() + _DEADLINE_S
        while "some output" not in terminal.getvalue():
            assert time.monotonic() < deadline_s, terminal.getvalue()
            await asyncio.sleep(0.01)
        run.final("done")

    code = command_line(["run", "q", "--context", context], parts=FakeParts(cell).parts)

    shown = terminal.getvalue()
    assert (code, capsys.readouterr().out) == (ExitCode.DONE, "done\n")
    assert "turn 1 · cell 1" in shown
    assert "look()" in shown
    assert "some output [bold]" in shown
    assert "some output [bold]\x1b[2J" not in shown
    assert "queries 0 open of 0" in shown


def test_dumb_terminal_gets_plain_lines(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot redraw is written to like a file."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")

    command_line(["run", "q", "--context", context], parts=FakeParts(answer).parts)

    assert "\x1b" not in terminal.getvalue()
    assert "run ended (answered)" in terminal.getvalue()


def test_reader_of_progress_may_leave(
    context: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is being paid for goes on when nobody reads its progress any more."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w", closefd=True) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        code = command_line(["run", "q", "--context", context], parts=FakeParts(answer).parts)
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)

    assert (code, capsys.readouterr().out) == (ExitCode.DONE, "the answer\n")


def test_command_starts_no_pool(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that is configured for a server costs one question nothing."""
    monkeypatch.setenv("RLM_POOL__SIZE", "3")
    parts = FakeParts(answer)

    assert command_line(["run", "q", "--context", context], parts=parts.parts) == ExitCode.DONE
    assert [settings.pool.size for settings in parts.settings] == [0]
