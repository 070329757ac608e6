"""What a root model is told, turn by turn, and what it gets when money or tokens are gone."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import Message, ModelFacts, ModelReply
from orchestrator.context import encode_context
from orchestrator.domain import (
    AnswerSource,
    CellError,
    CellId,
    CellResult,
    FinishReason,
    Outcome,
    Printed,
    QueryFailure,
    QueryFailureReason,
    Variable,
    VariableState,
)
from orchestrator.engine.prompts.profiles import PROFILES
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import ModelUnavailableError
from orchestrator.events import ReplyReceived, RequestFailed
from orchestrator.limits import CellLimits, ModelCap, QueryLimits, RunLimits
from orchestrator.price import Price

FACTS = ModelFacts(price=Price(prompt_usd=1.0, completion_usd=4.0))
#: Looks, and takes nine tenths of what most limits here allow.
DEAR_LOOK = ModelReply(text=LOOK, prompt_tokens=100, completion_tokens=8_900, cost_usd=0.089)
SPENT: list[Any] = [
    (RunLimits(usd=0.1), FinishReason.COST_LIMIT, "usd", "its limit of $0.10"),
    (
        RunLimits(completion_tokens=10_000),
        FinishReason.TOKEN_LIMIT,
        "completion_tokens",
        "its limit of tokens and requests",
    ),
    (
        RunLimits(models={"root": ModelCap(requests=1)}),
        FinishReason.MODEL_LIMIT,
        "models.root.requests",
        "",
    ),
]


async def look(run: CellRun) -> None:
    """Prints something."""
    run.print("looked")


async def draft(run: CellRun) -> None:
    """Leaves a draft."""
    run.draft("maybe 41")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


def root(*answers: Any) -> FakeModel:  # noqa: ANN401 - a fake's own
    """Makes a root model whose price is known."""
    return FakeModel(answers, name="root", facts=FACTS)


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("depth", [0, 1])
async def test_run_begins_with_the_system_prompt_of_its_profile(profile: str, depth: int) -> None:
    """A model that may start child runs is told how; another one does not hear of them."""
    stage = Stage([FINISH], look, finish, profile=profile, limits=RunLimits(depth=depth))
    await stage.run()
    spoken = PROFILES[profile].system_text(has_child_runs=depth > 0)

    assert stage.root.requests[0][0] == Message("system", spoken)
    assert stage.root.requests[0][1:].count(Message("system", spoken)) == 0


async def test_first_message_says_what_the_context_is_and_what_there_is_to_spend() -> None:
    """Type, length and parts of the context, what a prompt may hold, how long a block may run."""
    stage = Stage(
        [FINISH],
        finish,
        limits=RunLimits(turns=7, queries=11, usd=1.5, time_s=600.0),
        query_limits=QueryLimits(prompt_chars=12_345, batch_prompts=17),
        cell_limits=CellLimits(wall_s=33.0),
        root=root(FINISH),
    )
    await stage.run(question="Which one?", context=["a" * 10, "b" * 20])
    told = stage.told(0)

    for words in (
        "Question:\nWhich one?",
        "`context` is a list of str, 30 characters in all. Lengths of its 2 parts: 10, 20.",
        "One prompt may have 12,345 characters",
        "llm_query_batched 17 prompts",
        "A block may run for 33 seconds",
        "This run has 7 turns, 11 queries, $1.50 and 10 minutes.",
    ):
        assert words in told


async def test_what_is_left_is_told_with_every_turn() -> None:
    """Turns, queries, money and time; before the last turn that it is the last."""

    async def ask(run: CellRun) -> None:
        await run.ask(f"question {run.source}")

    reply = ModelReply(text=LOOK, prompt_tokens=10, completion_tokens=2, cost_usd=0.1)
    stage = Stage(
        [],
        ask,
        look,
        finish,
        root=root(reply, reply, FINISH),
        limits=RunLimits(turns=3, queries=5, usd=1.0),
    )
    await stage.run()
    first, second = stage.told(1), stage.told(2)

    assert "Left: 2 turns, 4 queries, $0.80, 29 minutes." in first
    assert "The next turn is the last" not in first
    assert "Left: 1 turn, 4 queries, $0.70, 29 minutes. The next turn is the last" in second


async def test_brief_profile_is_told_of_the_last_turn_alone() -> None:
    """Figures in every turn distract a small model; the end of its run is its concern too."""
    stage = Stage(
        [LOOK, LOOK, FINISH], look, look, look, profile="small", limits=RunLimits(turns=3)
    )
    await stage.run()

    assert "Left:" not in "".join(message.content for message in stage.root.requests[2])
    assert "The next turn is the last" not in stage.told(1)
    assert stage.told(2).endswith("make your best answer final in it.")


async def test_messages_are_only_ever_appended() -> None:
    """Whatever happens in a turn, what was sent stays as it was: prefix caches are paid for it."""

    async def fail(_run: CellRun) -> None:
        message = "no such key"
        raise KeyError(message)

    async def final_of_nothing(run: CellRun) -> None:
        run.final("")

    stage = Stage(
        [LOOK, "no block", f"{LOOK}\nand\n{LOOK}", "", LOOK, FINISH],
        *(look, fail, look, final_of_nothing, finish),
    )
    result = await stage.run()

    assert result.turn_count == 6
    for earlier, later in itertools.pairwise(stage.root.requests):
        assert later[: len(earlier)] == earlier
        assert [message.role for message in later[len(earlier) :]] == ["assistant", "user"]


async def test_reply_is_recorded_whole() -> None:
    """With its reasoning, its figures and how many cells were found in it."""
    reply = ModelReply(
        text=f"<think>hm</think>{LOOK}\n{LOOK}",
        prompt_tokens=7,
        completion_tokens=3,
        cached_prompt_tokens=5,
        cost_usd=0.5,
    )
    stage = Stage([reply, FINISH], look, look, finish)
    await stage.run()
    first = stage.of(ReplyReceived)[0]

    assert (first.turn, first.reply, first.cell_count) == (1, reply, 2)


async def test_cells_run_one_by_one() -> None:
    """The second begins when the first has ended, with all that it did."""
    order: list[str] = []

    async def note(run: CellRun) -> None:
        order.append(f"{len(order)} begins")
        for _ in range(3):
            await asyncio.sleep(0)
        run.draft(f"{run.answer.content}.")
        order.append(f"{len(order)} ends")

    stage = Stage([f"{LOOK}\n{LOOK}\n{LOOK}", FINISH], note, note, note, limits=RunLimits(turns=1))
    result = await stage.run()

    assert order == ["0 begins", "1 ends", "2 begins", "3 ends", "4 begins", "5 ends"]
    assert result.answer == "..."


FAILED = CellResult(
    cell_id=CellId(0),
    outcome=Outcome.RAISED,
    state=VariableState.KEPT,
    stdout=Printed(head="some output\n", total_bytes=12),
    error=CellError(
        type_name="KeyError",
        message="'total'",
        traceback="Traceback (most recent call last):\n  File <cell 1>, line 3, in count",
    ),
    variables=(Variable(name="rows", type_name="list", size=12_345),),
)


async def test_cell_that_failed_is_shown_with_frames_and_variables() -> None:
    """Output, the cell's own frames, the error, and the names of what is there to go on with."""
    stage = Stage([LOOK, FINISH], FAILED, finish)
    await stage.run()

    assert (
        "REPL output:\nsome output\nTraceback (most recent call last):\n"
        "  File <cell 1>, line 3, in count\nKeyError: 'total'\nVariables: rows (list, 12,345)\n\n"
    ) in stage.told(1)


