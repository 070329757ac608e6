"""Earlier turns are shortened when a window fills up: code stays, talk and output go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun, FakeProvider
from support.stage import FINISH, Stage

from orchestrator.chat import Message
from orchestrator.context import encode_context
from orchestrator.engine.compaction import Compaction, compacted
from orchestrator.engine.parsing import parse_reply
from orchestrator.engine.transcript import Transcript, Turn
from orchestrator.events import TranscriptCompacted, TurnStarted

OPENING = (Message("system", "Rules."), Message("user", "Question: how many?" + " " * 5_000 + "?"))
NOTE = "(Earlier turns are shortened to save room"


def chat_of(*turns: tuple[str, str]) -> Transcript:
    """Makes a transcript from replies and what they were told."""
    return Transcript(
        opening=OPENING, turns=tuple(Turn(reply=reply, feedback=told) for reply, told in turns)
    )


def long_turns(count: int) -> list[tuple[str, str]]:
    """Makes turns whose talk and output are both long."""
    return [
        (
            f"I think, at length{' and on' * 100}.\n```python\nprint({number})\n```\nSo be it.",
            f"REPL output:\n<{number}" + "x" * 2_000 + f"{number}>\n\nLeft: 9 turns.",
        )
        for number in range(count)
    ]


def shortened(transcript: Transcript) -> Compaction:
    """Compacts what can be."""
    compaction = compacted(transcript, accepts_bare_code=False)
    assert compaction is not None
    return compaction


def cells_of(turn: Turn) -> tuple[str, ...]:
    """Returns what of a turn ran."""
    return parse_reply(turn.reply, accepts_bare_code=False, was_cut=False).cells


def test_code_stays_word_for_word_and_talk_goes() -> None:
    """What a cell was says what its variables are; why it was written is said by its successor."""
    [first, *_] = shortened(chat_of(*long_turns(5))).transcript.turns

    assert first.reply == "```repl\nprint(0)\n```"


def test_both_ends_of_an_output_stay() -> None:
    """Its beginning says most, its end has the total and what was left; the gap is counted."""
    before = chat_of(*long_turns(5))
    [_, second, *_] = shortened(before).transcript.turns
    whole = before.turns[1].feedback

    assert second.feedback == (
        f"{whole[:400]}\n... [{len(whole) - 600:,} characters left out] ...\n{whole[-200:]}"
    )
    assert second.feedback.endswith("1>\n\nLeft: 9 turns.")


def test_opening_and_the_last_three_turns_stay_as_they_are() -> None:
    """The question is what it is all about; the last turns are what the model is in the middle of.

    Nothing moves either: the same turns are there in the same order.
    """
    before = chat_of(*long_turns(8))
    after = shortened(before).transcript

    assert after.opening == OPENING
    assert after.turns[-3:] == before.turns[-3:]
    assert len(after.turns) == 8
    assert [cells_of(turn) for turn in after.turns] == [cells_of(turn) for turn in before.turns]


def test_model_is_told_once_that_turns_were_shortened() -> None:
    """Where they begin, and that its variables still hold everything."""
    texts = [turn.feedback for turn in shortened(chat_of(*long_turns(8))).transcript.turns]

    assert [NOTE in text for text in texts] == [True] + [False] * 7
    assert "Variables still hold everything.)\nREPL output:\n<0" in texts[0]


def test_what_is_short_stays() -> None:
    """An output of a few lines costs less than the words that would stand for it."""
    quick = ("```repl\nn = 1\n```", "y" * 660)
    before = chat_of(*long_turns(2), quick, *long_turns(3))
    compaction = shortened(before)

    assert compaction.transcript.turns[2] == before.turns[2]
    assert compaction.turn_count == 2


def test_turn_without_code_keeps_the_beginning_of_what_was_said() -> None:
    """A reply that was repaired is known by its first words."""
    [first, *_] = shortened(chat_of(("word " * 1_000, "no block"), *long_turns(4))).transcript.turns

    assert first.reply == ("word " * 1_000)[:400]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_turns_are_never_shortened(count: int) -> None:
    """Whatever their length: there is nothing earlier to be shortened."""
    assert compacted(chat_of(*long_turns(count)), accepts_bare_code=False) is None


def test_nothing_to_gain_is_said_to_be_nothing() -> None:
    """Short turns would only grow by the note."""
    turns = [("```repl\nn = 1\n```", "nothing was printed")] * 10

    assert compacted(chat_of(*turns), accepts_bare_code=False) is None


def test_bare_code_stays_too() -> None:
    """A small model's cell without a fence is a cell, where the profile says so."""
    source = "\n".join(f"print({number})" for number in range(200))
    before = chat_of((source, "told"), *long_turns(4))
    compaction = compacted(before, accepts_bare_code=True)

    assert compaction is not None
    assert cells_of(compaction.transcript.turns[0]) == (source,)


_LINES = st.sampled_from(
    [
        "x = 1",
        "prompt = '''",
        "'''",
        '"""',
        "```",
        "````",
        "~~~",
        "```repl",
        "    ```python",
        "````repl",
        "~~~py",
        "```sql",
        "print(`)",
        "# a comment with ``` in it",
        "foo(",
        ")",
        "word " * 30,
        "",
    ]
)
_TEXTS = st.lists(_LINES, max_size=14).map("\n".join) | st.text(max_size=200)
# As a transcript has it: replies are kept as they were parsed.
_REPLIES = _TEXTS.map(lambda text: parse_reply(text, accepts_bare_code=False, was_cut=False).spoken)
_FEEDBACKS = st.tuples(st.text(max_size=40), st.integers(0, 2_000)).map(
    lambda parts: f"REPL output:\n{parts[0]}" + "o" * parts[1]
)
_TURNS = st.lists(st.tuples(_REPLIES, _FEEDBACKS), max_size=9)


