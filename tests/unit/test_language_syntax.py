import inspect

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cell_corpus import programs_in
from support.program_contexts import TEXT

from sandbox_image.repl.language import CellRejectedError, LanguagePolicy, compile_cell

_SOURCES = [cell.source for program in programs_in("legitimate") for cell in program.cells]
_MISTAKES = [
    pytest.param("x = 1\nx = 'abc\n", 2, "triple quotes", id="string"),
    pytest.param("x = 1\ny = '''abc\nmore", 2, "same three quotes", id="triple"),
    pytest.param('x = f"{1', 1, "", id="f-string"),
    pytest.param("Now let me look at the context:\nx = 1", 1, "prose", id="prose"),
    pytest.param("x = 1\nI'll start by reading it", 2, "prose", id="prose-apostrophe"),
    pytest.param("- Read the whole file first", 1, "prose", id="prose-bullet"),
    pytest.param("The answer is in chapter 3.", 1, "prose", id="prose-keywords"),
    pytest.param("```python\nx = 1\n```", 1, "Markdown fence", id="fence-open"),
    pytest.param("x = 1\n```", 2, "Markdown fence", id="fence-close"),
    pytest.param("print(\u201chello\u201d)", 1, 'write " instead', id="typographic-quotes"),
    pytest.param("x = 5 \u2013 3", 1, "write - instead", id="dash"),
    pytest.param("if 1 \u2264 2: pass", 1, "write <= instead", id="less-or-equal"),
    pytest.param("x\u00a0= 5", 1, "plain spaces", id="no-break-space"),
    pytest.param("!pip install numpy", 1, "no shell", id="magic"),
    pytest.param("pip install numpy", 1, "no shell", id="pip"),
    pytest.param("def f():\n\tx = 1\n        y = 2", 3, "four spaces", id="tabs"),
    pytest.param("  x = 1", 1, "left margin", id="indent"),
    pytest.param("if 1:\n    x = 1\n  y = 2", 3, "four spaces", id="dedent"),
    pytest.param("if 1:\nx = 1", 2, "`pass`", id="no-body"),
    pytest.param("x = (1,\ny = 2", 1, "", id="bracket"),
    pytest.param("x = = 2", 1, "plain Python", id="anything-else"),
    pytest.param("print((1", 1, "close the bracket", id="bracket-at-end"),
    pytest.param("x = 1\nreturn x", 2, "FINAL", id="return"),
    pytest.param("yield 1", 1, "list", id="yield"),
    pytest.param("def f():\n    nonlocal q", 2, "`global`", id="nonlocal"),
    pytest.param("x = " + "9" * 5000, 1, "0x", id="huge-integer"),
    pytest.param("a = 1\nb = '\0'", 2, "\\u0000", id="nul"),
    pytest.param("a = 1\r\nb = '\ud800'", 2, "\\ud800", id="surrogate"),
]


def says_what_to_do(rejected: CellRejectedError) -> bool:
    """Whether a message goes on after the mistake's place."""
    return rejected.message.splitlines()[-1].strip() not in {"", "^"}


@pytest.mark.parametrize("policy", ["guarded", "open"])
@pytest.mark.parametrize(("source", "line", "advice"), _MISTAKES)
def test_mistake_is_placed_and_explained(
    source: str, line: int, advice: str, policy: LanguagePolicy
) -> None:
    """A cell that is no Python comes back with the line and what to write, under both policies."""
    with pytest.raises(CellRejectedError) as rejected:
        compile_cell(source, policy=policy, filename="<cell 1>")

    assert rejected.value.type_name == "SyntaxError"
    assert rejected.value.message.startswith(f"line {line}: ")
    assert advice in rejected.value.message
    assert says_what_to_do(rejected.value)