async def test_brief_profile_is_shown_output_and_error_alone() -> None:
    """Small models take frames and lists of variables for the answer."""
    stage = Stage([LOOK, FINISH], look, FAILED, finish, profile="small")
    await stage.run()

    assert stage.told(1) == "REPL output:\nsome output\nKeyError: 'total'"


async def test_busy_root_model_is_asked_again_in_mid_run() -> None:
    """A provider's bad minute is not the end of a run that has been paid for."""
    busy = ModelUnavailableError("busy", model="root", retry_after_s=0.0)
    stage = Stage([LOOK, busy, FINISH], look, finish, retry=RetryPolicy(max_retries=1))
    result = await stage.run()

    assert (result.answer, result.turn_count) == ("42", 2)
    assert stage.root.requests[1] == stage.root.requests[2]
    assert [event.why for event in stage.of(RequestFailed)] == ["busy"]


@pytest.mark.parametrize(("limits", "reason", "limit", "_words"), SPENT)
async def test_draft_is_returned_when_money_or_tokens_are_gone(
    limits: RunLimits, reason: FinishReason, limit: str, _words: str
) -> None:
    """Nothing more is asked: there is something to be returned, and the result names the limit."""
    stage = Stage([], draft, look, root=root(DEAR_LOOK), limits=limits)
    result = await stage.run()

    assert (result.finish_reason, result.limit, result.failure) == (reason, limit, "")
    assert (result.answer, result.answer_source) == ("maybe 41", AnswerSource.DRAFT)
    assert (len(stage.root.requests), result.turn_count) == (1, 1)


