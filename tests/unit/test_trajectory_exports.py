"""Rows to train on hold what a model saw and said, and nothing that it did not."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from support.trajectories import (
    ANSWER,
    LOOK,
    ROOT,
    SUB,
    SYSTEM,
    Chronicle,
    RunTeller,
    cancelled_run,
    direct_run,
    fenced,
    rich_run,
    said,
    told,
)

from orchestrator.chat import Message
from orchestrator.errors import InputError
from orchestrator.trajectory.chats import turn_chats
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.rl_episodes import rl_episode
from orchestrator.trajectory.sft_rows import sft_rows
from orchestrator.trajectory.tree import RecordedRun


def run_of(chronicle: Chronicle) -> RecordedRun:
    [run] = runs_of(chronicle.records)
    return run


def rows_of(chronicle: Chronicle) -> list[Any]:
    return json.loads(json.dumps(sft_rows(run_of(chronicle))))  # type: ignore[no-any-return]  # JSON


def episode_of(chronicle: Chronicle) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(rl_episode(run_of(chronicle))))


def talk(*turns: tuple[tuple[Message, ...], str]) -> Chronicle:
    chronicle = Chronicle()
    run = RunTeller(chronicle, "talk")
    run.begin()
    for messages, reply in turns:
        run.turn(messages, reply)
    run.end("a")
    return chronicle


def test_chat_grows_by_what_was_new() -> None:
    """Each turn's chat begins with the one before and its reply."""
    chats = turn_chats(run_of(rich_run(compacts=False)))

    assert [len(chat.sent) for chat in chats] == [2, 4, 6, 8, 10]
    for earlier, later in pairwise(chats):
        assert later.sent[: len(earlier.sent)] == earlier.sent
        assert later.sent[len(earlier.sent)].role == "assistant"
    assert {chat.segment for chat in chats} == {0}


def test_reply_that_no_event_repeats_is_put_in() -> None:
    """Where what is new leaves the model's own reply out, the chat has it all the same."""
    opening, more = (SYSTEM, told("q")), told("output")

    with_reply = turn_chats(run_of(talk((opening, "one"), ((said("one"), more), "two"))))
    without = turn_chats(run_of(talk((opening, "one"), ((more,), "two"))))

    assert with_reply[1].sent == without[1].sent == (*opening, said("one"), more)
    assert with_reply[1].new_count == without[1].new_count == 1


def test_compaction_begins_the_chat_anew() -> None:
    """After it the whole chat was sent again, shortened."""
    chats = turn_chats(run_of(rich_run()))

    assert [chat.segment for chat in chats] == [0, 0, 0, 0, 1]
    assert chats[4].sent == chats[4].turn.messages
    assert chats[4].new_count == len(chats[4].sent)


def test_words_of_the_harness_are_not_the_models() -> None:
    """What stands for silence, and what an example says in the model's name, are not learnt."""
    example = (SYSTEM, told("an example"), said("```repl\nprobe()\n```"), told("q"))
    silence = said("(no reply)")

    chats = turn_chats(
        run_of(talk((example, "<think>hm</think>"), ((silence, told("say something")), "x")))
    )

    assert [chat.reply_indexes for chat in chats] == [(), ()]


def test_row_is_the_chat_of_the_last_request_and_its_reply() -> None:
    """Exactly what was sent, and exactly what came."""
    chronicle = rich_run(compacts=False)
    [row] = rows_of(chronicle)
    last = turn_chats(run_of(chronicle))[-1]

    assert last.turn.reply is not None
    assert row["messages"] == [
        *({"role": message.role, "content": message.content} for message in last.sent),
        {"role": "assistant", "content": last.turn.reply.reply.text},
    ]
    assert row["messages"][0] == {"role": "system", "content": SYSTEM.content}


def test_row_says_which_messages_are_the_models() -> None:
    """Every reply, and no message that only looks like one."""
    [row] = rows_of(rich_run(compacts=False))
    indexes = row["metadata"]["reply_indexes"]

    assert indexes == [2, 4, 6, 8, 10]
    assert all(row["messages"][index]["role"] == "assistant" for index in indexes)
    assert row["messages"][2]["content"].endswith(f"```repl\n{LOOK}\n```")


def test_compacted_run_is_a_row_for_each_stretch() -> None:
    """A chat that was never sent is not made up; shortened replies are not learnt again."""
    first, second = rows_of(rich_run())

    assert [row["metadata"]["segment"] for row in (first, second)] == [0, 1]
    assert [row["metadata"]["segment_count"] for row in (first, second)] == [2, 2]
    assert first["metadata"]["reply_indexes"] == [2, 4, 6, 8]
    assert second["metadata"]["reply_indexes"] == [7]
    assert len(second["messages"]) == 8


