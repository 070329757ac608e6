"""What a run does with replies, limits and failures, and what it returns."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, LOOK, Stage

from orchestrator.chat import ModelReply
from orchestrator.domain import (
    AnswerSource,
    CellError,
    CellId,
    CellResult,
    Draft,
    FinishReason,
    Outcome,
    VariableState,
)
from orchestrator.engine.prompts.profiles import PROFILES
from orchestrator.errors import (
    InputError,
    ModelRefusedError,
    ModelUnavailableError,
    ProtocolViolationError,
    SandboxLostError,
    SandboxStartError,
)
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    CellStarted,
    QueryStarted,
    ReplyReceived,
    RunStarted,
    SandboxReady,
    TurnStarted,
)
from orchestrator.limits import CellLimits, RunLimits


async def look(run: CellRun) -> None:
    """Prints something."""
    run.print("9 characters")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


async def draft(run: CellRun) -> None:
    """Leaves a draft."""
    run.draft("maybe 41")


async def ask_one(run: CellRun) -> None:
    """Sends one prompt and prints what came."""
    [answer] = await run.ask(f"prompt {run.query_count} of {len(run.source)}")
    run.print(str(answer))


async def hang(_run: CellRun) -> None:
    """Never ends."""
    await asyncio.Event().wait()


async def die(_run: CellRun) -> None:
    """Takes the sandbox with it."""
    raise SandboxLostError("the container exited with 137")


async def test_a_run_ends_with_its_final_answer() -> None:
    """Reply, cell, output, reply, final answer: the whole path, and its figures."""
    stage = Stage([LOOK, FINISH], look, finish)
    result = await stage.run()

    assert str(result) == result.answer == "42"
    assert result.finish_reason is FinishReason.ANSWERED
    assert result.answer_source is AnswerSource.FINAL
    assert (result.turn_count, result.query_count, result.failure) == (2, 0, "")
    assert result.usage["root"].request_count == 2
    assert result.cost_usd is None
    assert stage.provider.opened[0].is_destroyed
    assert stage.provider.opened[0].contexts["context"].data == b"some text"


async def test_events_come_in_order_and_make_the_trajectory() -> None:
    """The sink hears everything; the trajectory holds everything but pieces of output."""
    stage = Stage([LOOK, FINISH], look, finish)
    result = await stage.run()

    assert stage.kinds() == [
        *("RunStarted", "SandboxReady", "TurnStarted", "ReplyReceived"),
        *("CellStarted", "CellPrinted", "CellEnded", "TurnStarted"),
        *("ReplyReceived", "CellStarted", "CellEnded", "RunEnded"),
    ]
    assert list(result.trajectory) == [e for e in stage.events if not isinstance(e, CellPrinted)]
    started = [event.cell_id for event in stage.events if isinstance(event, CellStarted)]
    ended = [event.result.cell_id for event in stage.events if isinstance(event, CellEnded)]
    assert started == ended == [1, 2]


async def test_the_root_model_sees_what_a_cell_printed() -> None:
    """The second request is the first one and two messages more."""
    stage = Stage([LOOK, FINISH], look, finish)
    await stage.run()
    first, second = stage.root.requests

    assert second[: len(first)] == first
    assert second[-2].content == LOOK
    assert second[-1].content.startswith("REPL output:\n9 characters\n")
    assert "Left: 29 turns, 500 queries, 29 minutes." in second[-1].content


async def test_a_final_cell_ends_the_turn() -> None:
    """Later cells of the same reply do not run."""
    stage = Stage([f"{FINISH}\n{LOOK}"], finish, look)
    result = await stage.run()

    assert result.answer == "42"
    assert len(stage.provider.opened[0].sources) == 1


async def test_cells_before_the_final_one_run() -> None:
    """The control: the cells of a reply run in order until one is final."""
    stage = Stage([f"{LOOK}\n{FINISH}"], look, finish)
    await stage.run()

    assert stage.provider.opened[0].sources == ["print(len(context))", "FINAL('42')"]


async def test_a_reply_without_a_cell_is_repaired() -> None:
    """The model is told that nothing ran and what to do; FINAL in prose ends nothing."""
    stage = Stage(['FINAL("42")', FINISH], finish)
    result = await stage.run()

    assert "holds no block of code" in stage.told(1)
    assert "in prose it does not count" in stage.told(1)
    assert result.turn_count == 2


async def test_a_reply_that_was_cut_off_is_said_to_be() -> None:
    """A model that ran into its length limit learns that, not that it forgot the code."""
    stage = Stage([ModelReply(text="```repl\nn = 12", was_cut=True), FINISH], finish)
    await stage.run()

    assert "cut off at its length limit" in stage.told(1)
    assert len(stage.provider.opened[0].sources) == 1


async def test_reasoning_stays_out_of_the_transcript() -> None:
    """What a model thinks is not paid for again with each turn."""
    stage = Stage([f"<think>hm</think>{LOOK}", FINISH], look, finish)
    await stage.run()

    assert not any("hm" in message.content for message in stage.root.requests[1])


async def test_an_empty_reply_is_not_an_empty_message() -> None:
    """Providers refuse messages without content, so the transcript holds none."""
    stage = Stage(["", FINISH], finish)
    await stage.run()

    assert all(message.content for message in stage.root.requests[1])


async def test_a_repeated_cell_with_the_same_result_is_noticed() -> None:
    """A model that goes in circles is told so, with the turn it repeats."""
    stage = Stage([LOOK, LOOK, FINISH], look, look, finish)
    await stage.run()

    assert "You ran exactly this" not in stage.told(1)
    assert "You ran exactly this in turn 1 already" in stage.told(2)


async def test_a_repeated_cell_with_another_result_is_not_remarked_on() -> None:
    """The control: a cell that moves through the context by itself is no circle."""

    async def move_on(run: CellRun) -> None:
        run.print("something else")

    stage = Stage([LOOK, LOOK, FINISH], look, move_on, finish)
    await stage.run()

    assert "You ran exactly this" not in stage.told(2)


async def test_a_final_answer_without_text_is_not_taken() -> None:
    """`answer["ready"]` over nothing goes on, and the model is told."""

    async def finish_empty(run: CellRun) -> None:
        run.final(" ")

    stage = Stage([FINISH, FINISH], finish_empty, finish)
    result = await stage.run()

    assert "its text is empty" in stage.told(1)
    assert result.answer == "42"


async def test_the_turn_limit_returns_the_draft() -> None:
    """Work that was paid for is returned; the result says how far to rely on it."""
    stage = Stage([LOOK], draft, look, limits=RunLimits(turns=2))
    result = await stage.run()

    assert (result.finish_reason, result.answer_source) == (
        FinishReason.TURN_LIMIT,
        AnswerSource.DRAFT,
    )
    assert (result.answer, result.turn_count) == ("maybe 41", 2)
    assert len(stage.root.requests) == 2
    assert "The next turn is the last" in stage.told(1)


async def test_without_a_draft_the_turn_limit_asks_once_more() -> None:
    """The last request asks for plain text, and runs nothing of what comes."""
    stage = Stage([LOOK, "<think>hm</think>It is 42."], look, limits=RunLimits(turns=1))
    result = await stage.run()

    assert result.answer == "It is 42."
    assert result.answer_source is AnswerSource.LAST_REQUEST
    assert "reached its limit of 1 turn" in stage.told(1)
    assert [message.role for message in stage.root.requests[1]][-2:] == ["assistant", "user"]
    assert len(stage.provider.opened[0].sources) == 1
    assert result.usage["root"].request_count == 2


async def test_a_last_request_that_fails_leaves_no_answer() -> None:
    """Without draft and without reply the result is empty, and still a result."""
    down = ModelUnavailableError("down", model="root")
    result = await Stage([LOOK, down], look, limits=RunLimits(turns=1)).run()

    assert (result.answer, result.answer_source) == ("", AnswerSource.NONE)
    assert (result.finish_reason, result.failure) == (FinishReason.TURN_LIMIT, "")


async def test_a_cell_is_no_answer_to_the_last_request() -> None:
    """A model that goes on writing cells has not answered; its code is not passed off as one."""
    result = await Stage([LOOK, FINISH], look, finish, limits=RunLimits(turns=1)).run()

    assert (result.answer, result.answer_source) == ("", AnswerSource.NONE)


async def test_a_draft_outlives_the_variables() -> None:
    """A session that lost everything still has the draft it showed before."""
    lost = CellResult(
        cell_id=CellId(0),
        outcome=Outcome.KILLED,
        state=VariableState.LOST,
        error=CellError(type_name="MemoryError", message="out of memory"),
        answer=Draft(),
    )
    stage = Stage([LOOK], draft, lost, limits=RunLimits(turns=2))
    result = await stage.run()

    assert result.answer == "maybe 41"


async def test_the_query_limit_ends_the_run_after_the_turn() -> None:
    """A query asked beyond the limit ends the run with the turn."""
    replies = ["```repl\na\n```", "```repl\nbb\n```", "It is 7."]
    stage = Stage(replies, ask_one, ask_one, limits=RunLimits(queries=1))
    result = await stage.run()

    assert result.finish_reason is FinishReason.QUERY_LIMIT
    assert (result.turn_count, result.query_count, result.answer) == (2, 1, "It is 7.")
    assert "reached its limit of 1 query" in stage.told(2)


async def test_using_the_last_query_does_not_end_the_run() -> None:
    """The control: a run that asks for no more than it may goes on."""
    stage = Stage([LOOK, FINISH], ask_one, finish, limits=RunLimits(queries=1))
    result = await stage.run()

    assert (result.finish_reason, result.query_count) == (FinishReason.ANSWERED, 1)


async def test_a_final_answer_counts_even_at_the_query_limit() -> None:
    """A cell that was refused a query and knew its answer has answered."""

    async def ask_and_finish(run: CellRun) -> None:
        await run.ask("a")
        await run.ask("b")
        run.final("42")

    result = await Stage([FINISH], ask_and_finish, limits=RunLimits(queries=1)).run()

    assert result.finish_reason is FinishReason.ANSWERED


async def test_the_time_limit_stops_a_running_cell() -> None:
    """A cell that hangs does not hold up the run; the draft is returned, the sandbox gone."""
    stage = Stage([LOOK], draft, hang, limits=RunLimits(time_s=0.3))
    async with asyncio.timeout(5):
        result = await stage.run()

    assert (result.finish_reason, result.answer) == (FinishReason.TIME_LIMIT, "maybe 41")
    assert stage.provider.opened[0].was_stopped
    assert stage.provider.opened[0].is_destroyed
    assert result.timings.total_s < 1.0


async def test_the_time_limit_stops_a_request_to_the_root_model() -> None:
    """A silent provider does not hold up the run, and its request is cancelled."""
    stage = Stage([LOOK], look, limits=RunLimits(time_s=0.3))
    stage.root.gate.clear()
    async with asyncio.timeout(5):
        result = await stage.run()

    assert (result.finish_reason, result.answer_source) == (
        FinishReason.TIME_LIMIT,
        AnswerSource.NONE,
    )
    assert stage.root.cancelled_count == 1
    assert len(stage.root.requests) == 1  # it has seen nothing, so it is not asked to guess


async def test_the_time_limit_stops_a_query() -> None:
    """A sub-model that is silent does not hold up the run, though a waiting cell has no clock."""
    silent = FakeModel(["late"], name="sub", is_held=True)
    stage = Stage([LOOK], ask_one, limits=RunLimits(time_s=0.3), sub=silent)
    async with asyncio.timeout(5):
        result = await stage.run()

    assert result.finish_reason is FinishReason.TIME_LIMIT
    assert (silent.open_count, silent.cancelled_count) == (0, 1)


async def test_the_time_limit_leaves_time_for_the_last_request() -> None:
    """Without a draft the model is asked once more, within the limit."""
    stage = Stage([LOOK, LOOK, "It is 42."], look, hang, limits=RunLimits(time_s=1.0))
    result = await stage.run()

    assert (result.finish_reason, result.answer) == (FinishReason.TIME_LIMIT, "It is 42.")
    assert result.timings.total_s < 1.0


async def test_a_cell_that_ran_too_long_is_reported_and_the_run_goes_on() -> None:
    """The model reads what the limit did and what became of its variables."""
    stage = Stage([LOOK, FINISH], hang, finish, cell_limits=CellLimits(wall_s=0.05))
    result = await stage.run()

    assert "the cell ran too long" in stage.told(1)
    assert "Variables are as before this cell." in stage.told(1)
    assert result.answer == "42"


@pytest.mark.parametrize(
    "error",
    [
        ModelRefusedError("the key was refused", model="root"),
        ModelUnavailableError("the provider is down", model="root"),
    ],
)
async def test_a_model_that_never_answers_raises(
    error: ModelRefusedError | ModelUnavailableError,
) -> None:
    """Nothing was paid for, so the caller is told at once; the sandbox is gone."""
    stage = Stage([error])
    with pytest.raises(type(error)):
        await stage.run()

    assert stage.provider.opened[0].is_destroyed
    assert [end.finish_reason for end in stage.ends()] == [FinishReason.RAISED]
    assert stage.ends()[0].failure == str(error)


async def test_a_model_that_falls_silent_later_is_a_result() -> None:
    """What was paid for is returned, with the reason."""
    stage = Stage([LOOK, ModelUnavailableError("overloaded", model="root")], draft)
    result = await stage.run()

    assert (result.finish_reason, result.answer) == (FinishReason.MODEL_FAILED, "maybe 41")
    assert result.answer_source is AnswerSource.DRAFT
    assert result.failure == "overloaded"


async def test_a_sandbox_that_dies_is_a_result() -> None:
    """The draft is kept on the host, so it outlives the sandbox."""
    result = await Stage([LOOK], draft, die).run()

    assert (result.finish_reason, result.answer) == (FinishReason.SANDBOX_LOST, "maybe 41")
    assert "137" in result.failure


async def test_a_sandbox_that_breaks_the_contract_is_a_result_that_says_so() -> None:
    """An attack ends the run; the caller reads which rule was broken."""

    async def attack(_run: CellRun) -> None:
        raise ProtocolViolationError("a result for a cell that is not running")

    result = await Stage([LOOK], attack).run()

    assert (result.finish_reason, result.answer_source) == (
        FinishReason.SANDBOX_LOST,
        AnswerSource.NONE,
    )
    assert "broke the contract" in result.failure


async def test_a_context_that_kills_the_sandbox_is_a_result() -> None:
    """A container that dies of its context is reported like any other that dies."""
    provider = FakeProvider(bind_error=SandboxLostError("killed for memory"))
    stage = Stage([LOOK], provider=provider)
    result = await stage.run()

    assert (result.finish_reason, result.failure) == (
        FinishReason.SANDBOX_LOST,
        "killed for memory",
    )
    assert stage.root.requests == []


async def test_no_sandbox_raises() -> None:
    """Without an engine there is no run, and no model is asked."""
    provider = FakeProvider(start_error=SandboxStartError("no engine"))
    stage = Stage([LOOK], provider=provider)
    with pytest.raises(SandboxStartError):
        await stage.run()

    assert stage.root.requests == []
    assert [end.finish_reason for end in stage.ends()] == [FinishReason.RAISED]


async def test_cancelling_destroys_the_sandbox_and_tells_what_was_spent() -> None:
    """Ctrl-C ends the run; the display still learns what it cost."""
    stage = Stage([LOOK], draft, ask_one, sub=FakeModel(["x"], name="sub", is_held=True))
    task = asyncio.ensure_future(stage.run())
    await stage.sub.until_open(1)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert stage.provider.opened[0].is_destroyed
    assert stage.sub.open_count == 0
    [end] = stage.ends()
    assert (end.finish_reason, end.answer, end.query_count) == (
        FinishReason.CANCELLED,
        "maybe 41",
        1,
    )
    assert end.usage["root"].request_count == 2
    assert stage.events[-1] is end


async def test_runs_do_not_share_answers() -> None:
    """Each run has its own ledger and its own memory of answers."""
    stage = Stage([LOOK, FINISH] * 2, ask_one, finish)
    first = await stage.run()
    second = await stage.run()

    assert (first.query_count, second.query_count) == (1, 1)
    assert first.run_id != second.run_id


async def test_a_small_model_is_shown_a_probe_before_the_question() -> None:
    """Turn 0 is the harness's own; the question follows its output."""
    stage = Stage([FINISH], look, finish, profile="small")
    await stage.run(question="How many?")
    [messages] = stage.root.requests

    assert stage.provider.opened[0].sources[0] == PROFILES["small"].probe_source
    assert messages[-2].content == f"```repl\n{PROFILES['small'].probe_source}\n```"
    assert messages[-1].content == "REPL output:\n9 characters\n\nQuestion: How many?"
    turns = [event.turn for event in stage.events if isinstance(event, TurnStarted)]
    assert turns == [0, 1]
    assert stage.root.max_completion_tokens == [512]


