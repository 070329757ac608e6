"""Names of a cell beside `llm_query`: asynchronous and structured queries, child runs, tools."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from support.scripted_broker import ScriptedBroker, echo

from rlm_sandbox.v1 import sandbox_pb2 as pb

SCHEMA = "{'type': 'object', 'properties': {'n': {'type': 'integer'}}, 'required': ['n']}"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rlm", dir="/tmp") as path:
        yield Path(path)


class Recorder:
    """Answers with a function of the prompt, and keeps every request."""

    def __init__(self, reply: Callable[[str], str | pb.QueryAnswer]) -> None:
        """Keeps nothing yet."""
        self.requests: list[pb.LlmQueryRequest] = []
        self._reply = reply

    def __call__(
        self, request: pb.LlmQueryRequest, _context: grpc.ServicerContext
    ) -> pb.LlmQueryReply:
        """Answers each prompt; a part of a context gets no answers."""
        self.requests.append(request)
        replies = [self._reply(prompt) for prompt in request.prompts]
        return pb.LlmQueryReply(
            answers=[
                pb.QueryAnswer(text=reply) if isinstance(reply, str) else reply for reply in replies
            ]
        )


def refused(reason: pb.QueryError.Reason.ValueType, message: str) -> pb.QueryAnswer:
    """Returns a failure."""
    return pb.QueryAnswer(error=pb.QueryError(reason=reason, message=message))


def test_asynchronous_queries_are_open_together(directory: Path) -> None:
    """Twelve tasks of one loop wait for one barrier in the broker: all have to be open for it."""
    barrier = threading.Barrier(12, timeout=20)

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        barrier.wait()
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        result, stdout, _ = broker.run(
            "import asyncio\n"
            "print(await asyncio.gather(*(llm_query_async(str(i)) for i in range(12))))"
        )

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert stdout.decode().strip() == str([f"echo: {index}" for index in range(12)])


def test_loop_goes_on_while_a_query_is_open(directory: Path) -> None:
    """A query waits in its own task, and no other waits for it."""
    may_answer = threading.Event()

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] == "first":
            may_answer.wait(20)
        else:
            may_answer.set()
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        _, stdout, _ = broker.run(
            "import asyncio\n"
            "async def second():\n"
            "    await asyncio.sleep(0)\n"
            "    return await llm_query_async('second')\n"
            "print(await asyncio.gather(llm_query_async('first'), second()))"
        )

    assert stdout == b"['echo: first', 'echo: second']\n"


def test_threads_and_loops_ask_at_the_same_time(directory: Path) -> None:
    """Whoever reads, reads for all: no answer is left lying, and none goes to another."""
    with ScriptedBroker(directory) as broker:
        result, stdout, _ = broker.run(
            "import asyncio\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "async def many(name):\n"
            "    return await asyncio.gather("
            "*(llm_query_async(f'{name}{i}') for i in range(20)))\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    plain = [pool.submit(llm_query, f't{i}') for i in range(40)]\n"
            "    loops = [pool.submit(asyncio.run, many(name)) for name in 'ab']\n"
            "    own = await many('c')\n"
            "    got = [f.result() for f in plain]\n"
            "    more = [f.result() for f in loops]\n"
            "print(got == [f'echo: t{i}' for i in range(40)],\n"
            "      [m == [f'echo: {n}{i}' for i in range(20)]\n"
            "       for n, m in zip('abc', [*more, own])])"
        )

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert stdout == b"True [True, True, True]\n"


def test_task_that_is_cancelled_leaves_the_others(directory: Path) -> None:
    """A timeout of the cell's own ends its one query; an answer that comes late is nobody's."""
    released = threading.Event()

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] == "slow":
            released.wait(20)
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        broker.start(
            "import asyncio\n"
            "try:\n"
            "    await asyncio.wait_for(llm_query_async('slow'), 0.1)\n"
            "except TimeoutError:\n"
            "    print('gave up')\n"
            "print(await llm_query_async('next'))"
        )
        _, stdout, _ = broker.finish()
        released.set()
        _, again, _ = broker.run("print(llm_query('after'))")

    assert (stdout, again) == (b"gave up\necho: next\n", b"echo: after\n")


def test_loop_that_outlives_its_cell_is_told(directory: Path) -> None:
    """A query that a thread's loop has open is cancelled with the cell, not left waiting."""
    opened = threading.Event()

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] == "never":
            opened.set()
            done = threading.Event()
            context.add_callback(done.set)
            done.wait(20)
        else:
            opened.wait(20)
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        broker.start(
            "import asyncio, threading\n"
            "got = []\n"
            "async def ask():\n"
            "    try: await llm_query_async('never')\n"
            "    except QueryError as error: got.append(error.reason)\n"
            "thread = threading.Thread(target=lambda: asyncio.run(ask()))\n"
            "thread.start()\n"
            "llm_query('until it is open')"
        )
        broker.finish()
        assert opened.wait(20)
        _, stdout, _ = broker.run("thread.join(10)\nprint(got)")

    assert stdout == b"['cancelled']\n"


