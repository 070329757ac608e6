"""A root model's reply is told of as it comes, where that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.context import encode_context
from orchestrator.domain import AnswerSource
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import ModelUnavailableError
from orchestrator.events import LIVE_EVENTS, ReplyPiece, RunStarted, TurnStarted
from orchestrator.limits import RunLimits
from orchestrator.price import Price

SIZE = 7


class Streaming:
    """A model that gives its replies in pieces of a few characters.

    Attributes:
        listened: Whether somebody listened, for each request.
        breaks_off: How many requests break off in the middle first.
        hangs: Whether requests stay silent for good after the first piece.
        has_begun: Set with the first piece.
    """

    is_scripted = False

    def __init__(self, *replies: str, name: str = "root", breaks_off: int = 0) -> None:
        """Begins at the first reply; the last one is repeated."""
        self.name = name
        self.facts = ModelFacts(price=Price(prompt_usd=1.0, completion_usd=4.0))
        self.listened: list[bool] = []
        self.breaks_off = breaks_off
        self.hangs = False
        self.has_begun = asyncio.Event()
        self._replies = replies
        self._answered_count = 0

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Gives the next reply piece by piece."""
        del request
        self.listened.append(on_text is not None)
        text = self._replies[min(self._answered_count, len(self._replies) - 1)]
        for count, piece in enumerate(pieces_of(text), start=1):
            if on_text is not None and not on_text(piece):
                return ModelReply(text=text[: count * SIZE], was_cut=True)
            self.has_begun.set()
            if self.hangs:
                await asyncio.Event().wait()
            if len(self.listened) <= self.breaks_off:
                raise ModelUnavailableError("broke off", model=self.name, retry_after_s=0.0)
        self._answered_count += 1
        return ModelReply(text=text, prompt_tokens=10, completion_tokens=2, cost_usd=0.0)

    async def aclose(self) -> None:
        """Holds nothing."""


def pieces_of(text: str) -> list[str]:
    """Cuts a text as the model does."""
    return [text[start : start + SIZE] for start in range(0, len(text), SIZE)]


async def look(run: CellRun) -> None:
    """Prints something."""
    run.print("looked")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


def fake(model: Streaming) -> FakeModel:
    """Passes a model off as what a stage takes."""
    return cast("FakeModel", model)


def stage_of(root: Streaming, **options: Any) -> Stage:  # noqa: ANN401 - a stage's own
    """Sets a stage for two turns."""
    return Stage([], look, finish, root=fake(root), **{"streams_replies": True, **options})


def texts(stage: Stage) -> Sequence[str]:
    """Returns the pieces that were told of."""
    return [event.text for event in stage.of(ReplyPiece)]


async def test_pieces_are_told_as_they_come() -> None:
    """Each with its run and its turn, in order, before the reply itself is told of."""
    stage = stage_of(Streaming(LOOK, FINISH))
    result = await stage.run()

    assert texts(stage) == [*pieces_of(LOOK), *pieces_of(FINISH)]
    assert {event.run_id for event in stage.of(ReplyPiece)} == {result.run_id}
    assert [event.turn for event in stage.of(ReplyPiece)] == [
        *[1] * len(pieces_of(LOOK)),
        *[2] * len(pieces_of(FINISH)),
    ]
    kinds = stage.kinds()
    begun, ended = kinds.index("TurnStarted"), kinds.index("ReplyReceived")
    assert set(kinds[begun + 1 : ended]) == {"ReplyPiece"}


async def test_nobody_is_told_who_did_not_ask() -> None:
    """Without it replies come whole, and the provider is not asked to stream them."""
    root = Streaming(LOOK, FINISH)
    stage = stage_of(root, streams_replies=False)
    result = await stage.run()

    assert result.answer == "42"
    assert texts(stage) == []
    assert root.listened == [False, False]


async def test_reply_that_is_streamed_for_its_bound_is_told_to_nobody() -> None:
    """Where money is limited every reply is watched as it comes; that is the engine's matter."""
    root = Streaming(LOOK, FINISH)
    stage = stage_of(root, streams_replies=False, limits=RunLimits(usd=1.0))
    await stage.run()

    assert root.listened == [True, True]
    assert texts(stage) == []


