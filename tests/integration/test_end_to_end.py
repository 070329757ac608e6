"""The main job through the real thing: SDK, broker, container, cells, and back.

Only the provider is played, by a server that the real SDK talks to.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.model_server import ROOT_MODEL, SUB_MODEL, Answer, ModelServer, failure
from support.real_host import RealHost, cell

from orchestrator import AnswerSource, QueryLimits
from orchestrator.chat import ModelUsage
from orchestrator.domain import Context
from orchestrator.events import (
    CellEnded,
    CellPrinted,
    QueryEnded,
    QueryStarted,
    RunEnded,
    RunEvent,
    RunStarted,
    SandboxReady,
    TurnStarted,
)
from orchestrator.trajectory.jsonl import read_trajectory

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

LINE = "nothing is said about it here … line {number:07}\n"  # not ASCII, so not a byte a character
NEEDLES = {123_456: "the door is red\n", 200_000: "the roof is green\n"}
SEARCH = """
wanted = [line for line in context.splitlines() if line.startswith("the ")]
print(len(context), wanted)
"""
ASK = """
colours = llm_query_batched([f"Name the colour in: {line}" for line in wanted])
answer["content"] = " and ".join(colours)
print(colours)
"""
DECLARE = 'answer["ready"] = True'
SCRIPT = """
[[root]]
text = '''
```repl
FINAL(llm_query("capital? " + context))
```
'''
[[sub]]
contains = "Paris"
text = "Paris"
"""
USED_ONCE = ModelUsage(request_count=1, prompt_tokens=10, completion_tokens=5)


def last_word(prompt: str) -> str:
    return prompt.rsplit(maxsplit=1)[-1]


@pytest.fixture
def haystack(tmp_path: Path) -> Path:
    """Writes a file of more than ten million characters with two lines worth finding."""
    lines = (NEEDLES.get(number) or LINE.format(number=number) for number in range(230_000))
    path = tmp_path / "haystack.txt"
    path.write_text("".join(lines), "utf-8")
    return path


def test_ten_million_characters_are_answered(host: RealHost, haystack: Path) -> None:
    """A context no model could read is searched by cells, and only what they chose is sent out."""
    context_chars = len(haystack.read_text("utf-8"))
    trajectory = haystack.with_name("run.jsonl")
    with ModelServer(root=[cell(SEARCH), cell(ASK), cell(DECLARE)], sub=last_word) as server:
        ended = host.command(
            *("run", "Which colours are there?", "--context", haystack, "--json"),
            *("--trajectory", trajectory),
            environment=host.environment(server),
        )
        requests = server.requests
        probed = server.root_requests[1].prompt

    assert context_chars > 10_000_000
    assert f"{context_chars} ['the door is red', 'the roof is green']" in probed
    assert ended.exit_code == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["answer"] == "red and green"
    assert (result["finish_reason"], result["answer_source"]) == ("answered", "final")
    assert (result["turn_count"], result["query_count"]) == (3, 2)
    assert (result["is_scripted"], result["cost_usd"], result["failure"]) == (False, None, "")
    assert {name: usage["request_count"] for name, usage in result["usage"].items()} == {
        ROOT_MODEL: 3,
        SUB_MODEL: 2,
    }
    assert result["trajectory_path"] == str(trajectory)
    assert sum(len(json.dumps(dict(one.body))) for one in requests) < 50_000
    assert not any("nothing is said" in json.dumps(dict(one.body)) for one in requests)


def test_trajectory_reads_back(host: RealHost, tmp_path: Path) -> None:
    """The file holds every event of the run in order, and never the context itself."""
    path = tmp_path / "run.jsonl"
    replies = [cell("print(len(context))\nprint(llm_query('say it'))"), cell("FINAL('done')")]
    with ModelServer(root=replies, sub=lambda _prompt: "said") as server:
        result = host.rlm(server).completion("not to be kept", "question?", trajectory=path)

    events = read_trajectory(path)
    assert events == result.trajectory
    assert "not to be kept" not in path.read_text("utf-8")
    kinds = [type(event) for event in events]
    assert kinds[:3] == [RunStarted, SandboxReady, TurnStarted]
    assert kinds.index(QueryStarted) < kinds.index(QueryEnded) < kinds.index(CellEnded)
    ended = next(event for event in events if isinstance(event, CellEnded))
    assert str(ended.result.stdout) == "14\nsaid\n"
    assert isinstance(events[-1], RunEnded)
    assert (events[-1].answer, events[-1].turn_count, events[-1].query_count) == ("done", 2, 1)


def test_plain_run_prints_the_answer_alone(host: RealHost, tmp_path: Path) -> None:
    """Standard output is the answer; whoever watches reads a line for each step beside it."""
    (tmp_path / "text").write_text("short")
    with ModelServer(
        root=[cell("print(llm_query('hello?'))"), cell("FINAL('it is\\nshort')")]
    ) as server:
        ended = host.command(
            *("run", "What is it?", "--context", tmp_path / "text"),
            environment=host.environment(server),
        )

    assert (ended.exit_code, ended.stdout) == (0, "it is\nshort\n"), ended.stderr
    steps = ["5 characters of text", "ready in", "turn 1, cell 1:", "query q1-0/0: hello?"]
    steps += ["answered in", "turn 1, cell 1 succeeded", "turn 2", "run ended (answered): 2 turns"]
    positions = [ended.stderr.find(step) for step in steps]
    assert -1 not in positions, ended.stderr
    assert positions == sorted(positions)
    assert "No model is asked" not in ended.stderr


def test_cells_share_their_variables(host: RealHost) -> None:
    """What one cell binds, imports or defines is there in the next, of the same reply or later."""
    replies = [
        cell("import re\nwords = re.findall(r'\\w+', context)")
        + "\nand then\n"
        + cell("def longest():\n    return max(words, key=len)"),
        cell("words.append('extraordinary')"),
        cell("FINAL(longest())"),
    ]
    with ModelServer(root=replies) as server:
        result = host.rlm(server).completion("a few words", "Which is the longest?")
        reports = [request.prompt for request in server.root_requests[1:]]

    assert result.answer == "extraordinary"
    assert "REPL output of block 2 of 2:" in reports[0]
    assert "words (list, 4)" in reports[1]


BATCH = "print(llm_query_batched([f'{number} of 4' for number in range(4)]))"
THREADS = """
import threading
got = {}
def ask(number):
    got[number] = llm_query(f"{number} of 4")
threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([got[number] for number in range(4)])
"""


@pytest.mark.parametrize("source", [BATCH, THREADS], ids=["batch", "threads"])
@pytest.mark.parametrize(("allowed_count", "peak_count"), [(16, 4), (2, 2)])
def test_queries_cross_at_the_same_time(
    host: RealHost, source: str, allowed_count: int, peak_count: int
) -> None:
    """Queries of a batch and of threads are at the provider together, as many as are allowed."""
    with ModelServer(
        root=[cell(source), cell("FINAL(1)")],
        sub=lambda prompt: Answer(text=f"<{prompt}>", delay_s=0.5),
    ) as server:
        limits = QueryLimits(concurrent_queries=allowed_count)
        result = host.rlm(server, query_limits=limits).completion("x", "q")
        report = server.root_requests[1].prompt
        reached_count = server.peak_open_request_count

    assert "['<0 of 4>', '<1 of 4>', '<2 of 4>', '<3 of 4>']" in report
    assert reached_count == peak_count
    assert result.query_count == 4
    assert result.usage[SUB_MODEL].request_count == 4


def test_usage_is_what_the_provider_counted(host: RealHost) -> None:
    """Tokens and requests are those of the replies; a prompt asked again is asked once."""
    replies = [cell("print(llm_query('same') == llm_query('same'))"), cell("FINAL(1)")]
    with ModelServer(root=replies) as server:
        result = host.rlm(server).completion("x", "q")
        report = server.root_requests[1].prompt
        asked_count = len(server.sub_requests)

    assert "True" in report
    assert asked_count == 1
    assert (result.turn_count, result.query_count) == (2, 1)
    assert result.usage == {
        ROOT_MODEL: ModelUsage(request_count=2, prompt_tokens=20, completion_tokens=10),
        SUB_MODEL: USED_ONCE,
    }
    assert result.timings.total_s >= result.timings.root_model_s + result.timings.cells_s


@pytest.mark.parametrize(
    ("context", "kind"),
    [
        (["first", "zweites ü", ""], "list of str"),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}], "messages"),
        ({"a": [1, 2.5, None, True], "ключ": {"b": "c"}}, "a dict"),
        ([1, ["two", {"three": 3}]], "a list"),
        ("text with \0 and 🙂", "a str"),
    ],
)
def test_context_arrives_as_it_is(host: RealHost, context: Context, kind: str) -> None:
    """Whatever JSON can say, and any text, is the same value in a cell; the model is told which."""
    replies = [cell("import json\nFINAL(json.dumps(context))")]
    with ModelServer(root=replies) as server:
        result = host.rlm(server).completion(context, "What is in it?")
        told = server.root_requests[0].prompt

    assert json.loads(result.answer) == context
    assert kind in told


@pytest.mark.parametrize(
    "source",
    [
        "FINAL('the answer')",
        "found = 'the answer'\nFINAL_VAR('found')",
        "answer['content'] = 'the answer'\nanswer['ready'] = True",
        "try:\n    FINAL('the answer')\nexcept Exception:\n    FINAL('eaten')",
    ],
)
def test_final_cell_ends_the_run(host: RealHost, source: str) -> None:
    """Each way to make an answer final does, and nothing that was written after it runs."""
    with ModelServer(root=[cell(source) + "\n" + cell("FINAL('too late')")]) as server:
        result = host.rlm(server).completion("x", "q")

    assert (result.answer, result.answer_source) == ("the answer", AnswerSource.FINAL)
    assert [type(event) for event in result.trajectory].count(CellEnded) == 1


def test_failed_query_is_an_error_in_the_cell(host: RealHost) -> None:
    """One prompt of a batch that fails raises, with the answers of the others in hand."""
    source = """