def test_structured_answer_is_what_json_holds(directory: Path) -> None:
    """The schema goes with the prompt, and the answer comes back as a value."""
    recorder = Recorder(lambda prompt: f'{{"n": {len(prompt)}}}')
    with ScriptedBroker(directory, answer=recorder) as broker:
        _, stdout, _ = broker.run(
            f"S = {SCHEMA}\n"
            "pair = llm_query_batched(['a', 'bb'], json_schema=S)\n"
            "print(llm_query('one', json_schema=S), pair)\n"
            "print(await llm_query_async('ccc', json_schema=S))"
        )

    assert stdout == b"{'n': 3} [{'n': 1}, {'n': 2}]\n{'n': 3}\n"
    assert json.loads(recorder.requests[-1].json_schema)["required"] == ["n"]


@pytest.mark.parametrize(
    "reply",
    [
        '```json\n{"n": 3}\n```',
        'Here you are: {"n": 3}. Anything else?',
        '\n {"n": 3}\n',
    ],
)
def test_talk_around_json_is_put_up_with(directory: Path, reply: str) -> None:
    """A fence or a sentence around an answer is no reason to pay for another."""
    recorder = Recorder(lambda _prompt: reply)
    with ScriptedBroker(directory, answer=recorder) as broker:
        _, stdout, _ = broker.run(f"print(llm_query('q', json_schema={SCHEMA}))")

    assert stdout == b"{'n': 3}\n"
    assert len(recorder.requests) == 1


def test_answer_that_does_not_fit_is_asked_for_once_more(directory: Path) -> None:
    """The second prompt has the first reply and what is wrong with it; the rest is not asked."""

    def reply(prompt: str) -> str:
        return '{"n": 5}' if prompt.startswith("good") or "does not fit" in prompt else '{"n": "x"}'

    recorder = Recorder(reply)
    with ScriptedBroker(directory, answer=recorder) as broker:
        _, stdout, _ = broker.run(
            f"print(llm_query_batched(['good', 'bad'], json_schema={SCHEMA}))\n"
            f"print(await llm_query_async('bad too', json_schema={SCHEMA}))"
        )

    assert stdout == b"[{'n': 5}, {'n': 5}]\n{'n': 5}\n"
    [repair] = recorder.requests[1].prompts
    assert repair.startswith("bad\n")
    assert '{"n": "x"}' in repair
    assert "data.n must be integer" in repair
    assert len(recorder.requests) == 4


def test_answer_that_never_fits_is_an_error_with_its_text(directory: Path) -> None:
    """After one repair there is an exception, typed, that carries the reply; others are kept."""
    recorder = Recorder(lambda prompt: "no idea" if "bad" in prompt else '{"n": 1}')
    with ScriptedBroker(directory, answer=recorder) as broker:
        result, _, _ = broker.run(f"llm_query('bad', json_schema={SCHEMA})")
        _, stdout, _ = broker.run(
            "try:\n"
            f"    llm_query_batched(['a', 'bad'], json_schema={SCHEMA})\n"
            "except QueryBatchError as error:\n"
            "    print(error.answers, [(e.reason, e.text) for e in error.exceptions])\n"
            f"x = llm_query_batched(['bad'], json_schema={SCHEMA}, return_errors=True)\n"
            "print(type(x[0]).__name__)"
        )
        _, again, _ = broker.run(
            "try:\n"
            f"    await llm_query_async('bad', json_schema={SCHEMA})\n"
            "except QueryError as error:\n"
            "    print(error.text)"
        )

    assert result.error.type_name == "AnswerFormatError"
    assert "does not fit the schema: it is not JSON" in result.error.message
    assert stdout == b"[{'n': 1}, None] [('bad_format', 'no idea')]\nAnswerFormatError\n"
    assert again == b"no idea\n"
    assert len(recorder.requests) == 8  # each but the last prompts of batches twice