async def test_another_try_begins_anew() -> None:
    """A display sees the failure between the pieces, and knows that they start over."""
    stage = stage_of(
        Streaming(LOOK, FINISH, breaks_off=2),
        retry=RetryPolicy(max_retries=2),
    )
    await stage.run()
    kinds = stage.kinds()
    until_reply = kinds[kinds.index("TurnStarted") + 1 : kinds.index("ReplyReceived")]

    assert texts(stage)[:3] == [LOOK[:SIZE]] * 3
    assert "".join(texts(stage)[2:]) == LOOK + FINISH
    assert until_reply[:4] == ["ReplyPiece", "RequestFailed", "ReplyPiece", "RequestFailed"]


async def test_no_trajectory_holds_what_is_of_a_moment() -> None:
    """Whatever `LIVE_EVENTS` names is told and not kept: replies and outputs are there whole."""
    stage = stage_of(Streaming(LOOK, FINISH))
    result = await stage.run()
    of_a_moment = [event for event in stage.events if isinstance(event, LIVE_EVENTS)]

    assert {type(event).__name__ for event in of_a_moment} == {"ReplyPiece", "CellPrinted"}
    assert list(result.trajectory) == [e for e in stage.events if e not in of_a_moment]


async def test_reasoning_that_a_model_lets_through_runs_nothing() -> None:
    """Pieces are shown as they come; what runs is found in the whole reply, reasoning left out."""
    reply = f"<think>\n```repl\nbad()\n```\n</think>\n{LOOK}"
    stage = stage_of(Streaming(reply, FINISH))
    await stage.run()

    assert "".join(texts(stage)) == reply + FINISH
    assert stage.provider.opened[0].sources == ["print(len(context))", "FINAL('42')"]
    assert stage.of(TurnStarted)[1].messages[0].content == LOOK


async def test_last_request_is_told_too() -> None:
    """The display shows the best answer as it comes, as a turn of its own."""
    stage = stage_of(Streaming(LOOK, "It is 42."), limits=RunLimits(turns=1))
    result = await stage.run()

    assert result.answer_source is AnswerSource.LAST_REQUEST
    last = stage.of(ReplyPiece)[-2:]
    assert "".join(event.text for event in last) == "It is 42."
    assert {event.turn for event in last} == {2}


async def test_sub_models_answers_are_not_pieces_of_the_roots() -> None:
    """A query's answer is one event; many of them come at the same time."""

    async def ask(run: CellRun) -> None:
        await run.ask("one?", "two?")

    sub = Streaming("sub says", name="sub")
    stage = Stage([], ask, finish, root=fake(Streaming(LOOK, FINISH)), sub=fake(sub))
    await stage.run()

    assert sub.listened == [False, False]
    assert "sub says" not in "".join(texts(stage))


async def test_child_runs_pieces_are_told_with_its_own_name() -> None:
    """A display can tell whose reply grows, though parent and child take turns."""

    async def act(run: CellRun) -> None:
        if run.source == "parent":
            await run.ask_child("how much?", encode_context("a part"))
        else:
            run.final("42")

    stage = Stage(
        ["```repl\nparent\n```", FINISH],
        provider=FakeProvider(*[act] * 2),
        child=fake(Streaming(FINISH, name="child")),
        streams_replies=True,
    )
    await stage.run()
    parent, child = [event.run_id for event in stage.of(RunStarted)]
    by_run = {
        run_id: "".join(event.text for event in stage.of(ReplyPiece) if event.run_id == run_id)
        for run_id in (parent, child)
    }

    assert by_run == {parent: "```repl\nparent\n```" + FINISH, child: FINISH}


@pytest.mark.parametrize("streams", [True, False])
async def test_cancelled_reply_costs_what_had_come(*, streams: bool) -> None:
    """Ctrl-C in the middle of a reply: what was seen of it is paid for, and the run has ended."""
    root = Streaming(LOOK)
    root.hangs = True
    stage = stage_of(root, streams_replies=streams)
    task = asyncio.ensure_future(stage.run())
    await root.has_begun.wait()
    task.cancel()
    await asyncio.wait({task})
    [end] = stage.ends()

    assert texts(stage) == ([LOOK[:SIZE]] if streams else [])
    assert (end.usage["root"].request_count, end.usage["root"].unanswered_count) == (0, 1)
    assert end.usage["root"].unanswered_usd > 0.0
