"""What a reader of `rlm trace` sees."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.trajectories import (
    ANSWER,
    ASK,
    CHILD_QUESTION,
    QUESTION,
    Chronicle,
    RunTeller,
    cancelled_run,
    direct_run,
    fenced,
    rich_run,
    told,
    write,
)

from orchestrator.cli.drawing import draw
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.main import command_line
from orchestrator.cli.trace import read_runs
from orchestrator.cli.trace_view import RunView
from orchestrator.domain import (
    CellError,
    FinishReason,
    Printed,
    QueryFailure,
    QueryFailureReason,
    QueryKind,
)
from orchestrator.events import ReplyReceived, TurnStarted
from orchestrator.trajectory.lines import event_of

Capture = pytest.CaptureFixture[str]
NASTY = "\x1b[31mred\x1b]0;owned\x07 \u202e [bold]x[/bold] \r\nnext\ud800"


@pytest.fixture
def rich(tmp_path: Path) -> str:
    """The file of a run in which nearly everything happens."""
    return str(write(tmp_path / "rich.jsonl", rich_run("3f2a91c07d4e4b0f")))


def traced(capsys: Capture, *arguments: str) -> str:
    """Returns what `rlm trace` prints."""
    assert command_line(["trace", *arguments]) == ExitCode.DONE
    return capsys.readouterr().out


def test_run_is_shown_with_question_answer_cost_and_time(rich: str, capsys: Capture) -> None:
    """The first lines say what was asked, what came of it, and what it took."""
    head = traced(capsys, rich).split("turn 1")[0]

    assert "run 3f2a91c07d4e  answered  2026-11-03 14:05 UTC" in head
    assert QUESTION in head
    assert ANSWER in head
    assert "text, 12,600,000 characters" in head
    assert "gpt-5 (profile gpt-5), queries gpt-5-mini" in head
    assert "5 turns, 4 queries, 3 more answered before, 1 child run, 1 notice" in head
    assert "$0.1015" in head
    assert "46.4 s" in head


def test_each_turn_is_shown_with_its_cells(rich: str, capsys: Capture) -> None:
    """What was said beside the code, the code, how it ended, and what it printed."""
    text = traced(capsys, rich)

    assert "Let me look at the shape of the context" in text
    assert "print(len(lines)" in text
    assert "312044 lines, 3 hits" in text
    assert "cell 3  killed, variables as before it" in text
    assert "MemoryError: the sandbox's memory is used up" in text
    assert "QueryBatchError: 1 of 3 prompts got no answer" in text
    assert "24,000 of 90,000 bytes were not kept" in text
    assert f"answer ready: {ANSWER}" in text


def test_what_cells_asked_is_shown(rich: str, capsys: Capture) -> None:
    """Prompts, answers, repeats, refusals, failures, tools, and what failed on the way."""
    text = traced(capsys, rich)

    assert "3 prompts → gpt-5-mini  1 of them answered before" in text
    assert "→ Does this parse a header? alpha" in text
    assert "← Yes: it reads lines up to an empty one." in text
    assert "model refused: the sub-model refused this prompt for good" in text
    assert "600 prompts refused: 600 prompts asked, 500 queries left" in text
    assert "gpt-5-mini did not answer, asked again after 1.2 s" in text
    assert "gpt-5 did not answer, asked again after 0.5 s, taken to cost $0.0120" in text
    assert "→ lookup()" in text
    assert "! an answer was cut off" in text


def test_child_run_is_nested_where_it_was_started(rich: str, capsys: Capture) -> None:
    """Between the prompt that it answers and the rest of the cell, further to the right."""
    lines = traced(capsys, rich).splitlines()
    prompt, child = (
        next(index for index, line in enumerate(lines) if text in line)
        for text in (f"→ {CHILD_QUESTION}", "child run c0ffee3f2a91")
    )

    assert child == prompt + 1
    assert lines[child].index("child run") > lines[prompt].index("→")
    assert any("LineTooLong, or HTTPException" in line for line in lines[child:])


def test_notices_and_compactions_are_shown(rich: str, capsys: Capture) -> None:
    """That a model was told it goes round in circles, and that its window filled up."""
    text = traced(capsys, rich)

    assert "! 2 of the 3 prompts of this turn had been asked before" in text
    assert "2 earlier turns shortened: the chat had 61,020 characters, now 20,480" in text


def test_where_money_and_time_went_is_shown(rich: str, capsys: Capture) -> None:
    """By model, by kind of waiting, and against one prompt with the whole context."""
    tail = traced(capsys, rich).rpartition("\nmoney\n")[2]

    assert re.search(r"gpt-5 +\$0\.0842 +█+. +83 % +6 requests +42,060 \+ 1,940", tail)
    assert re.search(r"gpt-5-mini +\$0\.0173", tail)
    assert "$0.0120 of it for requests that brought nothing" in tail
    in_one_line = " ".join(tail.split())
    assert "which it would not have fitted: $3.9375 (spent: 0.03 times that)" in in_one_line
    assert re.search(r"root model +20\.4 s", tail)
    assert re.search(r"queries +15\.1 s", tail)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_longer_than_asked_for(rich: str, capsys: Capture, width: int) -> None:
    """However deep something is nested, it stays on the screen, and figures at its edge."""
    lines = traced(capsys, rich, "--width", str(width)).splitlines()

    assert max(len(line) for line in lines) == width
    assert all(line == line.rstrip() for line in lines)
    assert sum(bool(re.search(r"\$\d\.\d{4} +\S+ s$", line)) for line in lines) >= 7


def test_long_texts_are_cut_and_said_to_be(tmp_path: Path, capsys: Capture) -> None:
    """A cell of a hundred lines is a dozen; --full has them all."""
    source = "\n".join(f"line_{number} = {number}" for number in range(100))
    chronicle = Chronicle()
    run = RunTeller(chronicle, "long")
    run.begin()
    run.turn((told("q"),), fenced(source))
    run.cell(source)
    run.end_cell(stdout=Printed(head=source * 3, total_bytes=len(source) * 3))
    run.end("x" * 5_000)
    path = str(write(tmp_path / "t.jsonl", chronicle))

    cut, whole = traced(capsys, path), traced(capsys, path, "--full")

    assert "… 88 more lines" in cut
    assert "line_50 = 50" not in cut
    assert len(cut) < 6_000
    assert whole.count("line_50 = 50") == 4
    assert "more lines" not in whole
    assert whole.count("x") > 5_000


def test_failed_prompt_of_a_batch_is_shown_whatever_is_left_out(
    tmp_path: Path, capsys: Capture
) -> None:
    """Of sixty prompts a few are shown: the first, and those that got no answer."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "batch")
    run.begin()
    run.turn((told("q"),), fenced(ASK))
    run.cell(ASK)
    query = run.ask(*(f"prompt {number}" for number in range(60)))
    failure = QueryFailure(reason=QueryFailureReason.MODEL_FAILED, message="it was down")
    for index in range(60):
        run.answer(query, failure if index == 41 else "fine", index=index, after_s=0.0)
    run.end_cell()
    path = str(write(tmp_path / "t.jsonl", chronicle))

    cut, whole = traced(capsys, path), traced(capsys, path, "--full")

    assert "60 prompts → gpt-5-mini" in cut
    assert "→ prompt 41" in cut
    assert "model failed: it was down" in cut
    assert "… 57 more prompts" in cut
    assert "→ prompt 59" in whole