def test_failed_query_is_not_repaired(directory: Path) -> None:
    """A model that did not answer is not asked to mend its answer."""
    recorder = Recorder(lambda _prompt: refused(pb.QueryError.REASON_MODEL_FAILED, "down"))
    with ScriptedBroker(directory, answer=recorder) as broker:
        result, _, _ = broker.run(f"llm_query('q', json_schema={SCHEMA})")

    assert result.error.type_name == "ModelFailedError"
    assert len(recorder.requests) == 1


@pytest.mark.parametrize(
    ("schema", "advice"),
    [
        ("[1]", "json_schema takes a dict, not list"),
        ("{'type': 'nothing'}", "json_schema is no JSON Schema"),
        ("{'a': {1, 2}}", "json_schema is not JSON"),
        ("'[1]'", "json_schema is a JSON object"),
        ("{'$ref': 'http://127.0.0.1:9/x'}", "json_schema is no JSON Schema"),
        ("{'pattern': '('}", "json_schema is no JSON Schema"),
        ("{'const': 'x' * 30_000}", "at most 20,000"),
    ],
)
def test_bad_schema_is_refused_before_anything_is_sent(
    directory: Path, schema: str, advice: str
) -> None:
    """What is no JSON Schema is a mistake of the cell, and costs nothing."""
    recorder = Recorder(lambda _prompt: "{}")
    with ScriptedBroker(directory, answer=recorder) as broker:
        result, _, _ = broker.run(f"llm_query('q', json_schema={schema})")

    assert result.outcome == pb.OUTCOME_RAISED
    assert advice in result.error.message
    assert recorder.requests == []


def test_child_run_is_asked_with_its_context(directory: Path) -> None:
    """Question and context go out apart, and the context says what it is."""
    recorder = Recorder(lambda prompt: f"child: {prompt}")
    with ScriptedBroker(directory, answer=recorder) as broker:
        _, stdout, _ = broker.run(
            "print(rlm_query('who?', 'a téxt'))\n"
            "print(rlm_query('sum up what follows: …'))\n"
            "print(rlm_query('which?', [{'name': 'a', 'text': 'bcd'}]))\n"
            "print(rlm_query('how many?', {'k': [1, 2]}))\n"
            "print(rlm_query('first?', ['ab', 'c']))"
        )

    assert stdout == b"child: who?\nchild: \nchild: which?\nchild: how many?\nchild: first?\n"
    assert all(request.recurse for request in recorder.requests)
    contexts = [request.child_context for request in recorder.requests]
    assert [context.kind for context in contexts] == [
        pb.CONTEXT_KIND_TEXT,
        pb.CONTEXT_KIND_TEXT,
        pb.CONTEXT_KIND_DOCUMENTS,
        pb.CONTEXT_KIND_JSON,
        pb.CONTEXT_KIND_TEXTS,
    ]
    assert contexts[0].data == "a téxt".encode()
    assert contexts[1].data == "sum up what follows: …".encode()
    assert json.loads(contexts[3].data) == {"k": [1, 2]}
    assert (contexts[4].total_chars, list(contexts[4].part_lengths)) == (3, [2, 1])


def test_child_runs_of_a_batch_are_open_together(directory: Path) -> None:
    """Each is a request of its own, so that each can take its time."""
    barrier = threading.Barrier(3, timeout=20)

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        barrier.wait()
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        _, stdout, _ = broker.run("print(rlm_query_batched(['a', 'b', 'c'], ['x', 'y', 'z']))")

    assert stdout == b"['echo: a', 'echo: b', 'echo: c']\n"


