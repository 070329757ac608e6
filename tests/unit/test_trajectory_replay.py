"""A run can be run again from its trajectory, without a model, to the same end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeCell, FakeProvider
from support.trajectories import (
    ROOT,
    SUB,
    cancelled_run,
    direct_run,
    rich_run,
    write,
)

from orchestrator.context import encode_context
from orchestrator.domain import AnswerSource, FinishReason
from orchestrator.engine.prompts.profiles import PROFILES
from orchestrator.engine.result import RunResult
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.root_loop import RootLoop
from orchestrator.engine.setup import SUB_ALIAS, RunSetup
from orchestrator.errors import InputError
from orchestrator.events import QueryEnded, QueryStarted, RunEnded
from orchestrator.limits import CellLimits, QueryLimits, RunLimits
from orchestrator.models.replayed import ReplayedModel
from orchestrator.ports import EventSink, ModelClient
from orchestrator.trajectory.growth import records_of, runs_of
from orchestrator.trajectory.jsonl import open_trajectory
from orchestrator.trajectory.replay import Recording, exchanges_of, read_recording, recording_of

CONTEXT = "a long text " * 2_000


def cell(source: str) -> str:
    return f"```repl\n{source}\n```"


async def ask_three(run: CellRun) -> None:
    run.print(" ".join(str(answer) for answer in await run.ask("one?", "two?", "one?")))


async def ask_children(run: CellRun) -> None:
    short = await run.ask_child("Which city?", encode_context("Paris, Rome"))
    alone = await run.ask_child("", encode_context("Say hello."))
    long = await run.ask_child("How long is it?", encode_context("x" * 20_000))
    run.draft(f"{short} {alone} {long}")


async def finish(run: CellRun) -> None:
    run.final(run.answer.content or "done")


async def nothing(_run: CellRun) -> None:
    """A cell that does nothing."""


def sub_replies(messages: Sequence[object]) -> str:
    last = str(messages[-1])
    for mark, reply in (
        ("Say hello", "hello"),
        ("Which city", "Paris"),
        ("How long", cell("FINAL('long')")),
        ("one?", "1"),
        ("two?", "2"),
    ):
        if mark in last:
            return reply
    return cell("pass")


def loop(
    *cells: FakeCell, root: ModelClient, sub: ModelClient, limits: RunLimits, sink: EventSink
) -> RootLoop:
    """Joins two models with a sandbox whose cells are given."""
    setup = RunSetup(
        root_model=root,
        sub_models={SUB_ALIAS: sub},
        child_model=sub,
        provider=FakeProvider(*cells),
        limits=limits,
        query_limits=QueryLimits(),
        cell_limits=CellLimits(),
        profile=PROFILES["default"],
        child_profile=PROFILES["default"],
        retry=RetryPolicy(max_retries=0),
    )
    return RootLoop(setup, sink=sink)


async def record(*cells: FakeCell, root: Sequence[str], path: Path, limits: RunLimits) -> RunResult:
    """Runs once with models, and records it."""
    with open_trajectory(path) as sink:
        engine = loop(
            *cells,
            root=FakeModel(root, name="fake-root"),
            sub=FakeModel([sub_replies], name="fake-sub"),
            limits=limits,
            sink=sink,
        )
        return await engine.run(question="q", context=encode_context(CONTEXT))


async def replay(
    *cells: FakeCell, recording: Recording, limits: RunLimits
) -> tuple[RunResult, ReplayedModel, ReplayedModel]:
    """Runs again from what was recorded."""
    root = ReplayedModel(name=recording.root_model, chats=recording.root_chats)
    sub = ReplayedModel(
        name=recording.sub_model, chats=recording.child_chats, prompts=recording.queries
    )
    engine = loop(*cells, root=root, sub=sub, limits=limits, sink=lambda _event: None)
    return await engine.run(question="q", context=encode_context(CONTEXT)), root, sub


def told_of(result: RunResult) -> list[str]:
    """Returns what a run came to, without what time and chance decide, the order of answers too."""
    told: list[tuple[object, ...]] = []
    for event in result.trajectory:
        match event:
            case QueryStarted():
                told.append(("asked", event.prompt, event.kind, event.is_repeat))
            case QueryEnded():
                reply = None if event.reply is None else event.reply.text
                told.append(("answered", reply, event.failure))
            case RunEnded():
                told.append(("ended", event.finish_reason, event.answer, event.answer_source))
            case _:
                told.append((type(event).__name__,))
    return sorted(map(str, told))


async def test_replayed_run_comes_to_the_same(tmp_path: Path) -> None:
    """Turns, queries, repeats, child runs, direct answers: all as recorded, and no difference."""
    cells = (ask_three, ask_children, finish)
    root = [cell("ask"), cell("children"), cell("finish")]
    path, limits = tmp_path / "t.jsonl", RunLimits()
    recorded = await record(*cells, root=root, path=path, limits=limits)

    again, replayed_root, replayed_sub = await replay(
        *cells, recording=read_recording(path), limits=limits
    )

    assert recorded.finish_reason is FinishReason.ANSWERED
    assert told_of(again) == told_of(recorded)
    assert replayed_root.first_difference is None
    assert replayed_sub.first_difference is None
    assert again.cost_usd == 0


async def test_best_guess_at_a_limit_is_replayed(tmp_path: Path) -> None:
    """What the request for a last answer brought is brought again."""
    path, limits = tmp_path / "t.jsonl", RunLimits(turns=2)
    recorded = await record(
        nothing, nothing, root=[cell("a"), cell("b"), "It is Paris."], path=path, limits=limits
    )

    again, *_ = await replay(nothing, nothing, recording=read_recording(path), limits=limits)

    assert recorded.answer_source is AnswerSource.LAST_REQUEST
    assert (again.answer, again.answer_source) == ("It is Paris.", AnswerSource.LAST_REQUEST)


async def test_run_whose_cells_do_otherwise_goes_on_and_says_where_it_differs(
    tmp_path: Path,
) -> None:
    """A change in what surrounds a model can be looked into with the same replies."""
    path, limits = tmp_path / "t.jsonl", RunLimits()
    await record(ask_three, finish, root=[cell("a"), cell("b")], path=path, limits=limits)

    again, replayed_root, _ = await replay(
        nothing, finish, recording=read_recording(path), limits=limits
    )

    assert again.finish_reason is FinishReason.ANSWERED
    difference = replayed_root.first_difference
    assert difference is not None
    assert difference.exchange == 2
    assert "1 2 1" in str(difference)


def test_recording_has_what_each_model_said() -> None:
    """Replies of the root model, those of child runs, and prompts; no repeat and no tool."""
    recording = recording_of(runs_of(rich_run().records))

    assert (recording.root_model, recording.sub_model, recording.profile) == (ROOT, SUB, "gpt-5")
    assert [len(chat) for chat in recording.root_chats] == [5]
    assert [len(chat) for chat in recording.child_chats] == [2]
    assert [query.prompt.split("\n")[-1] for query in recording.queries] == [
        "alpha",
        "beta",
        "gamma",
        "def parse_headers(fp): …",
    ]
    assert [query.is_refusal for query in recording.queries] == [False, True, False, False]
    assert recording.queries_to(SUB) == recording.queries
    assert recording.queries_to(ROOT) == ()


def test_prompt_that_was_given_up_has_no_answer() -> None:
    """A model that was not heard out said nothing."""
    recording = recording_of(runs_of(cancelled_run().records))

    assert recording.queries == ()


def test_direct_answer_keeps_the_digest_of_its_context() -> None:
    """The context itself is in no event."""
    [query] = recording_of(runs_of(direct_run().records)).queries

    assert (query.prompt, query.context_chars) == ("Which city?", 11)
    assert len(query.context_sha256_hex) == 64


def test_reply_that_is_the_answer_is_not_there_twice() -> None:
    """A release that records the last request as well has its reply once."""
    [run] = runs_of(rich_run().records)
    assert run.ended is not None
    ended = replace(run.ended, answer_source=AnswerSource.LAST_REQUEST, answer="FINAL")

    assert len(exchanges_of(replace(run, ended=ended))) == 5
    ended = replace(ended, answer="another")
    assert len(exchanges_of(replace(run, ended=ended))) == 6


def test_runs_are_chosen_by_name(tmp_path: Path) -> None:
    """All runs of a file, or the one that is meant, child runs too."""
    path = write(tmp_path / "t.jsonl", rich_run("one"), rich_run("two"))

    assert len(read_recording(path).root_chats) == 2
    assert len(read_recording(path, run_id="tw").root_chats) == 1
    assert read_recording(path, run_id="c0ffeeone").root_model == SUB
    with pytest.raises(InputError, match="2 runs whose name begins with 'c0'"):
        read_recording(path, run_id="c0")
    with pytest.raises(InputError, match="no run whose name begins with 'x'"):
        read_recording(path, run_id="x")


def test_nothing_to_replay_is_said(tmp_path: Path) -> None:
    """An empty file, and one without texts, are refused before anything is run."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    elided = write(tmp_path / "elided.jsonl", rich_run(), records_text=False)

    with pytest.raises(InputError, match="nothing to replay"):
        read_recording(empty)
    with pytest.raises(InputError, match="recorded without texts"):
        read_recording(elided)


async def test_result_can_be_replayed_without_a_file(tmp_path: Path) -> None:
    """Events that a caller has in hand are a recording as well."""
    limits = RunLimits()
    recorded = await record(finish, root=[cell("a")], path=tmp_path / "t.jsonl", limits=limits)
    recording = recording_of(runs_of(records_of(recorded.trajectory)))

    again, *_ = await replay(finish, recording=recording, limits=limits)

    assert again.answer == recorded.answer