def test_row_says_where_it_comes_from() -> None:
    """Model, profile, prompts and outcome decide whether a row is fit to learn from."""
    [row] = rows_of(rich_run("r", compacts=False))
    labels = row["metadata"]

    assert (labels["run_id"], labels["root_model"], labels["profile"]) == ("r", ROOT, "gpt-5")
    assert (labels["finish_reason"], labels["answer_source"]) == ("answered", "final")
    assert (labels["answer"], labels["prompt_version"]) == (ANSWER, 2)
    assert labels["cost_usd"] == pytest.approx(0.1015)
    assert labels["has_elided_context"] is False
    assert labels["started_at"] == "2026-11-03T14:05:12+00:00"


def test_run_whose_context_was_its_question_says_so() -> None:
    """Its first message quotes the context, and no event holds that."""
    chronicle = Chronicle()
    run = RunTeller(chronicle, "x")
    run.begin(question=" ")
    run.turn((SYSTEM, told("There is no question … [quoted …]")), "a")

    [row] = rows_of(chronicle)

    assert row["metadata"]["has_elided_context"] is True


def test_run_that_was_cut_off_is_a_row_up_to_its_last_reply() -> None:
    """A request that was not answered is not in it; that there is no outcome is said."""
    chronicle = rich_run(compacts=False)
    replies = [
        index
        for index, record in enumerate(chronicle.records)
        if type(record.event).__name__ == "ReplyReceived"
    ]
    chronicle.records = chronicle.records[: replies[-1]]

    [row] = rows_of(chronicle)

    assert len(row["messages"]) == 9
    assert row["metadata"]["finish_reason"] is None
    assert row["metadata"]["answer"] is None


@pytest.mark.parametrize("chronicle", [direct_run(), talk()], ids=["direct", "ended before"])
def test_run_without_a_reply_is_no_row(chronicle: Chronicle) -> None:
    """Nothing that a root model said is in it."""
    assert rows_of(chronicle) == []
    assert episode_of(chronicle) is None


def test_episode_has_a_step_for_each_reply() -> None:
    """What was new to see, what was said, what it cost; the reward is the user's to give."""
    episode = episode_of(rich_run(compacts=False))

    assert episode["reward"] is None
    assert [step["turn"] for step in episode["steps"]] == [1, 2, 3, 4, 5]
    first, second = episode["steps"][:2]
    assert [message["role"] for message in first["observation"]] == ["system", "user"]
    assert [message["role"] for message in second["observation"]] == ["user"]
    assert first["action"].startswith("Let me look")
    assert (first["prompt_tokens"], first["completion_tokens"]) == (8_412, 388)
    assert (first["action_usd"], first["step_usd"]) == (0.0141, 0.0141)
    assert second["step_usd"] == pytest.approx(0.0156)


def test_step_says_what_its_cells_came_to() -> None:
    """Outcomes, errors and what cells asked for, by the numbers."""
    episode = episode_of(rich_run())
    first, second = episode["steps"][1]["cells"]

    assert (first["outcome"], first["error"]) == ("raised", "QueryBatchError")
    assert first["queries"] == {
        "sent": 2,
        "repeated": 1,
        "failed": 1,
        "refused": 600,
        "child_runs": 0,
        "tool_calls": 0,
        "prompt_tokens": 1_200,
        "completion_tokens": 60,
        "usd": pytest.approx(0.0004),
    }
    assert (second["outcome"], second["state"]) == ("killed", "rolled_back")
    assert episode["steps"][2]["cells"][0]["queries"]["child_runs"] == 1
    assert episode["steps"][3]["notices"] == ["repeated_queries"]
    assert episode["steps"][4]["cells"][0]["is_answer_ready"] is True


def test_step_after_a_compaction_observes_everything_anew() -> None:
    """The earlier steps are no longer what the model saw, and the step says so."""
    *_, before, after = episode_of(rich_run())["steps"]

    assert (before["replaces_earlier"], after["replaces_earlier"]) == (False, True)
    assert len(after["observation"]) == 7


def test_cell_that_never_ended_has_no_outcome() -> None:
    """A run that its caller ended left a cell behind."""
    episode = episode_of(cancelled_run())

    [cell] = episode["steps"][0]["cells"]
    assert cell["outcome"] is None
    assert episode["metadata"]["finish_reason"] == "cancelled"


def test_child_run_is_an_episode_of_its_own() -> None:
    """It has its own model and its own outcome, and says whose child it is."""
    [child] = run_of(rich_run("r")).child_runs

    episode: Any = rl_episode(child)
    row: Any = sft_rows(child)[0]

    assert episode["metadata"]["root_model"] == SUB
    assert episode["metadata"]["parent_run_id"] == "r"
    assert row["metadata"]["depth"] == 1
    assert row["messages"][-1]["content"] == fenced(
        'FINAL("it raises LineTooLong or HTTPException")'
    )


def test_digests_are_nothing_to_learn_from() -> None:
    """A trajectory without texts is refused, in words that say what to do."""
    chronicle = rich_run("r")
    [run] = runs_of(_without_texts(chronicle))

    for export in (sft_rows, rl_episode):
        with pytest.raises(InputError, match="run r was recorded without texts"):
            export(run)


def _without_texts(chronicle: Chronicle) -> list[Any]:
    return [replace(record, records_text=False) for record in chronicle.records]