def test_requests_at_the_same_time_are_kept_together(tmp_path: Path, capsys: Capture) -> None:
    """Prompts of two threads of a cell are told apart, whichever began when."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "threads")
    run.begin()
    run.turn((told("q"),), fenced(ASK))
    run.cell(ASK)
    first, second = run.ask("a0", "a1"), run.ask("b0", "b1")
    started = [record for record in chronicle.records if hasattr(record.event, "prompt")]
    chronicle.records = [
        *(record for record in chronicle.records if record not in started),
        *(started[index] for index in (2, 1, 3, 0)),
    ]
    for query in (first, second):
        run.answer(query, "x")
    path = str(write(tmp_path / "t.jsonl", chronicle))

    text = traced(capsys, path)

    assert text.count("2 prompts") == 2
    assert text.index("→ a0") < text.index("→ a1")


@pytest.mark.parametrize("is_full", [False, True])
def test_text_of_a_run_does_not_act_on_the_terminal(tmp_path: Path, *, is_full: bool) -> None:
    """Whatever a user, a model, a cell or a provider wrote is shown, and does nothing."""
    path = write(tmp_path / "t.jsonl", _nasty_run())
    shown = _Terminal()
    draw(RunView(is_full=is_full).drawn(read_runs(path, run_id="")[0]), stream=shown, width=100)
    text = shown.getvalue()

    left = re.sub(r"\x1b\[[0-9;]*m", "", text)  # our own colours
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", left)
    assert "owned" not in left
    assert "[bold]x[/bold]" in left  # shown, not taken for markup


def test_terminal_gets_colours_and_a_pipe_does_not(rich: str, capsys: Capture) -> None:
    """The control: in a terminal there are escape sequences, our own."""
    shown = _Terminal()
    draw(RunView(is_full=False).drawn(read_runs(Path(rich), run_id="")[0]), stream=shown, width=80)

    assert "\x1b[" in shown.getvalue()
    assert "\x1b" not in traced(capsys, rich)


def test_run_that_was_cut_off_is_shown_up_to_there(tmp_path: Path, capsys: Capture) -> None:
    """Wherever the file ends; what is missing is said."""
    records = rich_run().records
    for count in range(1, len(records)):
        chronicle = Chronicle()
        chronicle.records = records[:count]
        path = tmp_path / f"{count}.jsonl"

        text = traced(capsys, str(write(path, chronicle)))

        assert "cut off" in text.splitlines()[0]
        assert "no end is recorded" in text
        assert "what was under way at the end is not in it" in text or "\nmoney\n" not in text


def test_end_by_the_caller_is_shown(tmp_path: Path, capsys: Capture) -> None:
    """A cancelled run has a draft, and a cell without an end."""
    text = traced(capsys, str(write(tmp_path / "t.jsonl", cancelled_run())))

    assert "cancelled" in text.splitlines()[0]
    assert "a draft, never declared ready" in text
    assert "cell 1  no end recorded" in text
    assert "cancelled: the cell ended before the answer came" in text


def test_direct_answer_is_shown(tmp_path: Path, capsys: Capture) -> None:
    """A run without turns has the query that answered it."""
    text = traced(capsys, str(write(tmp_path / "t.jsonl", direct_run())))

    assert "of the sub-model, which was given the whole context" in text
    assert "← Paris" in text


def test_odd_turns_are_shown(tmp_path: Path, capsys: Capture) -> None:
    """A probe, replies without a cell or cut off, code without a fence, a run that broke."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "odd")
    run.begin(is_scripted=True, question=" ")
    run.tell(TurnStarted(run_id=run.run_id, turn=0))
    run.cell("print(context[:80])")
    run.end_cell()
    run.turn((told("q"),), "I cannot do that.", cell_count=0)
    run.turn((told("q"),), "print(1)")
    cut = chronicle.records.pop()
    assert isinstance(cut.event, ReplyReceived)
    reply = replace(cut.event.reply, was_cut=True)
    chronicle.records.append(replace(cut, event=replace(cut.event, reply=reply)))
    run.turn((told("q"),), None)
    run.end(reason=FinishReason.MODEL_FAILED, failure="the provider is down")
    text = traced(capsys, str(write(tmp_path / "t.jsonl", chronicle)))

    assert "no model was asked" in text.splitlines()[0]
    assert "model failed" in text.splitlines()[0]
    assert "(the context is its own)" in text
    assert "failure  the provider is down" in text
    assert "\nprobe " in text
    assert "│ I cannot do that.\n│ ! no cell in this reply" in text
    assert "! cut off at its length limit" in text
    assert "│ print(1)" not in text  # shown as the cell that it was
    assert "✗ no reply is recorded" in text