@pytest.mark.parametrize(("limits", "reason", "limit", "words"), SPENT[:2])
async def test_what_was_kept_back_pays_for_a_best_answer(
    limits: RunLimits, reason: FinishReason, limit: str, words: str
) -> None:
    """A tenth of money and tokens is there for the one request that a run without draft needs."""
    stage = Stage([], look, root=root(DEAR_LOOK, "It is 42."), limits=limits)
    result = await stage.run()

    assert (result.finish_reason, result.limit) == (reason, limit)
    assert (result.answer, result.answer_source) == ("It is 42.", AnswerSource.LAST_REQUEST)
    assert f"The run has reached {words}." in stage.told(1)
    bound = stage.root.max_completion_tokens[1]
    assert bound is not None
    assert 256 <= bound <= 1_375


@pytest.mark.parametrize(
    "limits", [RunLimits(usd=0.0895), SPENT[2][0], RunLimits(completion_tokens=9_000)]
)
async def test_run_that_cannot_pay_for_that_either_returns_without_an_answer(
    limits: RunLimits,
) -> None:
    """Never raised: the caller reads which limit it was, and what was spent."""
    stage = Stage([], look, root=root(DEAR_LOOK), limits=limits)
    result = await stage.run()

    assert (result.answer, result.answer_source) == ("", AnswerSource.NONE)
    assert result.finish_reason in {reason for _, reason, _, _ in SPENT}
    assert result.usage["root"].request_count == len(stage.root.requests) == 1


async def test_child_run_leaves_what_was_kept_back_to_its_parent() -> None:
    """The last request is the caller's: a child that has spent all has no answer of its own."""
    failures: list[Any] = []

    async def act(run: CellRun) -> None:
        if run.source == "parent":
            failures.append(await run.ask_child("how much?", encode_context("a part")))

    stage = Stage(
        [],
        provider=FakeProvider(*[act] * 3),
        root=root("```repl\nparent\n```", "It is 42."),
        child=FakeModel([DEAR_LOOK, "a guess"], name="child", facts=FACTS),
        limits=RunLimits(completion_tokens=10_000),
    )
    result = await stage.run()

    assert len(stage.child.requests) == 1
    assert [type(failure) for failure in failures] == [QueryFailure]
    assert failures[0].reason is QueryFailureReason.BUDGET_EXHAUSTED
    assert "token limit" in failures[0].message
    assert (result.answer, result.answer_source) == ("It is 42.", AnswerSource.LAST_REQUEST)


async def test_words_beside_a_cell_answer_the_last_request() -> None:
    """A model that cannot stop writing code has answered all the same, if it says something."""
    stage = Stage([LOOK, f"It is 42, as this shows:\n{LOOK}"], look, limits=RunLimits(turns=1))
    result = await stage.run()

    assert result.answer.startswith("It is 42, as this shows:")
    assert len(stage.provider.opened[0].sources) == 1


async def test_answer_of_the_last_request_is_in_the_trajectory() -> None:
    """As a reply like the others, in a turn of its own, with what was asked."""
    stage = Stage([LOOK, "<think>hm</think>It is 42."], look, limits=RunLimits(turns=1))
    result = await stage.run()
    [_, last] = stage.of(ReplyReceived)

    assert (last.turn, last.reply.text) == (2, "<think>hm</think>It is 42.")
    assert result.answer == "It is 42."
    assert result.turn_count == 1  # of those that led to cells
