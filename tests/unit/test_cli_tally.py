"""What the command line says of a run and its child runs while they go on."""

import io

from rich.console import Console

from orchestrator.chat import ModelReply
from orchestrator.cli.event_lines import describe
from orchestrator.cli.progress import LiveProgress
from orchestrator.cli.tally import Tally
from orchestrator.domain import (
    AnswerSource,
    CellId,
    ContextKind,
    FinishReason,
    QueryId,
    QueryKind,
    RunId,
    Timings,
)
from orchestrator.events import (
    CellStarted,
    QueryEnded,
    QueryStarted,
    ReplyPiece,
    ReplyReceived,
    RunEnded,
    RunEvent,
    RunStarted,
    TurnStarted,
)

TOP, CHILD, GRANDCHILD = RunId("top"), RunId("child"), RunId("grandchild")


def started(run_id: RunId, *, parent: RunId | None = None, query: str = "") -> RunStarted:
    """Returns the beginning of a run."""
    return RunStarted(
        run_id=run_id,
        question="q",
        context_kind=ContextKind.TEXT,
        context_chars=1,
        context_sha256_hex="0" * 64,
        root_model=f"model of {run_id}",
        sub_model="sub",
        profile="default",
        is_scripted=parent is not None,
        parent_run_id=parent,
        parent_query_id=QueryId(query) if parent else None,
    )


def ended(run_id: RunId) -> RunEnded:
    """Returns the end of a run."""
    return RunEnded(
        run_id=run_id,
        finish_reason=FinishReason.ANSWERED,
        answer="a",
        answer_source=AnswerSource.FINAL,
        failure="",
        usage={},
        turn_count=3,
        query_count=0,
        timings=Timings(total_s=1.0, start_s=0.1, root_model_s=0.5, cells_s=0.4),
    )


def asked(run_id: RunId, query: str, kind: QueryKind = QueryKind.PLAIN) -> QueryStarted:
    """Returns a query on its way."""
    return QueryStarted(
        run_id=run_id,
        query_id=QueryId(query),
        prompt_index=0,
        cell_id=CellId(1),
        prompt="look it up",
        kind=kind,
        tool_name="find" if kind is QueryKind.TOOL else "",
    )


def answered(run_id: RunId, query: str, reply: ModelReply | None = None) -> QueryEnded:
    """Returns the end of a query."""
    return QueryEnded(
        run_id=run_id,
        query_id=QueryId(query),
        prompt_index=0,
        reply=reply or ModelReply(text="x", prompt_tokens=10, completion_tokens=2, cost_usd=0.25),
        failure=None,
        wall_s=0.1,
    )


def tally_of(*events: RunEvent) -> Tally:
    """Returns the figures after some events."""
    tally = Tally()
    for event in events:
        tally.add(event)
    return tally


def test_what_child_runs_spend_is_spent() -> None:
    """The money of an interrupted run is all of it, whoever's turn or query it paid for."""
    reply = ModelReply(text="x", prompt_tokens=100, completion_tokens=20, cost_usd=0.5)
    tally = tally_of(
        started(TOP),
        started(CHILD, parent=TOP, query="q1"),
        ReplyReceived(run_id=CHILD, turn=1, reply=reply, cell_count=1, wall_s=1.0),
        asked(CHILD, "q1"),
        answered(CHILD, "q1"),
    )

    assert tally.spent() == "110 + 22 tokens, $0.7500"
    assert "1 query, 1 child run" in tally.summary()


def test_turns_and_cells_are_those_of_the_run_itself() -> None:
    """A child run in the middle of a cell does not make its cell the one that is shown."""
    tally = tally_of(
        started(TOP),
        TurnStarted(run_id=TOP, turn=4),
        CellStarted(run_id=TOP, turn=4, cell_id=CellId(9), source="rlm_query('q', text)"),
        started(CHILD, parent=TOP, query="q1"),
        TurnStarted(run_id=CHILD, turn=1),
        CellStarted(run_id=CHILD, turn=1, cell_id=CellId(1), source="print(1)"),
    )

    assert (tally.turn, tally.cell_id, tally.cell_source) == (4, 9, "rlm_query('q', text)")
    assert (tally.root_model, tally.is_scripted) == ("model of top", False)


def test_open_queries_are_prompts_to_models() -> None:
    """Calls of tools and child runs are counted as what they are."""
    tally = tally_of(
        started(TOP),
        asked(TOP, "q1"),
        asked(TOP, "q2", QueryKind.TOOL),
        asked(TOP, "q3", QueryKind.CHILD_RUN),
        started(CHILD, parent=TOP, query="q3"),
        asked(CHILD, "q1"),
        answered(TOP, "q2", ModelReply(text="1")),
    )
    assert (tally.open_query_count, tally.query_count, tally.open_child_count) == (2, 2, 1)

    for event in (answered(TOP, "q1"), answered(CHILD, "q1"), ended(CHILD), ended(TOP)):
        tally.add(event)
    assert (tally.open_query_count, tally.query_count) == (0, 2)
    assert (tally.open_child_count, tally.child_count) == (0, 1)


def test_lines_of_child_runs_name_the_query_they_answer() -> None:
    """Several child runs write among each other; each line says whose it is, down to the last."""
    events = (
        started(TOP),
        asked(TOP, "q7", QueryKind.CHILD_RUN),
        started(CHILD, parent=TOP, query="q7"),
        started(GRANDCHILD, parent=CHILD, query="q2"),
        TurnStarted(run_id=GRANDCHILD, turn=1),
        asked(GRANDCHILD, "q1", QueryKind.TOOL),
        ended(GRANDCHILD),
        TurnStarted(run_id=TOP, turn=2),
    )
    tally = tally_of(*events)

    lines = [describe(event, tally) for event in events]
    assert lines[1] == "child run q7/0: look it up"
    assert (lines[2] or "").startswith("q7/0 | run child: ")
    assert lines[4:] == [
        "q7/0 > q2/0 | turn 1: asking model of grandchild",
        "q7/0 > q2/0 | call of find q1/0: look it up",
        "q7/0 > q2/0 | run ended (answered): 3 turns",
        "turn 2: asking model of top",
    ]


def test_reply_is_shown_while_it_is_written() -> None:
    """Who waits for a long reply sees that it comes, and nothing of it once it is there."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    tally = tally_of(
        started(TOP),
        TurnStarted(run_id=TOP, turn=1),
        ReplyPiece(run_id=TOP, turn=1, text="I look for the\nnew"),
        ReplyPiece(run_id=TOP, turn=1, text="est of them"),
        ReplyPiece(run_id=CHILD, turn=1, text=""),
    )
    progress = LiveProgress(console)
    progress.show(ReplyPiece(run_id=TOP, turn=1, text=""), tally)
    with progress:
        pass
    assert "newest of them" in stream.getvalue()

    reply = ModelReply(text="I look for the newest of them")
    tally.add(ReplyReceived(run_id=TOP, turn=1, reply=reply, cell_count=1, wall_s=1.0))
    assert not tally.reply_tail