_TELLING = ("```repl\nx = 1\n```", "REPL output:\n" + "o" * 2_000)


@settings(deadline=None, max_examples=50)
# A cell with a fence of its own.
@example(turns=[_TELLING, ("````repl\n```\n````", "REPL output:\n"), *[_TELLING] * 3], more=[])
# A reply that ran nothing, and whose beginning would.
@example(
    turns=[_TELLING, ("```repl\n" + "x = 1\n" * 99 + "foo(", "Nothing ran."), *[_TELLING] * 3],
    more=[_TELLING],
)
@given(turns=_TURNS, more=_TURNS)
def test_any_conversation_keeps_what_it_has_to(
    turns: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    """Whatever replies and outputs are, and however often they were shortened before.

    Code and question stay, the last turns stay, it gets shorter, and there is an end to it.
    """
    transcript = original = chat_of(*turns)
    nothing: list[tuple[str, str]] = []
    for later in (more, nothing):
        compaction = compacted(transcript, accepts_bare_code=False)
        if compaction is not None:
            after = compaction.transcript
            assert (compaction.before_chars, compaction.after_chars) == (
                transcript.char_count,
                after.char_count,
            )
            assert compaction.after_chars < compaction.before_chars
            assert after.turns[-3:] == transcript.turns[-3:]
            assert compacted(after, accepts_bare_code=False) is None
            transcript = after
        assert transcript.opening == OPENING
        assert [cells_of(turn) for turn in transcript.turns] == [
            cells_of(turn) for turn in original.turns
        ]
        assert sum(turn.feedback.startswith(NOTE) for turn in transcript.turns) <= 1
        assert all(message.content for message in transcript.messages())
        for reply, told in later:
            turn = Turn(reply=reply, feedback=told)
            transcript, original = transcript.plus(turn), original.plus(turn)


async def print_much(run: CellRun) -> None:
    """Prints more than stays of it."""
    run.print(f"<{run.source}" + "x" * 2_000 + f"{run.source}>")


async def finish(run: CellRun) -> None:
    """Makes the answer final."""
    run.final("42")


def stage_of(*, turns: int = 8, **options: Any) -> Stage:  # noqa: ANN401 - a stage's own
    """Sets a stage for a run that prints much in every turn."""
    replies = [f"Now this.\n```repl\npart({number})\n```" for number in range(turns)]
    return Stage([*replies, FINISH], *[print_much] * turns, finish, **options)


async def test_no_run_is_shortened_that_did_not_ask_for_it() -> None:
    """Left alone, a conversation only grows: that is what providers' caches are paid for."""
    stage = stage_of()
    await stage.run()
    requests = stage.root.requests

    assert stage.of(TranscriptCompacted) == []
    for earlier, later in itertools.pairwise(requests):
        assert later[: len(earlier)] == earlier


async def test_run_is_shortened_above_the_length_it_was_given() -> None:
    """The event says before which turn, and the request of that turn is the shorter chat."""
    limit = 20_000
    stage = stage_of(compacts_above_chars=limit)
    result = await stage.run()
    event = stage.of(TranscriptCompacted)[0]
    sent = stage.root.requests[event.turn - 1]

    assert result.answer == "42"
    assert event.before_chars > limit >= sum_of(stage.root.requests[event.turn - 2])
    assert event.after_chars == sum_of(sent) < event.before_chars
    assert event.turn_count == event.turn - 1 - 3
    assert NOTE in "".join(message.content for message in sent)
    assert sent[:2] == stage.root.requests[0]


async def test_trajectory_has_what_was_sent() -> None:
    """After a shortening the whole of the new chat is in the event of the turn, else what is new.

    So that a trajectory can be exported as the chat the model really saw.
    """
    stage = stage_of(turns=14, compacts_above_chars=16_000)
    result = await stage.run()
    chat: tuple[Message, ...] = ()
    requests = iter(stage.root.requests)
    for event in result.trajectory:
        if isinstance(event, TranscriptCompacted):
            chat = ()
        if isinstance(event, TurnStarted):
            chat += event.messages
            assert chat == next(requests)

    assert len(stage.of(TranscriptCompacted)) >= 2


async def test_quote_of_the_context_is_not_in_the_shortened_chat_either() -> None:
    """A context that is its own question is in no event, whatever is sent again."""
    stage = stage_of(compacts_above_chars=20_000)
    result = await stage.run(question="", context="an open secret")
    [*_, event] = stage.of(TranscriptCompacted)
    [turn] = [each for each in stage.of(TurnStarted) if each.turn == event.turn]

    assert "an open secret" in stage.root.requests[event.turn - 1][1].content
    assert "quoted from the context of sha256:" in turn.messages[1].content
    assert "an open secret" not in repr(result.trajectory)


async def test_child_runs_are_never_shortened() -> None:
    """The length is that of one model's window, and a child's root model is another."""

    async def act(run: CellRun) -> None:
        if run.source == "parent":
            await run.ask_child("how much?", encode_context("a part"))
        elif run.source.startswith("FINAL"):
            run.final("42")
        else:
            await print_much(run)

    replies = [f"```repl\npart({number})\n```" for number in range(8)]
    stage = Stage(
        ["```repl\nparent\n```", FINISH],
        provider=FakeProvider(*[act] * 9),
        child=FakeModel([*replies, FINISH], name="child"),
        compacts_above_chars=10_000,
    )
    await stage.run()

    assert sum_of(stage.child.requests[-1]) > 20_000
    assert stage.of(TranscriptCompacted) == []


def sum_of(messages: tuple[Message, ...]) -> int:
    """Returns the length of a chat."""
    return sum(len(message.content) for message in messages)