def test_texts_that_were_not_recorded_are_digests(tmp_path: Path, capsys: Capture) -> None:
    """A trajectory without texts still shows what happened, and which texts were the same."""
    path = write(tmp_path / "t.jsonl", rich_run(), records_text=False)

    text = traced(capsys, str(path))

    assert "(81 characters)" in text
    assert "MemoryError" in text
    assert "parse_headers" not in text
    repeated = re.findall(r"→ (sha256:\w+…)", text)
    assert len(set(repeated)) < len(repeated)


def test_one_run_is_chosen_by_the_beginning_of_its_id(tmp_path: Path, capsys: Capture) -> None:
    """Of several, and a child run as well; an id that several share is refused."""
    path = str(write(tmp_path / "t.jsonl", rich_run("one"), cancelled_run("two")))

    assert traced(capsys, path).count("\nmoney\n") == 2
    assert "run two" in traced(capsys, path, "--run", "tw").splitlines()[0]
    assert CHILD_QUESTION in traced(capsys, path, "--run", "c0ffee")
    assert command_line(["trace", path, "--run", "x"]) == ExitCode.BAD_INPUT
    assert "no run whose id begins with 'x'; there are: one, c0ffeeone, two" in (
        capsys.readouterr().err
    )


def test_json_has_everything_nested(rich: str, capsys: Capture) -> None:
    """For programs: runs, turns, cells, queries and child runs, events as recorded, and figures."""
    line = traced(capsys, rich, "--json")
    [run] = json.loads(line)["runs"]
    query = run["turns"][2]["cells"][0]["steps"][0]

    assert line.isascii()
    assert run["started"]["question"] == QUESTION
    assert run["figures"]["cost_usd"] == pytest.approx(0.1015)
    assert run["figures"]["efficiency"]["repeated_query_count"] == 3
    assert query["child_run"]["started"]["question"] == CHILD_QUESTION
    assert query["child_run"]["figures"]["cost_usd"] == pytest.approx(0.0165)
    assert run["ready"]["controls"]["container"]["network"] == "none"
    first = Path(rich).read_text().splitlines()[0]
    assert run["started"].keys() == set(event_of(first).__dataclass_fields__)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no run"),
        ("nonsense\n", "line 1: not a line of JSON"),
        ('{"version": 1}\n', "line 1: trajectory version 1; this release reads version 2"),
    ],
)
def test_what_is_no_trajectory_is_said(
    tmp_path: Path, capsys: Capture, content: str | None, said: str
) -> None:
    """A file that cannot be shown ends with 2 and the reason."""
    path = tmp_path / "t.jsonl"
    if content is not None:
        path.write_text(content)

    assert command_line(["trace", str(path)]) == ExitCode.BAD_INPUT
    streams = capsys.readouterr()
    assert said in streams.err
    assert streams.out == ""


