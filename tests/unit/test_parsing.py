"""What is a cell in a root model's reply, and what is not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.parsing import ParsedReply, parse_reply


def parse(text: str, *, accepts_bare_code: bool = False, was_cut: bool = False) -> ParsedReply:
    """Parses as for a large model, unless told otherwise."""
    return parse_reply(text, accepts_bare_code=accepts_bare_code, was_cut=was_cut)


@pytest.mark.parametrize("label", ["repl", "python", "py", "python3", "REPL", "Python", " repl "])
@pytest.mark.parametrize("marker", ["```", "~~~", "`````", "~~~~"])
def test_a_labelled_fence_is_a_cell(label: str, marker: str) -> None:
    """Labels count in any case, and fences of either kind and any length."""
    reply = parse(f"Let me look.\n{marker}{label}\nprint(1)\n{marker}\nThat is all.")

    assert reply.cells == ("print(1)",)
    assert reply.prose == "Let me look.\nThat is all."


def test_several_cells_keep_their_order() -> None:
    """Cells run in the order in which they were written."""
    assert parse("```repl\na = 1\n```\nthen\n```python\nb = 2\n```").cells == ("a = 1", "b = 2")


def test_carriage_returns_are_line_ends() -> None:
    """A reply with CRLF gives the same cell as one with LF."""
    assert parse("```repl\r\nx = 1\r\nprint(x)\r\n```\r\n").cells == ("x = 1\nprint(x)",)


def test_an_indented_fence_is_moved_left() -> None:
    """A fence under a list item runs as if it stood at the margin."""
    text = "1. Look:\n   ```repl\n   for x in y:\n       print(x)\n   ```\n"

    assert parse(text).cells == ("for x in y:\n    print(x)",)


def test_indentation_of_a_body_that_is_not_moved_stays() -> None:
    """An indented fence around a body at the margin leaves the body's own indentation alone."""
    assert parse("  ```repl\nif x:\n  if y:\n    z()\n  ```").cells == ("if x:\n  if y:\n    z()",)


def test_a_fence_inside_a_string_belongs_to_the_string() -> None:
    """A prompt with fences in it does not end the cell that holds it."""
    source = 'prompt = """Answer in JSON:\n```\n{"a": 1}\n```\n"""\nprint(llm_query(prompt))'

    assert parse(f"```repl\n{source}\n```\nDone.").cells == (source,)


def test_a_string_that_never_ends_does_not_swallow_the_reply() -> None:
    """A cell with an open string ends at the first fence, so the model reads its syntax error."""
    reply = parse('```repl\nx = """abc\n```\nSome prose.\n```repl\nprint(1)\n```')

    assert reply.cells == ('x = """abc', "print(1)")


def test_quotes_in_comments_and_other_strings_open_nothing() -> None:
    """Three quotes in a comment or inside another string do not hide the closing fence."""
    source = "# a ''' here\nx = \"'''\"\ny = '\"\"\"'"

    assert parse(f"```repl\n{source}\n```\n```repl\nz = 1\n```").cells == (source, "z = 1")


def test_a_shorter_fence_does_not_close_a_longer_one() -> None:
    """A fence of four is closed by four."""
    assert parse("````repl\nx = 1\n```\ny = 2\n````").cells == ("x = 1\n```\ny = 2",)


@pytest.mark.parametrize("separator", ["\x0c", "\x85", "\u2028", "\x1c"])
def test_only_line_feeds_end_lines(separator: str) -> None:
    """Characters that `str.splitlines` takes for line ends stay in the cell as they are."""
    source = f'print("a{separator}b")'

    assert parse(f"```repl\n{source}\n```").cells == (source,)


def test_a_complete_cell_without_its_closing_fence_runs() -> None:
    """Small models stop after the code; what parses is run."""
    assert parse("```repl\nn = 1\nprint(n)").cells == ("n = 1\nprint(n)",)


def test_an_incomplete_cell_without_its_closing_fence_does_not_run() -> None:
    """What does not parse is not run, and the reply says why."""
    reply = parse("```repl\nfor x in (1,\n")

    assert reply.cells == ()
    assert reply.has_open_fence


def test_a_reply_that_was_cut_off_runs_nothing_of_its_open_cell() -> None:
    """A cell cut off by a length limit may parse and mean something else."""
    reply = parse("```repl\na = 1\n```\n```repl\nn = 12", was_cut=True)

    assert reply.cells == ("a = 1",)
    assert reply.has_open_fence


def test_an_unlabelled_fence_is_a_cell_where_no_other_is() -> None:
    """Models that forget the label are understood."""
    assert parse("Look:\n```\nprint(len(context))\n```").cells == ("print(len(context))",)


