"""A list of events, whole or cut off, becomes the runs that it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from support.trajectories import (
    BEGAN,
    CHILD_QUESTION,
    QUESTION,
    ROOT,
    SUB,
    Chronicle,
    RunTeller,
    cancelled_run,
    direct_run,
    fenced,
    rich_run,
    told,
)

from orchestrator.domain import Outcome, QueryKind
from orchestrator.errors import InputError
from orchestrator.events import (
    CellEnded,
    CellStarted,
    NoticeKind,
    QueryEnded,
    QueryRefused,
    RequestFailed,
    RunStarted,
)
from orchestrator.trajectory.growth import records_of, runs_of
from orchestrator.trajectory.lines import RecordedEvent
from orchestrator.trajectory.tree import RecordedQuery, RecordedRun, find_run


@pytest.fixture
def run() -> RecordedRun:
    """A run in which nearly everything happens."""
    [run] = runs_of(rich_run("rich").records)
    return run


def test_run_has_its_beginning_and_its_end(run: RecordedRun) -> None:
    """Who was asked what, in which sandbox, and what came of it, with times."""
    assert (run.started.question, run.started_at) == (QUESTION, BEGAN)
    assert run.ready is not None
    assert run.ended is not None
    assert run.last_at is not None
    assert run.last_at > BEGAN + timedelta(seconds=40)


def test_turns_have_their_replies_and_cells_in_order(run: RecordedRun) -> None:
    """A turn is one reply and the results of its cells."""
    assert [turn.number for turn in run.turns] == [1, 2, 3, 4, 5]
    assert [[cell.started.cell_id for cell in turn.cells] for turn in run.turns] == [
        [1],
        [2, 3],
        [4],
        [5],
        [6],
    ]
    assert all(turn.reply is not None for turn in run.turns)
    assert run.turns[1].cells[1].ended is not None
    assert run.turns[1].cells[1].ended.result.outcome is Outcome.KILLED


def test_what_a_cell_asked_for_is_with_the_cell(run: RecordedRun) -> None:
    """Queries, refusals and requests that failed stand in the order in which they came."""
    steps = run.turns[1].cells[0].steps

    assert [type(step) for step in steps] == [
        QueryRefused,
        RecordedQuery,
        RecordedQuery,
        RecordedQuery,
        RequestFailed,
    ]
    answers = [query.ended for query in run.turns[1].cells[0].queries]
    assert [answer is not None and answer.failure is None for answer in answers] == [
        True,
        False,
        True,
    ]
    assert [query.started.is_repeat for query in run.turns[1].queries] == [False, False, True]


def test_child_run_is_under_the_query_that_it_answers(run: RecordedRun) -> None:
    """A child run is a whole run, in its place."""
    [query] = [query for query in run.queries if query.started.kind is QueryKind.CHILD_RUN]

    assert query.child_run is not None
    assert query.child_run.started.question == CHILD_QUESTION
    assert query.child_run.ended is not None
    assert run.child_runs == (query.child_run,)
    assert [each.started.root_model for each in run.walk()] == [ROOT, SUB]


def test_request_of_the_root_model_that_failed_is_with_its_turn(run: RecordedRun) -> None:
    """What was not answered before a reply came is no cell's."""
    assert [len(turn.failed_requests) for turn in run.turns] == [0, 0, 1, 0, 0]
    assert [failed.model for failed in run.failed_requests] == [ROOT, SUB]


def test_notices_and_compactions_are_with_their_turns(run: RecordedRun) -> None:
    """A compaction comes before the turn it was made for, a notice at the end of its own."""
    assert [turn.compaction is not None for turn in run.turns] == [False] * 4 + [True]
    assert [notice.kind for notice in run.turns[3].notices] == [NoticeKind.REPEATED_QUERIES]


def test_turn_whose_number_comes_twice_is_two_turns() -> None:
    """A request for a last answer may bear the number of the turn before; both are shown."""
    chronicle = Chronicle()
    teller = RunTeller(chronicle, "x")
    teller.begin()
    teller.turn((told("q"),), fenced("1"))
    teller.cell("1")
    teller.end_cell()
    second = [replace(record) for record in chronicle.records[1:3]]
    chronicle.records += second

    [run] = runs_of(chronicle.records)

    assert [len(turn.cells) for turn in run.turns] == [1, 0]
    assert all(turn.reply is not None for turn in run.turns)


def test_direct_answer_is_in_no_turn() -> None:
    """A short context that went straight to the sub-model left a query and no turn."""
    [run] = runs_of(direct_run().records)

    assert run.turns == ()
    assert [query.started.prompt for query in run.queries] == ["Which city?"]


