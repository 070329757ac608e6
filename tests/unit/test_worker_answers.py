"""How a cell gives the run's answer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_broker import ScriptedBroker

from rlm_sandbox.v1 import sandbox_pb2 as pb


@pytest.fixture(scope="module")
def broker() -> Iterator[ScriptedBroker]:
    with (
        tempfile.TemporaryDirectory(prefix="rlm", dir="/tmp") as path,
        ScriptedBroker(Path(path)) as started,
    ):
        yield started


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("FINAL('done')", "done"),
        ("FINAL(42)", "42"),
        ("SUBMIT('done')", "done"),
        ("found = ['a', 'b']\nFINAL_VAR('found')", "['a', 'b']"),
        ("found = 'a text'\nFINAL_VAR(found)", "a text"),
        ("found = 7\nFINAL_VAR(found)", "7"),
        ("answer['content'] = 'x'\nanswer['ready'] = True", "x"),
        ("answer['content'] = 12\nanswer['ready'] = True", "12"),
        ("try:\n    FINAL('kept')\nexcept Exception:\n    FINAL('eaten')", "kept"),
        ("def f():\n    FINAL('deep')\nf()", "deep"),
    ],
)
def test_answer_is_final(broker: ScriptedBroker, source: str, content: str) -> None:
    """Every way to give the answer gives the same answer, as text."""
    result, _, _ = broker.run(source)

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert (result.answer.content, result.answer.is_ready) == (content, True)


def test_final_ends_the_cell(broker: ScriptedBroker) -> None:
    """Nothing after a final answer runs."""
    _, stdout, _ = broker.run("print('before')\nFINAL('x')\nprint('after')")

    assert stdout == b"before\n"


@pytest.mark.parametrize(
    ("source", "content"),
    [("answer['content'] = 'draft'", "draft"), ("answer = 'rebound'", "rebound")],
)
def test_draft_is_not_final(broker: ScriptedBroker, source: str, content: str) -> None:
    """A draft is reported after each cell and never taken for an answer."""
    result, _, _ = broker.run(source)

    assert (result.answer.content, result.answer.is_ready) == (content, False)


def test_final_answer_is_not_final_again(broker: ScriptedBroker) -> None:
    """A later cell is not finished by an earlier one's answer; its text stays as the draft."""
    broker.run("FINAL('old')")

    result, _, _ = broker.run("pass")

    assert (result.answer.content, result.answer.is_ready) == ("old", False)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("FINAL()", "FINAL takes one value"),
        ("FINAL('host3', '326')", "join them into one string"),
        ("FINAL(None)", "compute the answer first"),
        ("FINAL_VAR('nowhere')", "there is no variable 'nowhere'"),
        ("label = 'spam'\nFINAL_VAR(label)", "FINAL(value) takes a value"),
        ("FINAL(undefined_name)", "undefined_name"),
        ("FINAL('a' * 3_000_000)", "at most 2,097,152 are allowed"),
    ],
)
def test_misused_final_says_what_to_do(broker: ScriptedBroker, source: str, advice: str) -> None:
    """A wrong call is an error the model can act on, not an answer."""
    result, _, _ = broker.run(source)

    assert result.outcome == pb.OUTCOME_RAISED
    assert advice in result.error.message
    assert not result.answer.is_ready


def test_answer_that_cannot_be_text_is_an_error(broker: ScriptedBroker) -> None:
    """An object whose text cannot be had is not an answer."""
    broker.run("answer['content'] = ''")
    result, _, _ = broker.run(
        "class Odd:\n    def __str__(self): raise ValueError('no text')\n"
        "answer['content'] = Odd()\nanswer['ready'] = True"
    )
    broker.run("answer['content'] = ''")

    assert result.outcome == pb.OUTCOME_RAISED
    assert "is not text" in result.error.message
    assert not result.answer.is_ready


def test_variables_are_named_never_shown(broker: ScriptedBroker) -> None:
    """Names, types and sizes leave the sandbox; values do not."""
    result, _, _ = broker.run("secret_rows = ['value-not-to-be-seen'] * 3\n_private = 1")

    entry = next(entry for entry in result.variables if entry.name == "secret_rows")
    assert (entry.type_name, entry.size) == ("list", 3)
    assert "value-not-to-be-seen" not in str(result)
    assert "_private" not in [entry.name for entry in result.variables]


def test_show_vars_lists_them(broker: ScriptedBroker) -> None:
    """`SHOW_VARS()` gives a model the same list as text."""
    broker.run("shown = [1, 2]")

    _, stdout, _ = broker.run("print(SHOW_VARS())")

    assert b"shown: list of 2" in stdout


def test_json_literals_are_bound(broker: ScriptedBroker) -> None:
    """Models paste JSON into code."""
    _, stdout, _ = broker.run("print({'a': true, 'b': false, 'c': null})")

    assert stdout == b"{'a': True, 'b': False, 'c': None}\n"


def test_top_level_await_works(broker: ScriptedBroker) -> None:
    """A cell may await at its top level."""
    _, stdout, _ = broker.run(
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\n"
        "print(await asyncio.gather(f(1), f(2)))"
    )

    assert stdout == b"[1, 2]\n"