def test_an_unlabelled_fence_beside_a_labelled_one_is_text() -> None:
    """Beside a labelled cell it is output the model quotes."""
    reply = parse("It printed\n```\nprint(1)\n```\nso now\n```repl\nx = 1\n```")

    assert reply.cells == ("x = 1",)


@pytest.mark.parametrize("text", ["42", "Paris", "Answer: 42", '{"a": [1, 2]}', "it is 42", ""])
def test_an_unlabelled_fence_that_does_nothing_is_text(text: str) -> None:
    """That a text parses as Python does not make it code."""
    reply = parse(f"```\n{text}\n```")

    assert reply.cells == ()
    assert reply.has_unlabelled_fence


def test_fences_in_other_languages_are_named() -> None:
    """A fence in another language does not run; the repair can say which it was."""
    reply = parse("```json\n{}\n```\n```bash\nls\n```\n```json\n[]\n```")

    assert reply.cells == ()
    assert reply.foreign_labels == ("json", "bash")


@pytest.mark.parametrize("text", ["FINAL(42)", 'The answer is FINAL("x").', "FINAL_VAR(n)"])
def test_prose_is_never_searched_for_an_answer(text: str) -> None:
    """FINAL in prose is prose."""
    assert parse(text).cells == ()


def test_bare_code_is_a_cell_only_where_the_profile_says_so() -> None:
    """A reply without a fence that does something as Python runs for small models alone."""
    text = "import re\nprint(re.findall('a', context))"

    assert parse(text).cells == ()
    assert parse(text, accepts_bare_code=True).cells == (text,)


@pytest.mark.parametrize(
    "text",
    ["I will look at the context first.", "42", "Answer: 42", "not (code", "```json\n1\n```"],
)
def test_bare_prose_is_not_a_cell(text: str) -> None:
    """Accepting bare code does not make code of prose."""
    assert parse(text, accepts_bare_code=True).cells == ()


def test_bare_code_that_was_cut_off_does_not_run() -> None:
    """Half a bare cell may parse and mean something else."""
    assert parse("n = 12", accepts_bare_code=True, was_cut=True).cells == ()


@pytest.mark.parametrize(
    "text",
    [
        "<think>maybe\n```repl\nbad()\n```\n</think>\n```repl\ngood()\n```",
        "<THINK>one line</THINK>\n```repl\ngood()\n```",
        "maybe\n```repl\nbad()\n```\n</think>\n```repl\ngood()\n```",
        "```repl\ngood()\n```\n<think>and then\n```repl\nbad()\n```",
        "<think>a</think><think>b</think>\n<thinking>\nc\n</thinking>\n```repl\ngood()\n```",
    ],
    ids=["closed", "upper case", "closing tag alone", "never closed", "several"],
)
def test_reasoning_is_removed_before_anything_else(text: str) -> None:
    """Cells in reasoning do not run, and reasoning stays out of the transcript."""
    reply = parse(text)

    assert reply.cells == ("good()",)
    assert reply.spoken == "```repl\ngood()\n```"


def test_a_cell_that_handles_reasoning_tags_stays_whole() -> None:
    """Tags inside a cell are the cell's data."""
    source = 'text = re.sub(r"<think>.*?</think>", "", text)\nparts = text.split("</think>")'

    assert parse(f"```repl\n{source}\n```").cells == (source,)


@pytest.mark.parametrize("text", ["", "  \n ", "```repl\n\n```", "```repl", "<think>"])
def test_a_reply_without_anything_has_no_cells(text: str) -> None:
    """Emptiness in any form is no cell and no error."""
    assert parse(text, accepts_bare_code=True).cells == ()


@given(
    st.lists(
        st.sampled_from(
            ["```", "```repl", "````py", "~~~", "'''", '"""', "x = 1", "<think>", "</think>", "\\"]
        ),
        max_size=30,
    )
)
def test_no_arrangement_of_fences_is_an_error(lines: list[str]) -> None:
    """Parsing never raises, and no cell holds a tag that opens or closes nothing of its own."""
    reply = parse("\n".join(lines), accepts_bare_code=True)

    assert all(cell.strip() for cell in reply.cells)


@pytest.mark.parametrize(
    "line",
    ['```py\n"""\n```\n"""\n', "<think></think>\n", "```\n", "~~~repl\n'''\n", "-", "f(", "'"],
)
def test_hostile_replies_take_time_in_proportion(line: str) -> None:
    """A reply of 100 KB made to be parsed slowly does not hold up the event loop for long."""
    started_s = time.process_time()
    parse(line * (100_000 // len(line)), accepts_bare_code=True)

    assert time.process_time() - started_s < 5.0