async def test_bare_code_runs_for_a_small_model_alone() -> None:
    """A reply that is code without a fence is a cell in the small profile."""
    small = Stage(["FINAL('42')"], look, finish, profile="small")
    large = Stage(["FINAL('42')", FINISH], finish)

    assert (await small.run()).turn_count == 1
    assert (await large.run()).turn_count == 2


async def test_the_profile_bounds_prompts_below_the_runs_limit() -> None:
    """A small sub-model's window is told and enforced."""

    async def ask_much(run: CellRun) -> None:
        [answer] = await run.ask("x" * 15_001)
        run.print(str(answer))

    stage = Stage([LOOK, FINISH], look, ask_much, finish, profile="small")
    await stage.run()

    assert "at most 15,000" in stage.told(1)
    assert stage.sub.requests == []


@pytest.mark.parametrize(
    "question",
    [
        "{0} {question} {} %s %(x)s",
        "a\x00b",
        "\ud800 half a pair",
        "```repl\nx\n```",
        "x" * 100_000,
    ],
)
async def test_any_question_of_bearable_length_is_asked(question: str) -> None:
    """Braces are text, and what cannot be sent is replaced, not refused."""
    stage = Stage([FINISH], finish)
    result = await stage.run(question=question)
    sent = question.replace("\x00", "\N{REPLACEMENT CHARACTER}")

    assert result.answer == "42"
    assert sent.replace("\ud800", "\N{REPLACEMENT CHARACTER}") in stage.told(0)
    assert "\x00" not in stage.told(0)