def test_large_context_of_a_child_run_goes_in_parts(directory: Path) -> None:
    """What does not fit a message arrives in order before the query that names it."""
    recorder = Recorder(lambda prompt: prompt)
    with ScriptedBroker(directory, answer=recorder) as broker:
        result, stdout, _ = broker.run(
            "big = ''.join(chr(65 + i) * 2_000_000 for i in range(5))\n"
            "print(rlm_query_batched(['a', 'b'], [big, big[::-1]]))"
        )

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert stdout == b"['a', 'b']\n"
    held: dict[str, bytes] = {}
    whole: dict[str, bytes] = {}
    for request in recorder.requests:
        assert request.ByteSize() <= 4 * 2**20
        if request.HasField("context_part"):
            part = request.context_part
            held[part.context_id] = held.get(part.context_id, b"")
            assert part.offset_bytes == len(held[part.context_id])
            assert len(held) == 1  # one context is under way at a time
            held[part.context_id] += part.data
        else:
            whole[request.prompts[0]] = held.pop(request.child_context.context_id)
    big = b"".join(bytes([65 + index]) * 2_000_000 for index in range(5))
    assert whole == {"a": big, "b": big[::-1]}


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("rlm_query(['a'])", "takes a string, not list"),
        ("rlm_query('q', 7)", "is a str, a list or a dict, not int"),
        ("rlm_query('q', [{1, 2}])", "holds what JSON cannot"),
        ("rlm_query('q', 'x' * 1001)", "has at most 1,000 bytes; pass a part of it"),
        ("rlm_query('q', 'é' * 501)", "has at most 1,000 bytes; pass a part of it"),
        ("rlm_query_batched(['a', 'b'], ['x'])", "one context for each of the 2 prompts"),
        ("rlm_query_batched(['a', 'b'], 'xy')", "one context for each of the 2 prompts"),
    ],
)
def test_misused_child_run_says_what_to_do(directory: Path, source: str, advice: str) -> None:
    """A wrong call is refused before anything is sent, with a sentence that helps."""
    recorder = Recorder(lambda prompt: prompt)
    with ScriptedBroker(directory, answer=recorder, child_context_bytes=1_000) as broker:
        result, _, _ = broker.run(source)

    assert result.outcome == pb.OUTCOME_RAISED
    assert advice in result.error.message
    assert recorder.requests == []


def test_notice_is_printed_once_for_a_call(directory: Path) -> None:
    """What is to be known of an answer is on standard error, and the answer is as it is."""

    def reply(prompt: str) -> pb.QueryAnswer:
        return pb.QueryAnswer(text=prompt, notice="no child run can be started from here")

    with ScriptedBroker(directory, answer=Recorder(reply)) as broker:
        _, stdout, stderr = broker.run("print(llm_query_batched(['a', 'b']))")

    assert stdout == b"['a', 'b']\n"
    assert stderr == b"note: no child run can be started from here\n"


def test_tool_is_called_with_json_and_returns_json(directory: Path) -> None:
    """Arguments cross as JSON and results come back as values, from the start of the run on."""
    recorder = Recorder(lambda prompt: json.dumps({"sent": json.loads(prompt)}))
    with ScriptedBroker(directory, answer=recorder) as broker:
        broker.begin_run(order="(order_id: int, *, full: bool = False) -> dict")
        _, stdout, _ = broker.run(
            "print(order(7, full=True))\nprint(order.__name__, '|', order.__doc__)"
        )

    assert stdout.decode().splitlines()[0] == ("{'sent': {'args': [7], 'kwargs': {'full': True}}}")
    assert "order | order(order_id: int, *, full: bool = False) -> dict" in stdout.decode()
    assert recorder.requests[0].tool_name == "order"


def test_tool_that_fails_raises_its_own_class(directory: Path) -> None:
    """A cell can tell a function that failed from a model that did."""
    recorder = Recorder(lambda _: refused(pb.QueryError.REASON_TOOL_FAILED, "order: no such order"))
    with ScriptedBroker(directory, answer=recorder) as broker:
        broker.begin_run(order="()")
        result, _, _ = broker.run("order()")
        _, stdout, _ = broker.run(
            "try: order()\nexcept QueryError as error: print(error.reason, error)"
        )
        bad, _, _ = broker.run("order({1, 2})")

    assert result.error.type_name == "ToolError"
    assert stdout == b"tool_failed order: no such order\n"
    assert "takes what JSON can hold" in bad.error.message


def test_tools_are_restored_and_end_with_their_run(directory: Path) -> None:
    """A cell that rebinds a tool spoils it for itself alone; the next run has its own."""
    recorder = Recorder(lambda _: "1")
    with ScriptedBroker(directory, answer=recorder) as broker:
        broker.begin_run(first="()")
        broker.run("first = None\nx = 5")
        _, kept, _ = broker.run("print(first(), x)")
        broker.begin_run(second="()")
        _, gone, _ = broker.run("print('first' in globals(), second(), x)")

    assert (kept, gone) == (b"1 5\n", b"False 1 5\n")