def test_commands_that_read_files_wait_for_none_of_the_parts() -> None:
    """They need no engine's client, no provider's SDK and no gRPC, and are there sooner without."""
    program = (
        "import sys; from orchestrator.cli import export, stats, trace;"
        "print([name for name in ('docker', 'openai', 'grpc', 'pydantic', 'asyncio')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert done.stdout == "[]\n"


class _Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def _nasty_run() -> Chronicle:
    chronicle = Chronicle()
    run = RunTeller(chronicle, "nasty")
    run.begin(question=NASTY, root_model=NASTY, sub_model=NASTY, profile=NASTY)
    run.turn((told(NASTY),), f"{NASTY}\n{fenced(NASTY)}")
    run.cell(NASTY)
    query = run.ask(NASTY, model=NASTY)
    run.answer(query, NASTY, notice=NASTY)
    failure = QueryFailure(reason=QueryFailureReason.TOOL_FAILED, message=NASTY)
    tool = run.ask(NASTY, kind=QueryKind.TOOL, tool_name=NASTY)
    run.answer(tool, failure)
    run.end_cell(
        stdout=Printed(head=NASTY, tail=NASTY, total_bytes=9, dropped_bytes=1),
        stderr=Printed(head=NASTY, total_bytes=9),
        error=CellError(type_name=NASTY, message=NASTY, traceback=NASTY),
    )
    run.end(NASTY, failure=NASTY)
    return chronicle
