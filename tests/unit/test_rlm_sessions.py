"""Sessions, tools and files as prompts, as a program has them."""

import asyncio
from pathlib import Path

import pytest
from support.fake_sandbox import CellRun
from support.front_end import FakeParts, forget_settings

from orchestrator import RLM, InputError, SettingsError, Tool
from orchestrator.domain import ContextKind
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_settings(monkeypatch, tmp_path)


async def names(run: CellRun) -> None:
    run.final(" ".join(sorted(run.contexts)))


async def call(run: CellRun) -> None:
    [answer] = [await run.call_tool("double", '{"args": [21]}')]
    run.final(str(answer))


def double(number: int) -> int:
    """Doubles a number."""
    return 2 * number


def test_questions_of_a_session_share_a_sandbox(tmp_path: Path) -> None:
    """The second finds the context and the history of the first; one trajectory has both."""
    parts, path = FakeParts(names, names, names), tmp_path / "session.jsonl"
    with RLM(parts=parts.parts) as rlm, rlm.session(trajectory=path) as session:
        first = session.ask("one?", "text")
        second = session.ask("two?")
        third = session.ask("three?", ["an", "other"])

    assert str(first) == "context context_0"
    assert str(second) == "context context_0 history history_0"
    assert str(third) == "context context_0 context_1 history history_0 history_1"
    assert len(parts.provider.opened) == 1
    assert parts.provider.opened[0].is_destroyed
    assert third.trajectory_path == path
    assert [run.started.session_run for run in runs_of(read_records(path))] == [1, 2, 3]


async def test_asynchronous_session() -> None:
    """The same for a program with an event loop."""
    parts = FakeParts(names, names)
    async with RLM(parts=parts.parts).asession() as session:
        await session.ask("one?", "text")
        answer = await session.ask("two?")

    assert str(answer) == "context context_0 history history_0"
    assert parts.open_count == 0


def test_session_that_is_not_open_is_refused() -> None:
    """What it takes to open one is in the message."""
    session = RLM(parts=FakeParts(names).parts).asession()
    with pytest.raises(InputError, match="used inside `async with`"):
        asyncio.run(session.ask("one?", "text"))


async def test_session_is_opened_once() -> None:
    """Opened twice it would have two sandboxes, and close one."""
    async with RLM(parts=FakeParts(names).parts).asession() as session:
        with pytest.raises(InputError, match="open already"):
            await session.__aenter__()


async def test_waiting_session_in_a_running_loop_names_its_twin() -> None:
    """It would stop the loop that it is used in."""
    with pytest.raises(InputError, match="Use `asession` instead"):
        RLM(parts=FakeParts(names).parts).session()


def test_tools_are_functions_of_the_program() -> None:
    """A cell's call comes here, and its result goes there."""
    parts = FakeParts(call)
    result = RLM(parts=parts.parts, tools=[double]).completion("x", "q")

    assert (str(result), result.tool_call_count) == ("42", 1)
    assert "`double(number: int) -> int`: Doubles a number." in parts.root.requests[0][-1].content


def test_tool_that_cannot_be_one_is_refused_at_once() -> None:
    """Before anything is opened, and with its name."""
    with pytest.raises(SettingsError, match="llm_query"):
        RLM(parts=FakeParts().parts, tools=[Tool(function=double, name="llm_query")])


def test_file_as_a_prompt_is_read(tmp_path: Path) -> None:
    """A path is the text of its file, as the command line reads it."""
    path = tmp_path / "a.txt"
    path.write_text("naïve 🙂", "utf-8")
    parts = FakeParts(names)

    RLM(parts=parts.parts).completion(path, "q")

    context = parts.provider.opened[0].contexts["context"]
    assert (context.kind, context.data.decode()) == (ContextKind.TEXT, "naïve 🙂")


@pytest.mark.parametrize("names_files", ["files", "folder"])
def test_folder_or_files_as_a_prompt_are_documents(tmp_path: Path, names_files: str) -> None:
    """Each file is a document with its name."""
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).write_text(f"text of {name}", "utf-8")
    folder = tmp_path / "in"
    prompt = folder if names_files == "folder" else [folder / "a.txt", folder / "b.txt"]
    parts = FakeParts(names)

    RLM(parts=parts.parts).completion(prompt, "q")

    context = parts.provider.opened[0].contexts["context"]
    assert context.kind is ContextKind.DOCUMENTS
    assert len(context.part_lengths) == 2
    assert b"text of b.txt" in context.data


def test_missing_file_is_named_before_anything_is_started(tmp_path: Path) -> None:
    """What is wrong is the path, and nothing was paid for."""
    parts = FakeParts(names)
    with pytest.raises(InputError, match=r"none\.txt"):
        RLM(parts=parts.parts).completion(tmp_path / "none.txt", "q")

    assert parts.settings == []


def test_profile_and_domain_reach_the_root_model() -> None:
    """What a program chooses is what is sent."""
    parts = FakeParts(names)
    RLM(parts=parts.parts, profile="gpt-5", domain="logs").completion("x", "q")

    assert "The context is a log" in parts.root.requests[0][-1].content


def test_unknown_domain_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(SettingsError, match="expected one of documents, code, tables, logs"):
        RLM(parts=FakeParts(names).parts, domain="poems").completion("x", "q")