async def test_a_question_that_is_a_context_is_refused() -> None:
    """Ten megabytes are refused before anything is started, with what to do instead."""
    stage = Stage([FINISH], finish)
    with pytest.raises(InputError, match="pass the long text as the context"):
        await stage.run(question="x" * 10_000_000)

    assert (stage.events, stage.provider.opened) == ([], [])


async def test_without_a_question_both_ends_of_the_context_are_shown() -> None:
    """A prompt that holds its own question is introduced by its beginning and its end."""
    stage = Stage([FINISH], finish)
    await stage.run(question="", context="HEAD" + "é" * 100_000 + "TAIL")

    assert "the context says itself what to do" in stage.told(0)
    assert "HEAD" in stage.told(0)
    assert "TAIL" in stage.told(0)
    assert len(stage.told(0)) < 6_000


async def test_output_of_several_cells_shares_one_bound() -> None:
    """A reply with many cells does not multiply what its output costs."""

    async def flood(run: CellRun) -> None:
        run.print("x" * 50_000)

    stage = Stage(["\n".join([LOOK] * 3), FINISH], flood, flood, flood, finish)
    await stage.run()

    assert "block 3 of 3" in stage.told(1)
    assert "50,001 bytes were printed in all" in stage.told(1)
    assert len(stage.told(1)) < 22_000


async def test_what_started_is_told() -> None:
    """The first events say what runs over what, by size and digest."""
    stage = Stage([LOOK, FINISH], ask_one, finish)
    result = await stage.run()
    started, ready = stage.events[:2]

    assert isinstance(started, RunStarted)
    assert (started.context_chars, started.root_model, started.is_scripted) == (9, "root", True)
    assert isinstance(ready, SandboxReady)
    assert ready.controls is not None
    assert ready.controls == result.controls
    [query] = [event for event in stage.events if isinstance(event, QueryStarted)]
    assert query.cell_id == 1
    [reply, _] = [event for event in stage.events if isinstance(event, ReplyReceived)]
    assert (reply.turn, reply.cell_count) == (1, 1)
