import asyncio
import doctest
from functools import partial
from pathlib import Path

import pytest
from support.fake_models import FakeModel
from support.fake_sandbox import CellRun
from support.front_end import FakeParts, forget_settings

import orchestrator
from orchestrator import (
    RLM,
    CellLimits,
    InputError,
    PoolLimits,
    RunLimits,
    Settings,
    SettingsError,
)
from orchestrator.domain import FinishReason
from orchestrator.events import RunEnded, RunEvent, RunStarted
from orchestrator.trajectory.jsonl import read_trajectory


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


async def answer(run: CellRun) -> None:
    run.final(run.contexts["context"].data.decode())


async def ask(run: CellRun) -> None:
    run.final(str((await run.ask("which of these is a capital?"))[0]))


def test_docstring_example_is_true() -> None:
    """What the class's documentation shows is what happens."""
    parts = FakeParts(ask, sub=["Paris"]).parts
    example = doctest.DocTestParser().get_doctest(
        RLM.__doc__ or "", {"RLM": partial(RLM, parts=parts)}, "RLM", None, None
    )
    runner = doctest.DocTestRunner()

    assert runner.run(example) == doctest.TestResults(failed=0, attempted=4)


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], {"key": 1}])
def test_prompt_is_the_context(prompt: str | list[orchestrator.domain.Json]) -> None:
    """Text, lists and dicts reach the sandbox as the context."""
    parts = FakeParts(answer)

    RLM(parts=parts.parts).completion(prompt, "question")

    assert parts.provider.opened[0].contexts["context"].kind in {"text", "texts", "json"}
    assert "question" in parts.root.requests[0][-1].content


def test_prompt_alone_is_its_own_question() -> None:
    """Without a question the root model is shown the prompt and told to answer it."""
    parts = FakeParts(answer)

    result = RLM(parts=parts.parts).completion("What is 1 + 1?")

    assert "What is 1 + 1?" in parts.root.requests[0][-1].content
    assert str(result) == "What is 1 + 1?"


def test_limit_is_a_result() -> None:
    """Reaching a limit returns; it does not raise away what was paid for."""
    rlm = RLM(parts=FakeParts().parts, run_limits=RunLimits(turns=1, direct_chars=0))

    assert rlm.completion("x", "q").finish_reason is FinishReason.TURN_LIMIT


def test_events_and_trajectory_tell_the_same(tmp_path: Path) -> None:
    """A caller sees each event as it happens, and may keep them in a file."""
    events: list[RunEvent] = []
    path = tmp_path / "run.jsonl"

    result = RLM(parts=FakeParts(answer).parts, on_event=events.append).completion(
        "x", "q", trajectory=path
    )

    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert result.trajectory_path == path
    assert len(read_trajectory(path)) == len(result.trajectory)


async def test_completion_in_a_running_loop_names_its_twin() -> None:
    """In an event loop the waiting call is refused with the name of the one that does not wait."""
    rlm = RLM(parts=FakeParts(answer).parts)

    with pytest.raises(InputError, match="`acompletion`"):
        rlm.completion("x", "q")
    with pytest.raises(InputError, match="`async with`"), rlm:
        pass
    assert str(await rlm.acompletion("x", "q")) == "x"


async def test_completions_may_overlap() -> None:
    """Runs of one object at the same time do not mix: each has its own sandbox."""
    parts = FakeParts(answer)

    async with RLM(parts=parts.parts) as rlm:
        results = await asyncio.gather(*(rlm.acompletion(text, "q") for text in "abc"))

    assert [str(result) for result in results] == ["a", "b", "c"]
    assert len(parts.provider.opened) == 3
    assert len(parts.settings) == 1


async def test_cancelled_completion_leaves_no_sandbox() -> None:
    """A caller that gives up, for instance at its own time limit, leaves nothing running."""
    parts = FakeParts(root=FakeModel(["x"], is_held=True))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(RLM(parts=parts.parts).acompletion("x", "q"), 0.2)

    assert parts.provider.opened[0].is_destroyed
    assert parts.open_count == 0


def test_context_manager_keeps_connections_and_closes_them() -> None:
    """Inside `with` the engine is looked for once; without it, for each call."""
    parts = FakeParts(answer)

    with RLM(parts=parts.parts) as rlm:
        rlm.completion("x", "q")
        rlm.completion("x", "q")
        assert (len(parts.settings), parts.open_count) == (1, 1)
    assert parts.open_count == 0
    rlm.close()

    rlm.completion("x", "q")
    rlm.completion("x", "q")
    assert (len(parts.settings), parts.open_count) == (3, 0)


async def test_open_twice_is_refused() -> None:
    """Opening what is open would lose track of what has to be closed."""
    async with RLM(parts=FakeParts().parts) as rlm:
        with pytest.raises(InputError, match="is open already"):
            async with rlm:
                pass


def test_arguments_beat_settings() -> None:
    """What is said at the call holds; what is not comes from the settings given."""
    parts = FakeParts(answer)
    settings = Settings(model="configured", cell=CellLimits(wall_s=7.0))

    RLM(settings=settings, model="said", parts=parts.parts).completion("x", "q")

    (found,) = parts.settings
    assert (found.model, found.cell.wall_s) == ("said", 7.0)


def test_environment_is_read_where_no_settings_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RLM()` is configured like the command."""
    monkeypatch.setenv("RLM_MODEL", "from-environment")
    parts = FakeParts(answer)

    RLM(parts=parts.parts).completion("x", "q")

    assert parts.settings[0].model == "from-environment"


@pytest.mark.parametrize("settings", [None, Settings()])
def test_wrong_argument_is_a_settings_error(settings: Settings | None) -> None:
    """A policy that is none is refused when the object is made, by name."""
    with pytest.raises(SettingsError, match="policy"):
        RLM(policy="none", settings=settings)


def test_every_public_name_is_there() -> None:
    """What the package lists can be imported from it, and a name it does not have is said so."""
    for name in orchestrator.__all__:
        # An alias of a union has no name of its own.
        assert getattr(getattr(orchestrator, name), "__name__", name) == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = orchestrator.nothing  # type: ignore[attr-defined]  # that is the point


def test_pool_is_for_calls_that_share_it() -> None:
    """Sandboxes wait inside `with` alone: one call by itself would start them for nobody."""
    parts = FakeParts(answer, answer)
    rlm = RLM(pool_limits=PoolLimits(size=3), parts=parts.parts)
    rlm.completion("text", "question")
    with rlm:
        rlm.completion("text", "question")

    assert [settings.pool.size for settings in parts.settings] == [0, 3]