def test_budget_is_what_the_orchestrator_says(directory: Path) -> None:
    """What is left is asked for anew each time, and is a dict."""
    recorder = Recorder(lambda _: '{"usd": null, "queries": 7}')
    with ScriptedBroker(directory, answer=recorder) as broker:
        result, stdout, _ = broker.run("print(budget()['queries'], budget())")

    assert stdout == b"7 {'usd': None, 'queries': 7}\n"
    assert {request.tool_name for request in recorder.requests} == {"budget"}
    assert result.usage.query_count == 0


def test_run_begins_with_an_empty_answer(directory: Path) -> None:
    """What an earlier run answered is not the draft of the next; variables stay."""
    with ScriptedBroker(directory) as broker:
        broker.begin_run()
        broker.run("x = 5\nanswer['extra'] = 1\nFINAL('old')")
        broker.begin_run()
        result, stdout, _ = broker.run("print(x, answer)")

    assert (result.answer.content, result.answer.is_ready) == ("", False)
    assert stdout == b"5 {'content': '', 'ready': False}\n"


@pytest.mark.parametrize(
    "end", ["import os\nos._exit(3)", "import os, signal\nos.kill(os.getpid(), 9)"]
)
def test_cell_that_dies_first_in_a_run_leaves_no_answer_of_the_run_before(
    directory: Path, end: str
) -> None:
    """The checkpoint that takes over is of this run, and so is what is reported."""
    with ScriptedBroker(directory, policy=pb.LANGUAGE_POLICY_OPEN) as broker:
        broker.begin_run()
        broker.bind(b"text", kind=pb.CONTEXT_KIND_TEXT)
        broker.run("x = 5\nFINAL('old')")
        broker.begin_run(tool="()")
        died, _, _ = broker.run(end)
        result, stdout, _ = broker.run("print(x, callable(tool), answer['content'] == '')")

    assert (died.outcome, died.state) == (pb.OUTCOME_KILLED, pb.VARIABLE_STATE_ROLLED_BACK)
    assert died.answer.content == ""
    assert stdout == b"5 True True\n"
    assert result.answer.content == ""


def test_base_that_takes_over_has_the_tools_of_the_run(directory: Path) -> None:
    """Where all variables are lost, the session goes on as its present run was begun."""
    with ScriptedBroker(directory, policy=pb.LANGUAGE_POLICY_OPEN) as broker:
        broker.begin_run()
        broker.bind(b"text", kind=pb.CONTEXT_KIND_TEXT)
        broker.run("import threading, time\nFINAL('old')")
        broker.begin_run(tool="()")
        # A thread that lives keeps a checkpoint from being left after the next cell.
        broker.run(
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nx = 1"
        )
        lost, _, _ = broker.run("import os\nos._exit(3)")
        result, stdout, _ = broker.run("print('x' in globals(), callable(tool), context)")

    assert lost.state == pb.VARIABLE_STATE_LOST
    assert stdout == b"False True text\n"
    assert result.answer.content == ""


def test_context_has_further_names(directory: Path) -> None:
    """One value, several names, each restored; a later context takes over the shared one."""
    with ScriptedBroker(directory) as broker:
        broker.begin_run()
        broker.bind(b"one", kind=pb.CONTEXT_KIND_TEXT, name="context_0", aliases=["context"])
        _, first, _ = broker.run("print(context is context_0, context)\ncontext = context_0 = 3")
        broker.bind(b"two", kind=pb.CONTEXT_KIND_TEXT, name="context_1", aliases=["context"])
        _, second, _ = broker.run("print(context, context_0, context_1)")

    assert (first, second) == (b"True one\n", b"two one two\n")


def test_history_is_there_from_the_first_run_on(directory: Path) -> None:
    """A cell that looks for earlier runs finds an empty list where there are none."""
    with ScriptedBroker(directory) as broker:
        broker.begin_run()
        _, none, _ = broker.run("print(history)")
        broker.bind(
            json.dumps([{"role": "user", "content": "q"}]).encode(),
            kind=pb.CONTEXT_KIND_MESSAGES,
            name="history",
        )
        result, one, _ = broker.run("print(history[0]['content'])")

    assert (none, one) == (b"[]\n", b"q\n")
    assert "history" not in {variable.name for variable in result.variables}
