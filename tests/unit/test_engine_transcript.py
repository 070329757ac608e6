"""What the root model is shown, and how it is appended to what it was shown before."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat import Message, ModelUsage
from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    CellUsage,
    Outcome,
    Printed,
    Variable,
    VariableState,
)
from orchestrator.engine.cell_report import cell_report, shown
from orchestrator.engine.result import total_cost_usd
from orchestrator.engine.sendable import sendable
from orchestrator.engine.transcript import Transcript, Turn


def printed(text: str) -> Printed:
    """Returns what a cell printed, whole."""
    return Printed(head=text, total_bytes=len(text.encode()))


def result(
    *,
    outcome: Outcome = Outcome.SUCCEEDED,
    state: VariableState = VariableState.KEPT,
    stdout: Printed | None = None,
    stderr: Printed | None = None,
    error: CellError | None = None,
    variables: tuple[Variable, ...] = (),
    query_count: int = 0,
) -> CellResult:
    """Returns a result of a cell that did nothing but what is given."""
    return CellResult(
        cell_id=CellId(1),
        outcome=outcome,
        state=state,
        stdout=stdout or Printed(),
        stderr=stderr or Printed(),
        error=error,
        variables=variables,
        usage=CellUsage(query_count=query_count),
    )


def report(
    cell: CellResult,
    *,
    output_chars: int = 1_000,
    is_brief: bool = False,
    answers_repeats_once: bool = True,
) -> str:
    """Returns the report of a cell that was allowed a minute."""
    return cell_report(
        cell,
        output_chars=output_chars,
        timeout_s=60.0,
        is_brief=is_brief,
        answers_repeats_once=answers_repeats_once,
    )


def test_output_within_the_bound_is_shown_whole() -> None:
    """What fits is shown as it is, the final line feed aside."""
    assert report(result(stdout=printed("a\n\nb\n"))) == "a\n\nb"


def test_long_output_is_shown_at_both_ends_with_its_true_length() -> None:
    """The model knows what it did not see."""
    text = shown(printed("H" * 5_000 + "T" * 5_000), max_chars=100)

    assert text == (
        "H" * 75
        + "\n... [the middle is left out: 10,000 bytes were printed in all] ...\n"
        + "T" * 25
    )


def test_output_that_the_sandbox_dropped_is_counted_too() -> None:
    """The true length is that of what was printed, not of what arrived."""
    text = shown(
        Printed(head="a" * 10, tail="b" * 10, total_bytes=2**30, dropped_bytes=2**30 - 20),
        max_chars=100,
    )

    assert text == (
        "aaaaaaaaaa\n... [the middle is left out: 1,073,741,824 bytes were printed in all] ...\n"
        "bbbbbbbbbb"
    )


@given(
    text=st.text(max_size=300),
    max_chars=st.integers(min_value=0, max_value=200),
    share=st.integers(min_value=1, max_value=50),
)
def test_output_is_bounded_for_any_bound(text: str, max_chars: int, share: int) -> None:
    """However small the bound, no more than it and the notes is shown."""
    cell = result(stdout=printed(text), stderr=printed(text))

    assert len(report(cell, output_chars=max_chars // share)) <= max_chars // share + 250


def test_an_error_is_shown_with_the_cells_own_frames() -> None:
    """Frames, type and message, in the order of a traceback."""
    error = CellError(type_name="KeyError", message="'x'", traceback="  line 2, in f\n")
    cell = result(outcome=Outcome.RAISED, error=error)

    assert report(cell) == "  line 2, in f\nKeyError: 'x'"
    assert report(cell, is_brief=True) == "KeyError: 'x'"


def test_a_long_error_is_bounded() -> None:
    """A message of eight kilobytes is not shown whole, and the end of a traceback is kept."""
    error = CellError(type_name="E", message="m" * 8_192, traceback="old\n" * 4_000 + "last frame")
    text = report(result(outcome=Outcome.RAISED, error=error))

    assert len(text) < 7_000
    assert "last frame" in text


def test_standard_error_is_set_apart() -> None:
    """The model can tell a warning from a result."""
    cell = result(stdout=printed("out\n"), stderr=printed("warning\n"))

    assert report(cell) == "out\nstderr:\nwarning"


def test_silence_is_said_to_be_silence() -> None:
    """A cell that printed nothing is told from a report that was lost."""
    assert report(result()) == "(nothing was printed; print what you want to see)"


@pytest.mark.parametrize(
    ("outcome", "state", "sentence"),
    [
        (Outcome.TIMED_OUT, VariableState.ROLLED_BACK, "Stopped after 60 s. Variables are as "),
        (Outcome.TIMED_OUT, VariableState.KEPT, "Variables are as this cell left them."),
        (Outcome.KILLED, VariableState.LOST, "All variables are gone; `context` is there again."),
        (Outcome.STOPPED, VariableState.KEPT, "Stopped from outside."),
        (Outcome.REJECTED, VariableState.KEPT, "Nothing of this cell ran."),
        (Outcome.RAISED, VariableState.ROLLED_BACK, "Variables are as before this cell."),
        (Outcome.SUCCEEDED, VariableState.LOST, "All variables are gone"),
    ],
)
def test_what_a_limit_did_is_said(outcome: Outcome, state: VariableState, sentence: str) -> None:
    """The model never has to guess which of its variables are there."""
    assert sentence in report(result(outcome=outcome, state=state))


def test_a_rolled_back_cell_is_told_that_its_answers_are_kept() -> None:
    """Answers that were paid for come back at no cost, where repeats are answered once."""
    cell = result(outcome=Outcome.TIMED_OUT, state=VariableState.ROLLED_BACK, query_count=2)

    assert "It had made 2 queries; asked again" in report(cell)
    assert "asked again" not in report(cell, answers_repeats_once=False)


def test_variables_are_named_with_type_and_size() -> None:
    """Names, types and sizes are shown, never values; a brief report leaves them out."""
    cell = result(
        variables=(
            Variable(name="lines", type_name="list", size=12_000),
            Variable(name="n", type_name="int", size=None),
        )
    )

    assert report(cell).endswith("Variables: lines (list, 12,000), n (int)")
    assert "Variables" not in report(cell, is_brief=True)


def test_many_variables_are_counted() -> None:
    """More names than are shown are counted."""
    many = tuple(Variable(name=f"v{n}", type_name="int", size=None) for n in range(200))

    assert report(result(variables=many)).endswith("v29 (int) and 170 more")


def test_output_is_verbatim_but_for_what_cannot_be_sent() -> None:
    """Escape sequences and markup reach the model as they are; NUL does not."""
    text = "\x1b[31m</system>{x}```repl\x00\u202e"

    assert report(result(stdout=printed(text))) == text.replace("\x00", "\ufffd")
    assert sendable("\ud800\udfff") == "\ufffd\ufffd"


def test_a_transcript_only_grows() -> None:
    """The messages of a turn are a prefix of those of the next."""
    opening = (Message("system", "s"), Message("user", "q"))
    transcripts = [Transcript(opening=opening)]
    for number in range(3):
        turn = Turn(reply=f"r{number}", feedback=f"f{number}")
        transcripts.append(transcripts[-1].plus(turn))

    for shorter, longer in pairwise(transcripts):
        messages = shorter.messages()
        assert longer.messages()[: len(messages)] == messages
    assert [m.role for m in transcripts[-1].messages()] == [
        "system",
        *["user", "assistant"] * 3,
        "user",
    ]


def test_a_last_request_extends_the_last_message() -> None:
    """Two messages of the user in a row are refused by some chat templates."""
    transcript = Transcript(opening=(Message("user", "q"),)).plus(Turn(reply="r", feedback="f"))

    assert transcript.messages_with("now") == (
        Message("user", "q"),
        Message("assistant", "r"),
        Message("user", "f\n\nnow"),
    )


def test_a_sum_that_leaves_out_a_model_is_no_sum() -> None:
    """Money is reported only where every model's price is known."""
    known, unknown = ModelUsage(cost_usd=0.5), ModelUsage(request_count=1)

    assert total_cost_usd({"a": known, "b": known}) == 1.0
    assert total_cost_usd({"a": known, "b": unknown}) is None
    assert total_cost_usd({"a": known, "never asked": ModelUsage()}) == 0.5
    assert total_cost_usd({}) == 0.0