def test_caret_stands_under_the_mistake() -> None:
    """The place is shown, not only the line, however the line is indented."""
    with pytest.raises(CellRejectedError) as rejected:
        compile_cell("if 1:\n\tx = 5 $ 3", policy="guarded", filename="<cell 1>")

    _, shown, caret, *_ = rejected.value.message.splitlines()
    assert shown[caret.index("^")] == "$"


def test_control_characters_are_not_shown() -> None:
    """What is shown of a cell cannot paint on the terminal of whoever reads it."""
    with pytest.raises(CellRejectedError) as rejected:
        compile_cell("x = 'a\x1b[31m' $", policy="guarded", filename="<cell 1>")

    assert "\x1b" not in rejected.value.message


def test_long_line_is_shown_around_the_mistake() -> None:
    """A cell of one enormous line does not come back whole."""
    source = "x = [" + "1, " * 100_000 + "$]"

    with pytest.raises(CellRejectedError) as rejected:
        compile_cell(source, policy="guarded", filename="<cell 1>")

    _, shown, caret, *_ = rejected.value.message.splitlines()
    assert len(rejected.value.message) < 500
    assert shown[caret.index("^")] == "$"


@pytest.mark.parametrize("policy", ["guarded", "open"])
@pytest.mark.parametrize(
    "source",
    [
        "(" * 5000 + ")" * 5000,
        "-" * 100_000 + "1",
        "x = " + " + ".join("1" * 200_000),
        "x" + ".a" * 200_000,
        "if 0: pass\n" + "elif 0: pass\n" * 20_000,
        "lambda: " * 20_000 + "0",
    ],
    ids=["brackets", "signs", "sum", "attributes", "elif", "lambda"],
)
def test_deep_nesting_is_rejected(source: str, policy: LanguagePolicy) -> None:
    """A cell that exhausts the parser's stack is a rejected cell, not a dead process."""
    with pytest.raises(CellRejectedError, match="nested"):
        compile_cell(source, policy=policy, filename="<cell 1>")


@pytest.mark.parametrize("policy", ["guarded", "open"])
def test_only_a_cell_that_awaits_is_a_coroutine(policy: LanguagePolicy) -> None:
    """`CO_COROUTINE` tells which cells have to be driven by an event loop."""
    plain = compile_cell("x = 1", policy=policy, filename="<cell 1>")
    awaiting = compile_cell("import asyncio\nawait asyncio.sleep(0)", policy=policy, filename="<c>")

    assert not plain.co_flags & inspect.CO_COROUTINE
    assert awaiting.co_flags & inspect.CO_COROUTINE


def test_filename_is_what_tracebacks_say() -> None:
    """The name of the cell is kept in its code."""
    assert compile_cell("x = 1", policy="guarded", filename="<cell 7>").co_filename == "<cell 7>"


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@settings(deadline=None, max_examples=300)
@given(source=st.text(alphabet=st.characters(codec=None), max_size=60))
@example(source="")
@example(source="\ufeffx = 1")
@example(source="\x0c\n\u2028 x")
@example(source="# coding: no-such-codec\nx = 1")
def test_any_text_is_compiled_or_rejected(source: str) -> None:
    """No text whatever makes the compiler raise anything but a rejection with a line in it."""
    try:
        compile_cell(source, policy="guarded", filename="<cell 1>")
    except CellRejectedError as rejected:
        assert says_what_to_do(rejected)  # noqa: PT017 - compiling is the other half of the rule


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_cut_program_is_compiled_or_rejected(data: st.DataObject) -> None:
    """A program that was cut off anywhere comes back as a rejection, or still compiles."""
    source = data.draw(st.sampled_from(_SOURCES))
    start = data.draw(st.integers(0, len(source)))
    cut = source[start : data.draw(st.integers(start, len(source)))]

    try:
        compile_cell(
            cut + data.draw(st.sampled_from(["", "\n", TEXT])), policy="guarded", filename="<c>"
        )
    except CellRejectedError as rejected:
        assert says_what_to_do(rejected)  # noqa: PT017 - compiling is the other half of the rule