def test_cell_that_was_never_ended_has_no_result() -> None:
    """The caller's end left a cell and its query where they were."""
    [run] = runs_of(cancelled_run().records)
    [cell] = run.turns[0].cells

    assert cell.ended is None
    assert cell.queries[0].ended is not None


def test_trajectory_may_end_anywhere() -> None:
    """Whatever a killed process had written is read, and never more than that."""
    records = rich_run().records
    for count in range(1, len(records)):
        [run] = runs_of(records[:count])

        events = [record.event for record in records[:count]]
        cells = [cell for each in run.walk() for turn in each.turns for cell in turn.cells]
        queries = [query for each in run.walk() for query in each.queries]
        assert run.ended is None
        assert len(cells) == _count(events, CellStarted)
        assert sum(cell.ended is not None for cell in cells) == _count(events, CellEnded)
        assert sum(query.ended is not None for query in queries) == _count(events, QueryEnded)
        assert len(list(run.walk())) == _count(events, RunStarted)


def test_runs_at_the_same_time_are_told_apart() -> None:
    """Two runs that write into one file share no turn, whichever came when."""
    one, two = rich_run("one").records, rich_run("two").records
    mixed = [record for pair in zip(one, two, strict=True) for record in pair]

    runs = runs_of(mixed)

    assert [run.run_id for run in runs] == ["one", "two"]
    assert [run.turns for run in runs] == [runs_of(each)[0].turns for each in (one, two)]


def test_child_run_whose_parent_is_not_there_stands_on_its_own() -> None:
    """A file may hold a part of a tree."""
    records = [record for record in rich_run("r").records if record.event.run_id != "r"]

    [run] = runs_of(records)

    assert run.started.depth == 1


def test_events_of_a_result_are_read_without_times() -> None:
    """What a caller has in hand is as good as a file, but for the times."""
    records = rich_run().records

    [run] = runs_of(records_of(record.event for record in records))

    assert run.started_at is None
    assert len(run.turns) == 5


def test_later_events_of_a_child_run_count_for_its_parent() -> None:
    """A run whose child run was at work when all ended was at work as well."""
    records = rich_run("r").records
    inside = [record for record in records if record.event.run_id != "r"]
    upto = records[: records.index(inside[-2]) + 1]

    [run] = runs_of(upto)

    assert run.last_at == inside[-2].time


@pytest.mark.parametrize(
    ("skipped", "complaint"),
    [
        (RunStarted, "comes before the run's beginning"),
        (CellStarted, "cell 1 of run 'x' ends without a beginning"),
    ],
)
def test_beginning_that_is_missing_is_said(skipped: type, complaint: str) -> None:
    """A file that lacks lines in its middle is not guessed at."""
    records = rich_run("x").records
    first = next(record for record in records if isinstance(record.event, skipped))

    with pytest.raises(InputError, match=complaint):
        runs_of([record for record in records if record is not first])


def test_query_that_ends_without_a_beginning_is_said() -> None:
    """Likewise of a query."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "x")
    run.begin()
    run.turn((told("q"),), fenced("llm_query('p')"))
    run.cell("llm_query('p')")
    query = run.ask("p")
    run.answer(query, "a", index=1)

    with pytest.raises(InputError, match="query 'q1' of run 'x' ends without a beginning"):
        runs_of(chronicle.records)


def test_run_that_is_there_twice_is_said() -> None:
    """A file that was joined to itself would count every cost twice."""
    with pytest.raises(InputError, match="begins twice"):
        runs_of([*cancelled_run("x").records, *cancelled_run("x").records])


def test_runs_nested_without_end_are_refused() -> None:
    """A file made to exhaust the stack is refused; no run of ours is nested so deep."""
    with pytest.raises(InputError, match="nested deeper"):
        runs_of(_nested(100))
    assert len(list(runs_of(_nested(10))[0].walk())) == 10


def test_run_is_found_by_the_beginning_of_its_name(run: RecordedRun) -> None:
    """Child runs are found as well; what several begin with finds all of them."""
    assert find_run([run], "ri") == (run,)
    assert find_run([run], "c0ffee") == run.child_runs
    assert find_run([run], "x") == ()


def _count(events: Sequence[object], kind: type) -> int:
    return sum(isinstance(event, kind) for event in events)


def _nested(levels: int) -> list[RecordedEvent]:
    chronicle = Chronicle()
    parent: str | None = None
    for level in range(levels):
        run = RunTeller(chronicle, f"r{level}")
        run.begin(parent_run_id=parent, parent_query_id="q1" if parent else None, depth=level)
        run.ask("p", kind=QueryKind.CHILD_RUN)
        parent = run.run_id
    return [replace(record) for record in chronicle.records]
