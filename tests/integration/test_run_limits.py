"""Limits of a run and of a cell on the whole product: what was paid for is returned, and marked."""

from pathlib import Path

import pytest
from support.model_server import ModelServer
from support.real_host import RealHost, cell

from orchestrator import AnswerSource, CellLimits, FinishReason, RunLimits
from orchestrator.domain import Outcome
from orchestrator.events import CellEnded

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build


def test_turn_limit_returns_the_draft(host: RealHost, tmp_path: Path) -> None:
    """Out of turns, the draft is printed, marked as one, and the exit code says so."""
    (tmp_path / "text").write_text("x")
    with ModelServer(root=[cell("answer['content'] = 'so far'")]) as server:
        ended = host.call(
            *("run", "q", "--context", tmp_path / "text", "--max-turns", 1),
            environment=host.environment(server),
        )

    assert (ended.exit_code, ended.stdout) == (3, "so far\n"), ended.stderr
    told = "Ended by turn_limit (run.turns); what is printed is the draft of the last cell"
    assert told in ended.stderr


def test_turn_limit_without_a_draft_asks_once_more(host: RealHost) -> None:
    """With no draft there is one last request, for a text, and the result says it is a guess."""
    replies = [cell("print('seen')"), "It may be 42."]
    with ModelServer(root=replies) as server:
        result = host.rlm(server, run_limits=RunLimits(turns=1)).completion("x", "q")
        last = server.root_requests[-1].prompt

    assert result.finish_reason is FinishReason.TURN_LIMIT
    assert (result.answer, result.answer_source) == ("It may be 42.", AnswerSource.LAST_REQUEST)
    assert "limit of 1 turn" in last


def test_query_limit_returns_the_draft(host: RealHost) -> None:
    """Not one query more than allowed leaves, whatever a cell's loop asks for."""
    source = """
for number in range(10):
    answer["content"] = llm_query(f"number {number}")
"""
    with ModelServer(root=[cell(source)]) as server:
        result = host.rlm(server, run_limits=RunLimits(queries=2)).completion("x", "q")
        asked_count = len(server.sub_requests)

    assert asked_count == 2
    assert result.finish_reason is FinishReason.QUERY_LIMIT
    assert (result.answer, result.answer_source) == ("number 1", AnswerSource.DRAFT)
    failed = next(event for event in result.trajectory if isinstance(event, CellEnded)).result
    assert failed.outcome is Outcome.RAISED
    assert failed.error is not None
    assert "no query left" in failed.error.message


def test_time_limit_returns_the_draft(host: RealHost) -> None:
    """Out of time, a cell that would run on is stopped, and the draft it has made counts."""
    replies = [cell("answer['content'] = 'in time'\nwhile True:\n    pass")]
    with ModelServer(root=replies) as server:
        result = host.rlm(server, run_limits=RunLimits(time_s=5.0)).completion("x", "q")

    assert result.finish_reason is FinishReason.TIME_LIMIT
    assert (result.answer, result.answer_source) == ("in time", AnswerSource.DRAFT)
    assert result.timings.total_s < 10


def test_cell_limit_costs_the_cell(host: RealHost) -> None:
    """A cell that is stopped at its own limit is a remark to the model, not the end of the run."""
    replies = [cell("while True:\n    pass"), cell("FINAL('went on')")]
    with ModelServer(root=replies) as server:
        result = host.rlm(server, cell_limits=CellLimits(wall_s=0.5)).completion("x", "q")
        report = server.root_requests[1].prompt

    assert result.answer == "went on"
    assert "stopped after 0.5 s of its own time" in report
