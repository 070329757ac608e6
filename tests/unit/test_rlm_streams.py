"""A run's events while it goes on, for programs with an event loop and for those without."""

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun
from support.front_end import ONE_CELL, FakeParts, forget_settings

from orchestrator import RLM, InputError, ModelRefusedError
from orchestrator.events import CellStarted, ReplyPiece, RunEnded, RunEvent, RunStarted


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


async def answer(run: CellRun) -> None:
    run.final("42")


async def hang(_run: CellRun) -> None:
    await asyncio.Event().wait()


def loop_threads() -> list[threading.Thread]:
    """Returns the threads that run loops for programs without one."""
    return [thread for thread in threading.enumerate() if thread.name == "rlm-loop"]


def test_events_come_in_order_and_then_the_result() -> None:
    """From the first event to the last, pieces of replies among them."""
    with RLM(parts=FakeParts(answer).parts).stream("x", "q") as stream:
        events = list(stream)

    kinds = [type(event) for event in events]
    assert (kinds[0], kinds[-1]) == (RunStarted, RunEnded)
    assert "".join(event.text for event in events if isinstance(event, ReplyPiece)) == ONE_CELL
    assert stream.result.answer == "42"
    assert loop_threads() == []


async def test_asynchronous_events_come_in_order_and_then_the_result() -> None:
    """The same for a program with an event loop."""
    async with RLM(parts=FakeParts(answer).parts).astream("x", "q") as stream:
        events = [event async for event in stream]

    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert any(isinstance(event, ReplyPiece) for event in events)
    assert stream.result.answer == "42"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


def test_caller_s_own_sink_is_told_too() -> None:
    """Who watches all runs of an object sees those that are streamed as well."""
    told: list[object] = []
    with RLM(parts=FakeParts(answer).parts, on_event=told.append).stream("x", "q") as stream:
        assert list(stream) == told


def test_result_is_there_at_the_end_only() -> None:
    """Half a run has no result, and says what to do."""
    with RLM(parts=FakeParts(answer).parts).stream("x", "q") as stream:
        next(stream)
        with pytest.raises(InputError, match="read its events to the last one"):
            _ = stream.result


async def test_asynchronous_result_is_there_at_the_end_only() -> None:
    """Likewise, before the first event as after it."""
    stream = RLM(parts=FakeParts(answer).parts).astream("x", "q")
    with pytest.raises(InputError, match="read its events to the last one"):
        _ = stream.result
    await stream.aclose()


def test_what_the_run_raises_comes_after_its_events() -> None:
    """The events say what was spent, the iterator what went wrong."""
    root = FakeModel([ModelRefusedError("no key", model="m")], name="root")
    stream = RLM(parts=FakeParts(root=root).parts).stream("x", "q")
    seen: list[RunEvent] = []
    with pytest.raises(ModelRefusedError, match="no key"):
        seen.extend(event for event in stream)

    assert isinstance(seen[-1], RunEnded)
    with pytest.raises(StopIteration):
        next(stream)
    assert loop_threads() == []


def test_stream_that_is_left_ends_its_run() -> None:
    """Leaving early destroys the sandbox, and waits for that."""
    parts = FakeParts(hang)
    with RLM(parts=parts.parts).stream("x", "q") as stream:
        for event in stream:
            if isinstance(event, CellStarted):
                break

    assert parts.provider.opened[0].is_destroyed
    assert parts.open_count == 0
    assert loop_threads() == []
    stream.close()


async def test_asynchronous_stream_that_is_left_ends_its_run() -> None:
    """Likewise."""
    parts = FakeParts(hang)
    async with RLM(parts=parts.parts).astream("x", "q") as stream:
        async for event in stream:
            if isinstance(event, CellStarted):
                break

    assert parts.provider.opened[0].is_destroyed
    assert parts.open_count == 0


def test_stream_that_is_dropped_ends_its_run() -> None:
    """Nobody closed it, and nobody wants it any more: its sandbox goes, and its thread."""
    parts = FakeParts(hang)
    stream = RLM(parts=parts.parts).stream("x", "q")
    next(event for event in stream if isinstance(event, CellStarted))
    [thread] = loop_threads()
    del stream
    gc.collect()
    thread.join(timeout=5)

    assert not thread.is_alive()
    assert parts.provider.opened[0].is_destroyed


def test_program_that_leaves_everything_open_ends() -> None:
    """Forgetting to close a stream, a session or an object does not keep a program alive."""
    program = """
import orchestrator
rlm = orchestrator.RLM(model="echo").__enter__
stream = orchestrator.RLM(model="scripted:none.toml").stream("x", "q")
from orchestrator.rlm.loop_thread import LoopThread
loop = LoopThread()
print("end")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )

    assert ended.stdout == "end\n"


def test_streams_of_an_open_object_share_what_is_open() -> None:
    """Inside `with`, several streams at once use one connection to engine and provider."""
    parts = FakeParts(answer)
    with RLM(parts=parts.parts) as rlm:
        first, second = rlm.stream("x", "q"), rlm.stream("y", "q")
        assert [type(list(stream)[-1]) for stream in (first, second)] == [RunEnded, RunEnded]
        assert len(loop_threads()) == 1

    assert len(parts.settings) == 1
    assert loop_threads() == []


async def test_waiting_stream_in_a_running_loop_names_its_twin() -> None:
    """It would stop the loop that it is called in."""
    with pytest.raises(InputError, match="Use `astream` instead"):
        RLM(parts=FakeParts(answer).parts).stream("x", "q")
