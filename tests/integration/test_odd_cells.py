"""Cells of models that misunderstand, overdo or break things: a turn is lost at most, never a run.

What the root model reads each time is a sentence it can act on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.model_server import ModelServer
from support.real_host import RealHost, cell

from orchestrator import CellLimits
from orchestrator.domain import Outcome, VariableState
from orchestrator.events import CellEnded, Noticed, NoticeKind

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

REBIND = """
context = answer = history = llm_query = llm_query_batched = llm_query_async = 0
rlm_query = rlm_query_batched = budget = FINAL = FINAL_VAR = SUBMIT = SHOW_VARS = 0
QueryError = QueryBatchError = true = false = null = print = 0
"""
DELETE = "del context, answer, llm_query, FINAL, budget, SHOW_VARS"
USE = """
asked = llm_query("one")
listed = SHOW_VARS()
try:
    llm_query("")
except (QueryError, ValueError) as error:
    why = type(error).__name__
FINAL([context, asked, why, budget()["depth"], true, null, type(history).__name__])
"""
IN_C = "kept = 'changed'\nsum(range(10**13))"
LEAVE_THREADS = """
import threading, time
for _ in range(4):
    threading.Thread(target=time.sleep, args=(600,)).start()
kept = "changed"
"""
LEAVE_EXECUTOR = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(2)
kept = pool.submit(str.upper, "changed").result()
"""
ALL_MARKS = ("repl", "python", "py", "Python", "python3", "REPL")
OTHER_LANGUAGES = ("bash", "json", "javascript", "sql", "r", "text", "html", "yaml", "c", "diff")


@pytest.mark.parametrize("source", [REBIND, DELETE], ids=["rebound", "deleted"])
def test_reserved_names_are_there_again(host: RealHost, source: str) -> None:
    """Whatever a cell does to the names of the session, the next cell finds them all."""
    with ModelServer(root=[cell(source), cell(USE)], sub=str.upper) as server:
        result = host.rlm(server).completion("words", "q")

    assert result.answer == "['words', 'ONE', 'ValueError', 1, True, None, 'list']"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("FINAL('a', 'b')", "FINAL takes one value, not 2; join them into one string first"),
        ("FINAL()", "FINAL takes one value, not 0"),
        ("FINAL(None)", "FINAL got None; compute the answer first"),
        ("FINAL_VAR('nothing')", "there is no variable 'nothing'"),
        ("answer['ready'] = True", "if there is nothing to be found, say so there"),
        ("llm_query('a', 'a long text\\n' * 100)", "the second argument is the name of a model"),
        ("llm_query_batched('one prompt')", "takes a list of strings, not one str"),
        ("llm_query(context=1)", "TypeError"),
        ("rlm_query(7)", "takes a string, not int"),
        ("llm_query('a', json_schema={'type': 'nonsense'})", "json_schema"),
    ],
    ids=lambda value: str(value)[:32],
)
def test_misused_name_teaches_its_use(host: RealHost, source: str, told: str) -> None:
    """The next request to the root model says what was wrong, and the run goes on."""
    with ModelServer(root=[cell(source), cell("FINAL('went on')")]) as server:
        result = host.rlm(server).completion("words", "q")
        report = server.root_requests[1].prompt

    assert result.answer == "went on"
    assert told in report


def test_loop_in_c_is_rolled_back(host: RealHost) -> None:
    """What no interrupt reaches is killed, and the variables are as before the cell."""
    replies = [cell("kept = 'before'"), cell(IN_C), cell("FINAL(kept + context)")]
    limits = CellLimits(wall_s=0.5, grace_s=0.5)
    with ModelServer(root=replies) as server:
        result = host.rlm(server, cell_limits=limits).completion("words", "q")
        report = server.root_requests[2].prompt

    assert result.answer == "beforewords"
    assert "Variables are as before this cell." in report
    assert "stopped after 0.5 s" in report