try:
    llm_query_batched(["good", "bad"])
except QueryBatchError as error:
    print(error.answers)
"""

    def sub(prompt: str) -> str | Answer:
        return "fine" if prompt == "good" else failure(500)

    with ModelServer(root=[cell(source), cell("FINAL(1)")], sub=sub) as server:
        host.rlm(server).completion("x", "q")
        report = server.root_requests[1].prompt

    assert "['fine', None]" in report


def test_script_says_that_no_model_was_asked(host: RealHost, tmp_path: Path) -> None:
    """A replayed run says what it is, in words and in JSON, and needs neither key nor provider."""
    (tmp_path / "text").write_text("Lyon\nParis\n")
    script = tmp_path / "capital.toml"
    script.write_text(SCRIPT)
    environment = host.environment(OPENAI_API_KEY="", RLM_SUB_MODEL="")
    ended = host.call(
        *("run", "q", "--context", tmp_path / "text", "--json", "--model", f"scripted:{script}"),
        environment=environment,
    )

    assert ended.exit_code == 0, ended.stderr
    assert "No model is asked in this run" in ended.stderr
    result = json.loads(ended.stdout)
    assert (result["answer"], result["is_scripted"], result["cost_usd"]) == ("Paris", True, 0.0)


def test_output_is_shown_while_the_cell_runs(host: RealHost) -> None:
    """What a cell prints is there before the cell has ended."""
    is_shown = threading.Event()
    was_shown: list[bool] = []

    def show(event: RunEvent) -> None:
        if isinstance(event, CellPrinted):
            is_shown.set()

    def sub(_prompt: str) -> str:
        was_shown.append(is_shown.wait(10))  # the cell cannot end before this is answered
        return "yes"

    source = "print('early')\nprint(llm_query('are you watching?'))"
    with ModelServer(root=[cell(source), cell("FINAL(1)")], sub=sub) as server:
        host.rlm(server, on_event=show).completion("x", "q")

    assert was_shown == [True]


async def test_runs_at_the_same_time_do_not_mix(host: RealHost) -> None:
    """Two runs of one process have a sandbox each, and each gets its own context and answers."""

    def root(messages: list[dict[str, str]]) -> str:
        is_first = messages[-1]["content"].startswith("Question")
        return cell("mine = llm_query('whose? ' + context)" if is_first else "FINAL(mine)")

    def sub(prompt: str) -> Answer:
        return Answer(text=last_word(prompt), delay_s=2.0)  # both are seen waiting well before

    with ModelServer(root=root, sub=sub) as server:
        async with host.rlm(server) as rlm:
            runs = [asyncio.create_task(rlm.acompletion(name, "q")) for name in ("alpha", "beta")]
            both_wait: Callable[[], bool] = lambda: len(server.sub_requests) == 2  # noqa: E731
            assert await asyncio.to_thread(server.wait_until, both_wait, timeout_s=30)
            containers = host.containers()
            results = await asyncio.gather(*runs)
        after = host.leftovers()

    assert len(containers) == 2
    assert [result.answer for result in results] == ["alpha", "beta"]
    sandboxes = {
        event.sandbox_id
        for result in results
        for event in result.trajectory
        if isinstance(event, SandboxReady)
    }
    assert len(sandboxes) == 2
    assert after == []


def test_files_run_as_cells_with_a_real_sub_model(host: RealHost, tmp_path: Path) -> None:
    """`rlm exec` runs files in one sandbox over a context, and the model it names answers them."""
    (tmp_path / "text").write_text("some text")
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("size = len(context)")
    second.write_text("print(llm_query(f'how long is {size}?'))")
    with ModelServer(sub=lambda prompt: prompt.upper()) as server:
        ended = host.call(
            *("exec", first, second, "--context", tmp_path / "text", "--model", SUB_MODEL),
            environment=host.environment(server),
        )

    assert ended.exit_code == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["outcome"] for line in lines] == ["succeeded", "succeeded"]
    assert lines[1]["stdout"] == "HOW LONG IS 9?\n"
    assert {"name": "size", "type": "int", "size": None} in lines[0]["variables"]
