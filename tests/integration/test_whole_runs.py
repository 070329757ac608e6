"""Child runs, tools, sessions and streams on the whole product: SDK, broker, container, cells.

Only the provider is played, by a server that the real SDK talks to.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from support.model_server import SUB_MODEL, Answer, ModelServer
from support.real_host import RealHost, cell

from orchestrator import RLM, AnswerSource, FinishReason, RunLimits, Tool, ToolError
from orchestrator.events import (
    CellEnded,
    CellStarted,
    QueryEnded,
    QueryStarted,
    ReplyPiece,
    ReplyReceived,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
)
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

SHARE_OUT = """
halves = [context[: len(context) // 2], context[len(context) // 2 :]]
counts = rlm_query_batched(["How many stars?", "How many stars?"], halves)
FINAL(sum(map(int, counts)))
"""


def child(prompt: str) -> str:
    """Plays the sub-model: as a root model of child runs, and as who answers their queries."""
    return cell("FINAL(context.count('*'))") if "How many stars?" in prompt else "a sub-answer"


def test_child_runs_have_sandboxes_of_their_own(host: RealHost, tmp_path: Path) -> None:
    """Two child runs at once answer over a half each, and the trajectory is one tree."""
    trajectory = tmp_path / "run.jsonl"
    events: list[RunEvent] = []
    with ModelServer(root=[cell(SHARE_OUT)], sub=child) as server:
        rlm = host.rlm(server, on_event=events.append)
        context = "a*" * 50_000 + "b*" * 50_000
        result = rlm.completion(context, "How many?", trajectory=trajectory)
        child_requests = server.sub_requests

    [run] = runs_of(read_records(trajectory))
    children = list(run.walk())[1:]
    sandboxes = {event.sandbox_id for event in events if isinstance(event, SandboxReady)}
    assert (result.answer, result.finish_reason) == ("100000", FinishReason.ANSWERED)
    assert (result.child_run_count, result.query_count) == (2, 0)
    assert len(sandboxes) == 3
    assert [each.started.depth for each in children] == [1, 1]
    assert {each.started.parent_run_id for each in children} == {run.run_id}
    assert [each.started.context_chars for each in children] == [100_000, 100_000]
    assert result.usage[SUB_MODEL].request_count == len(child_requests) == 2
    assert host.leftovers() == []


def test_child_run_may_not_have_children_of_its_own_by_default(host: RealHost) -> None:
    """At the last level a child run asks the sub-model, and its cell is told so."""
    below = cell("FINAL(rlm_query('And below?', 'x' * 50))")

    def sub(prompt: str) -> str:
        return below if "Deeper?" in prompt else f"asked: {prompt}"

    ended: list[CellEnded] = []
    with ModelServer(root=[cell("FINAL(rlm_query('Deeper?', 'y' * 50))")], sub=sub) as server:
        rlm = host.rlm(
            server,
            on_event=lambda event: ended.append(event) if isinstance(event, CellEnded) else None,
        )
        result = rlm.completion("z" * 50, "q")

    assert result.answer.startswith("asked: ")
    assert "And below?" in result.answer
    assert result.child_run_count == 1
    assert "no child run can be started from here (depth limit)" in str(ended[0].result.stderr)


def test_depth_is_a_setting(host: RealHost) -> None:
    """Each level below has a sandbox, down to the one that was allowed."""

    def sub(prompt: str) -> str:
        if "Deeper?" in prompt:
            return cell("FINAL(rlm_query('And below?', 'x' * 50) + context[0])")
        return cell("FINAL(context[0])") if "And below?" in prompt else "a sub-answer"

    starts: list[RunStarted] = []
    with ModelServer(root=[cell("FINAL(rlm_query('Deeper?', 'y' * 50))")], sub=sub) as server:
        rlm = host.rlm(
            server,
            run_limits=RunLimits(depth=2),
            on_event=lambda event: starts.append(event) if isinstance(event, RunStarted) else None,
        )
        result = rlm.completion("z" * 50, "q")

    assert result.answer == "xy"
    assert [event.depth for event in starts] == [0, 1, 2]


async def test_cancelling_a_run_ends_its_child_runs(host: RealHost) -> None:
    """Neither a container nor a request of a child run outlives the run that started it."""

    def sub(prompt: str) -> Answer | str:
        return Answer(text="late", delay_s=60.0) if "How many" in prompt else "a sub-answer"

    with ModelServer(root=[cell(SHARE_OUT)], sub=sub) as server:
        running = asyncio.create_task(
            host.rlm(server).acompletion("a*" * 50 + "b*" * 50, "How many?")
        )
        assert await asyncio.to_thread(
            server.wait_until, lambda: len(server.sub_requests) == 2, timeout_s=60.0
        )
        containers_meanwhile = len(host.containers())
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        were_left = await asyncio.to_thread(server.wait_until, lambda: server.disconnect_count == 2)

    assert containers_meanwhile == 3
    assert were_left
    assert host.leftovers() == []


def test_tools_run_here_and_their_source_stays_here(host: RealHost) -> None:
    """A cell calls a function of the caller's; what it keeps to itself never leaves."""
    kept = "the number of the safe is 1234"
    threads: list[str] = []

    def look_up(order_id: int) -> dict[str, object]:
        """Looks an order up."""
        threads.append(threading.current_thread().name)
        if order_id < 0:
            raise ToolError("orders have numbers above zero")
        if order_id == 0:
            raise ValueError(kept)
        return {"id": order_id, "state": "sent"}

    look = """
print(look_up(7)["state"])
for order_id in (-1, 0, "many"):
    try:
        look_up(order_id)
    except ToolError as error:
        print(error)
FINAL(look_up(order_id=8)["id"])
"""
    with ModelServer(root=[cell(look)]) as server:
        rlm = host.rlm(server, tools=[look_up, Tool(function=len, name="length", timeout_s=1.0)])
        result = rlm.completion("x" * 50, "q", trajectory=None)
        first = server.root_requests[0].prompt
        sent = json.dumps([request.body for request in server.requests])

    assert result.answer == "8"
    assert result.tool_call_count == 5
    assert "`look_up(order_id: int) -> dict[str, object]`: Looks an order up." in first
    assert all(name.startswith("tool-") for name in threads)
    assert len(threads) == 4
    assert kept not in sent


def test_tool_that_hangs_costs_its_time_only(host: RealHost) -> None:
    """The cell is told, and the run ends without waiting for the function."""
    release = threading.Event()
    source = """
try:
    hang()
except ToolError as error:
    FINAL(str(error))
"""
    with ModelServer(root=[cell(source)]) as server:
        rlm = host.rlm(server, tools=[Tool(function=release.wait, name="hang", timeout_s=0.5)])
        started_s = time.monotonic()
        result = rlm.completion("x" * 50, "q")
        wall_s = time.monotonic() - started_s
    release.set()

    assert result.answer == "hang gave no result within 0.5 s"
    assert wall_s < 30


def test_tool_that_returns_too_much_is_an_error(host: RealHost) -> None:
    """100 MB do not reach the sandbox, and do not end it."""
    source = "try:\n    much()\nexcept QueryError as error:\n    FINAL(str(error))"

    def much() -> str:
        """Returns more than a message holds."""
        return "x" * 10**8

    with ModelServer(root=[cell(source)]) as server:
        result = host.rlm(server, tools=[much]).completion("x" * 50, "q")

    assert "2,097,152" in result.answer


def test_session_keeps_its_variables(host: RealHost) -> None:
    """A follow-up finds what the question before has computed, and what was said."""
    replies = [
        cell("stars = context.count('*')\nFINAL(stars)"),
        cell("FINAL([stars, history[-1]['content'], len(history_0), context_0 == context])"),
        cell("FINAL(f'{context} {context_1} {len(context_0)} {stars}')"),
    ]
    with ModelServer(root=replies) as server, host.rlm(server).session() as session:
        first = session.ask("How many?", "**-" * 10)
        second = session.ask("And before?")
        third = session.ask("And now?", "another")
        sandboxes = len(host.containers())
        told = server.root_requests[1].prompt

    assert first.answer == "20"
    assert second.answer == "[20, '20', 2, True]"
    assert third.answer == "another another 30 20"
    assert sandboxes == 1
    assert "1 earlier question has been answered in this session" in told
    assert host.leftovers() == []


def test_stream_tells_of_a_reply_before_it_is_whole(host: RealHost) -> None:
    """Pieces come while the server still writes; put together they are the reply."""
    reply = "I look.\n" + cell("FINAL('found')")
    pieces = [reply[start : start + 8] for start in range(0, len(reply), 8)]
    answer = Answer(text=reply, pieces=pieces, piece_delay_s=0.02)
    with (
        ModelServer(root=[answer]) as server,
        host.rlm(server).stream("x" * 50, "q") as stream,
    ):
        events = list(stream)
        result = stream.result

    shown = [event.text for event in events if isinstance(event, ReplyPiece)]
    kinds = [type(event) for event in events]
    assert "".join(shown) == reply
    assert len(shown) > 1
    assert kinds.index(ReplyPiece) < kinds.index(ReplyReceived) < kinds.index(CellStarted)
    assert kinds[-1] is RunEnded
    assert (result.answer, result.answer_source) == ("found", AnswerSource.FINAL)


def test_stream_that_is_left_ends_its_run(host: RealHost) -> None:
    """Nobody pays for a run that nobody looks at any longer."""
    with ModelServer(root=[cell("while True:\n    pass")]) as server:
        with host.rlm(server).stream("x" * 50, "q") as stream:
            for event in stream:
                if isinstance(event, CellStarted):
                    break
        assert host.leftovers() == []


def test_structured_answers_reach_the_cell(host: RealHost) -> None:
    """Each answer is parsed and checked; one that does not fit is asked for once more."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    source = f"answers = llm_query_batched(['a', 'b'], json_schema={schema!r})\nFINAL(answers)"
    asked: list[str] = []

    def sub(prompt: str) -> str:
        asked.append(prompt)
        if prompt.startswith("b") and len(asked) <= 2:
            return "It has 2."
        return 'Here it is:\n```json\n{"n": 1}\n```' if prompt.startswith("a") else '{"n": 2}'

    with ModelServer(root=[cell(source)], sub=sub) as server:
        result = host.rlm(server).completion("x" * 50, "q")

    assert result.answer == "[{'n': 1}, {'n': 2}]"
    assert len(asked) == 3
    assert "It has 2." in asked[2]


def test_short_context_needs_no_sandbox(host: RealHost) -> None:
    """The sub-model is given all of it at once, and the result says so."""
    with ModelServer(sub=lambda prompt: f"read {len(prompt) > 50}") as server:
        settings = host.settings(server)
        rlm = RLM(settings=settings, run_limits=RunLimits())
        result = rlm.completion("short", "What is it?")
        requests = len(server.requests)

    assert (result.answer, result.answer_source) == ("read True", AnswerSource.DIRECT)
    assert (requests, result.turn_count, result.query_count) == (1, 0, 1)
    assert result.controls is None


def test_queries_of_threads_and_of_asyncio_are_answered(host: RealHost) -> None:
    """Whatever a cell uses to ask at the same time, each answer reaches who asked."""
    source = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

async def ask_all():
    return await asyncio.gather(*(llm_query_async(f"async {n}") for n in range(8)))

with ThreadPoolExecutor(8) as pool:
    threaded = list(pool.map(llm_query, [f"thread {n}" for n in range(8)]))
FINAL([*threaded, *asyncio.run(ask_all())])
"""
    with ModelServer(root=[cell(source)], sub=str.upper) as server:
        result = host.rlm(server).completion("x" * 50, "q")

    expected = [f"{kind} {n}" for kind in ("THREAD", "ASYNC") for n in range(8)]
    assert result.answer == str(expected)


def test_events_of_a_child_run_are_those_of_any_run(host: RealHost) -> None:
    """Its queries are told of too, under its own name, and paid for from the one ledger."""

    def sub(prompt: str) -> str:
        if "How many stars?" in prompt:
            return cell("FINAL(llm_query('count: ' + context))")
        return "2"

    events: list[RunEvent] = []
    with ModelServer(root=[cell(SHARE_OUT)], sub=sub) as server:
        result = host.rlm(server, on_event=events.append).completion(
            "a*" * 20 + "b*" * 20, "How many?"
        )

    own, *others = [event.run_id for event in events if isinstance(event, RunStarted)]
    started = [event for event in events if isinstance(event, QueryStarted)]
    ended = [event for event in events if isinstance(event, QueryEnded)]
    assert result.answer == "4"
    assert result.query_count == 2
    assert sorted(event.run_id for event in started) == sorted([own, own, *others])
    assert len(ended) == 4