@pytest.mark.parametrize("source", [LEAVE_THREADS, LEAVE_EXECUTOR], ids=["threads", "executor"])
def test_threads_that_are_left_cost_the_checkpoint_only(host: RealHost, source: str) -> None:
    """Later cells go on with them; a cell that dies then costs the variables, and that is said."""
    replies = [
        cell("kept = 'before'"),
        cell(source),
        cell("print(kept)"),
        cell("import os\nos.abort()"),
        cell("FINAL(context + str('kept' in globals()))"),
    ]
    ended: list[CellEnded] = []
    with ModelServer(root=replies) as server:
        rlm = host.rlm(
            server,
            on_event=lambda event: ended.append(event) if isinstance(event, CellEnded) else None,
        )
        result = rlm.completion("words", "q")
        report = server.root_requests[4].prompt

    assert str(ended[2].result.stdout).strip().lower() == "changed"
    assert (ended[3].result.outcome, ended[3].result.state) == (Outcome.KILLED, VariableState.LOST)
    assert "variables" in report.lower()
    assert result.answer == "wordsFalse"


def test_open_executor_can_be_used_again(host: RealHost) -> None:
    """A pool that a cell leaves open works in the next one, and does not hang the session."""
    replies = [cell(LEAVE_EXECUTOR), cell("FINAL(pool.submit(llm_query, 'two').result())")]
    with ModelServer(root=replies, sub=str.upper) as server:
        result = host.rlm(server).completion("words", "q")

    assert result.answer == "TWO"


def test_every_mark_of_python_is_taken(host: RealHost) -> None:
    """However a model labels its Python, it is run; one reply may have them all."""
    blocks = [f"```{mark}\nfound = {number}\n```" for number, mark in enumerate(ALL_MARKS)]
    with ModelServer(root=["\n".join(blocks), cell("FINAL(found)")]) as server:
        result = host.rlm(server).completion("words", "q")

    assert result.answer == str(len(ALL_MARKS) - 1)


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_other_languages_are_named_and_not_run(host: RealHost, language: str) -> None:
    """The root model reads which label it used, and which one is run."""
    with ModelServer(root=[f"```{language}\nls\n```", cell("FINAL('on')")]) as server:
        result = host.rlm(server).completion("words", "q")
        repair = server.root_requests[1].prompt

    assert result.answer == "on"
    assert f"labelled `{language}` are not run" in repair


def test_going_round_in_circles_is_said(host: RealHost) -> None:
    """The same cell with the same outcome again: the root model is told, and so is the caller."""
    noticed: list[Noticed] = []
    same = cell("print(len(context))")
    with ModelServer(root=[same, same, same, cell("FINAL('on')")]) as server:
        rlm = host.rlm(
            server,
            on_event=lambda event: noticed.append(event) if isinstance(event, Noticed) else None,
        )
        result = rlm.completion("words", "q")
        told = server.root_requests[-1].prompt

    assert result.answer == "on"
    assert [event.kind for event in noticed][:1] == [NoticeKind.REPEATED_CELLS]
    assert noticed[-1].text in told
    assert result.efficiency.notice_count == len(noticed)


def test_prompt_that_is_repeated_is_paid_for_once(host: RealHost) -> None:
    """Its answer is there at once, the cell says so, and the figures show it."""
    source = "print(llm_query('the same'))"
    with ModelServer(root=[cell(source), cell(source), cell("FINAL('on')")]) as server:
        result = host.rlm(server).completion("words", "q")
        asked_count = len(server.sub_requests)

    assert asked_count == 1
    assert (result.query_count, result.efficiency.repeated_query_count) == (1, 1)


def test_trajectory_of_odd_cells_is_whole(host: RealHost, tmp_path: Path) -> None:
    """Surrogates, NUL and control characters of cells do not spoil the record of their run."""
    path = tmp_path / "run.jsonl"
    odd = "print('\\ud800 \\x00 \\x1b[31m \\u202e')\nanswer['content'] = '\\udcff\\x00'"
    with ModelServer(root=[cell(odd), cell("FINAL('\\ud83d')")]) as server:
        result = host.rlm(server).completion("words", "q", trajectory=path)

    assert result.trajectory_path == path
    assert len(result.answer) == 1
    assert path.read_text("utf-8").count("\n") == len(result.trajectory)
