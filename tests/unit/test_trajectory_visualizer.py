"""A log for the viewer of the reference implementation has all that the viewer touches.

The viewer reads JSON lines: one `metadata`, then `iteration` after `iteration`. It fails without a
word, or shows an empty page, where a field is missing or of another type, so the list below is
exact: which fields there are, and of which type each is.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from support.trajectories import (
    ANSWER,
    ROOT,
    SUB,
    Chronicle,
    cancelled_run,
    direct_run,
    rich_run,
)

from orchestrator.domain import AnswerSource, FinishReason
from orchestrator.events import RunEnded
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.visualizer_log import visualizer_rows

Kinds = dict[str, tuple[type, ...]]

NUMBER: tuple[type, ...] = (int, float)
TEXT: tuple[type, ...] = (str,)
NOTHING: tuple[type, ...] = (type(None),)
METADATA: Kinds = {
    "type": TEXT,
    "timestamp": TEXT,
    "root_model": TEXT + NOTHING,
    "max_depth": NUMBER + NOTHING,
    "max_iterations": NUMBER + NOTHING,
    "backend": TEXT + NOTHING,
    "backend_kwargs": (dict, *NOTHING),
    "environment_type": TEXT + NOTHING,
    "environment_kwargs": (dict, *NOTHING),
    "other_backends": (list, *NOTHING),
}
ITERATION: Kinds = {
    "type": TEXT,
    "iteration": NUMBER,
    "timestamp": TEXT,
    "prompt": (list,),
    "response": TEXT,
    "code_blocks": (list,),
    "final_answer": TEXT + NOTHING,
    "iteration_time": NUMBER + NOTHING,
}
MESSAGE: Kinds = {"role": TEXT, "content": TEXT}
BLOCK: Kinds = {"code": TEXT, "result": (dict,)}
RESULT: Kinds = {
    "stdout": TEXT,
    "stderr": TEXT,
    "locals": (dict,),
    "execution_time": NUMBER,
    "rlm_calls": (list,),
    "final_answer": TEXT + NOTHING,
}
CALL: Kinds = {
    "root_model": TEXT,
    "prompt": TEXT,
    "response": TEXT,
    "prompt_tokens": NUMBER,
    "completion_tokens": NUMBER,
    "usage_summary": (dict,),
    "execution_time": NUMBER,
}
CALL_AT_TIMES: Kinds = {"metadata": (dict,), "error": TEXT}
USAGE: Kinds = {"total_calls": NUMBER, "total_input_tokens": NUMBER, "total_output_tokens": NUMBER}


def log_of(chronicle: Chronicle) -> list[Any]:
    """Returns the rows as a program that knows nothing but JSON reads them."""
    [run] = runs_of(chronicle.records)
    return [json.loads(json.dumps(row, allow_nan=False)) for row in visualizer_rows(run)]


def check(value: dict[str, Any], kinds: Kinds) -> None:
    assert value.keys() == kinds.keys()
    for name, kind in kinds.items():
        assert isinstance(value[name], kind), name
        assert not isinstance(value[name], bool), name


def check_iterations(iterations: list[Any]) -> None:
    assert [iteration["iteration"] for iteration in iterations] == list(
        range(1, len(iterations) + 1)
    )
    for iteration in iterations:
        check(iteration, ITERATION)
        assert iteration["type"] == "iteration"
        assert datetime.fromisoformat(iteration["timestamp"]).tzinfo is not None
        for message in iteration["prompt"]:
            check(message, MESSAGE)
        for block in iteration["code_blocks"]:
            check(block, BLOCK)
            check(block["result"], RESULT)
            for call in block["result"]["rlm_calls"]:
                check_call(call)


def check_call(call: dict[str, Any]) -> None:
    at_times = {name: kind for name, kind in CALL_AT_TIMES.items() if name in call}
    check(call, CALL | at_times)
    for usage in call["usage_summary"]["model_usage_summaries"].values():
        assert usage.keys() - {"total_cost"} == USAGE.keys()
    if "metadata" in call:
        check(call["metadata"]["run_metadata"], METADATA)
        check_iterations(call["metadata"]["iterations"])


@pytest.mark.parametrize(
    "chronicle",
    [rich_run(), rich_run(compacts=False), cancelled_run(), direct_run()],
    ids=["rich", "not compacted", "cancelled", "direct"],
)
def test_log_has_every_field_of_its_type(chronicle: Chronicle) -> None:
    """What the viewer reads is there, in every row, however the run went."""
    metadata, *iterations = log_of(chronicle)

    check(metadata, METADATA)
    assert metadata["type"] == "metadata"
    assert iterations
    check_iterations(iterations)


def test_log_of_a_run_that_was_cut_off_has_every_field_too() -> None:
    """Wherever the trajectory ends."""
    records = rich_run().records
    for count in range(1, len(records)):
        chronicle = Chronicle()
        chronicle.records = records[:count]
        metadata, *iterations = log_of(chronicle)

        check(metadata, METADATA)
        check_iterations(iterations)


def test_log_shows_models_cells_and_calls() -> None:
    """A reader of the viewer sees who was asked, what ran and what came of it."""
    metadata, *iterations = log_of(rich_run())
    second = iterations[1]["code_blocks"]
    calls = second[0]["result"]["rlm_calls"]

    assert (metadata["root_model"], metadata["other_backends"]) == (ROOT, [SUB])
    assert iterations[0]["code_blocks"][0]["result"]["stdout"].startswith("312044 lines")
    assert iterations[0]["code_blocks"][0]["result"]["locals"]["hits"] == "<list, 3>"
    assert "1 of 3 prompts got no answer" in second[0]["result"]["stderr"]
    assert [call.get("error", "") != "" for call in calls] == [False, True, False]
    assert (calls[0]["prompt_tokens"], calls[2]["prompt_tokens"]) == (1_200, 0)
    assert len(iterations[1]["prompt"]) == 4


def test_child_run_is_nested_in_its_call() -> None:
    """As the reference implementation nests the log of a call that became a run; tools are none."""
    _, *iterations = log_of(rich_run())

    [call] = iterations[2]["code_blocks"][0]["result"]["rlm_calls"]

    assert call["metadata"]["run_metadata"]["root_model"] == SUB
    assert len(call["metadata"]["iterations"]) == 2
    assert call["usage_summary"]["model_usage_summaries"][SUB]["total_calls"] == 3


def test_answer_stands_at_the_last_iteration_alone() -> None:
    """The viewer calls a run completed where it finds one."""
    _, *iterations = log_of(rich_run())

    assert [iteration["final_answer"] for iteration in iterations] == [None] * 4 + [ANSWER]


def test_draft_is_no_final_answer() -> None:
    """A run that its caller ended is not shown as completed."""
    _, *iterations = log_of(cancelled_run())

    assert {iteration["final_answer"] for iteration in iterations} == {None}


def test_best_guess_at_a_limit_is_the_answer() -> None:
    """The reference implementation logs the answer to its last request as final as well."""
    chronicle = cancelled_run()
    ended = chronicle.records.pop()
    assert isinstance(ended.event, RunEnded)
    changed = replace(
        ended.event,
        finish_reason=FinishReason.TURN_LIMIT,
        answer="a guess",
        answer_source=AnswerSource.LAST_REQUEST,
    )
    chronicle.records.append(replace(ended, event=changed))

    assert log_of(chronicle)[-1]["final_answer"] == "a guess"


def test_context_is_described_and_not_in_the_log() -> None:
    """Its kind, size and digest stand where the viewer looks for its value."""
    _, *iterations = log_of(rich_run())
    [shown] = {
        block["result"]["locals"]["context"]
        for iteration in iterations
        for block in iteration["code_blocks"]
    }

    assert shown.startswith("<context not recorded: text, 12,600,000 characters, sha256 abab")
