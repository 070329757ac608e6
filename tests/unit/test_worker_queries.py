"""Queries of a cell: threads, batches, failures, and what becomes of them when it ends."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.scripted_broker import ScriptedBroker, echo

from rlm_sandbox.v1 import sandbox_pb2 as pb


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rlm", dir="/tmp") as path:
        yield Path(path)


def test_one_query(directory: Path) -> None:
    """The answer's text comes back as a str; the request names the cell and carries the token."""
    seen: list[pb.LlmQueryRequest] = []

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        seen.append(request)
        assert ("rlm-session-token", "0123456789abcdef" * 4) in context.invocation_metadata()
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        result, stdout, _ = broker.run("print(llm_query('hello', model='sub'))")

    assert stdout == b"echo: hello\n"
    assert (seen[0].cell_id, seen[0].model_alias) == (result.cell_id, "sub")
    assert result.usage.query_count == 1


def test_queries_from_threads_are_open_together(directory: Path) -> None:
    """Eight threads wait for one barrier in the broker: they get there only if all are open."""
    barrier = threading.Barrier(8, timeout=20)

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        barrier.wait()
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        _, stdout, _ = broker.run(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    print(list(pool.map(llm_query, [str(i) for i in range(8)])))"
        )

    assert stdout.decode().strip() == str([f"echo: {index}" for index in range(8)])


def test_more_queries_than_may_be_open_wait(directory: Path) -> None:
    """Forty queries with sixteen open at once are all answered."""
    with ScriptedBroker(directory) as broker:
        _, stdout, _ = broker.run(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(20) as pool:\n"
            "    print(len(set(pool.map(llm_query, [str(i) for i in range(40)]))))"
        )

    assert stdout == b"40\n"


def test_batch_larger_than_a_message_is_cut(directory: Path) -> None:
    """A batch over 4 MiB crosses in several requests and comes back as one list, in order."""
    requests: list[int] = []

    def answer(request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
        requests.append(len(request.prompts))
        return pb.LlmQueryReply(
            answers=[pb.QueryAnswer(text=prompt[:2]) for prompt in request.prompts]
        )

    with ScriptedBroker(directory, answer=answer) as broker:
        result, stdout, _ = broker.run(
            "print(llm_query_batched([f'{i:02d}' + 'x' * 400_000 for i in range(20)]))"
        )

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert stdout.decode().strip() == str([f"{index:02d}" for index in range(20)])
    assert sum(requests) == 20
    assert len(requests) > 1


def test_prompt_larger_than_a_message_is_not_sent(directory: Path) -> None:
    """To send it would be an attack: the worker refuses it, and sends the rest of the batch."""
    seen: list[int] = []

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        seen.append(request.ByteSize())
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer, prompt_chars=2**23) as broker:
        _, stdout, _ = broker.run(
            "a, b, c = llm_query_batched(['x', 'x' * (5 * 2**20), 'y'], return_errors=True)\n"
            "print(a, b.reason, c)\n"
            "try:\n    llm_query('x' * (5 * 2**20))\nexcept QueryError as error:\n"
            "    print(error.reason)"
        )

    assert stdout == b"echo: x too_large echo: y\ntoo_large\n"
    assert max(seen) < 4 * 2**20


def test_failed_prompt_raises_its_own_class(directory: Path) -> None:
    """A failed prompt is an exception in the cell and never looks like a text."""

    def answer(_request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
        error = pb.QueryError(
            reason=pb.QueryError.REASON_BUDGET_EXHAUSTED, message="0 queries left"
        )
        return pb.LlmQueryReply(answers=[pb.QueryAnswer(error=error)])

    with ScriptedBroker(directory, answer=answer) as broker:
        result, _, _ = broker.run("llm_query('q')")
        _, stdout, _ = broker.run(
            "try:\n    llm_query('q')\nexcept QueryError as error:\n    print(error.reason, error)"
        )

    assert result.error.type_name == "BudgetExhaustedError"
    assert result.error.message == "0 queries left"
    assert stdout == b"budget_exhausted 0 queries left\n"


def _half_fails(request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
    error = pb.QueryError(reason=pb.QueryError.REASON_MODEL_FAILED, message="down")
    return pb.LlmQueryReply(
        answers=[
            pb.QueryAnswer(error=error) if "bad" in prompt else pb.QueryAnswer(text=prompt)
            for prompt in request.prompts
        ]
    )


def test_failed_batch_carries_the_answers_that_came(directory: Path) -> None:
    """What was paid for is not lost with what failed."""
    with ScriptedBroker(directory, answer=_half_fails) as broker:
        _, stdout, _ = broker.run(
            "try:\n    llm_query_batched(['a', 'bad', 'c'])\n"
            "except QueryBatchError as error:\n"
            "    print(error.answers, [e.reason for e in error.exceptions])"
        )

    assert stdout == b"['a', None, 'c'] ['model_failed']\n"


def test_failed_batch_is_caught_as_a_failed_query_is(directory: Path) -> None:
    """`except QueryError` is what models write around a batch, too."""
    with ScriptedBroker(directory, answer=_half_fails) as broker:
        _, stdout, _ = broker.run(
            "try:\n    llm_query_batched(['a', 'bad'])\n"
            "except QueryError as error:\n"
            "    print(type(error).__name__, error.reason)"
        )

    assert stdout == b"QueryBatchError batch\n"


def test_failed_batch_can_return_errors_in_place(directory: Path) -> None:
    """`return_errors=True` never raises for a prompt that failed."""
    with ScriptedBroker(directory, answer=_half_fails) as broker:
        _, stdout, _ = broker.run(
            "found = llm_query_batched(['a', 'bad'], return_errors=True)\n"
            "print(found[0], type(found[1]).__name__)"
        )

    assert stdout == b"a ModelFailedError\n"


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("llm_query(['a'])", "takes a string, not list"),
        ("llm_query('')", "empty string"),
        ("llm_query('q', 'x' * 100)", "put question and text into one"),
        ("llm_query('a\\ud800')", "lone surrogate at index 1"),
        ("llm_query('x' * 500_001)", "at most 500,000 are allowed"),
        ("llm_query_batched('abc')", "takes a list of strings, not one str"),
        ("llm_query_batched(['a', 3])", "item 1 takes a string, not int"),
        ("llm_query_batched(['a'] * 257)", "at most 256 are allowed"),
    ],
)
def test_misused_query_says_what_to_do(directory: Path, source: str, advice: str) -> None:
    """A wrong call is refused before anything is sent, with a sentence that helps."""

    def answer(_request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
        raise AssertionError("nothing may be sent")

    with ScriptedBroker(directory, answer=answer) as broker:
        result, _, _ = broker.run(source)

    assert result.outcome == pb.OUTCOME_RAISED
    assert advice in result.error.message


def test_open_queries_of_an_ended_cell_are_cancelled(directory: Path) -> None:
    """A thread's query is cancelled on the wire when its cell ends; no answer reaches the next."""
    cancelled = threading.Event()
    opened = threading.Event()

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] != "slow":
            return echo(request, context)
        context.add_callback(cancelled.set)
        opened.set()
        cancelled.wait(20)
        return pb.LlmQueryReply(answers=[pb.QueryAnswer(text="late")])

    with ScriptedBroker(directory, answer=answer) as broker:
        broker.start(
            "import threading, time\ngot = []\n"
            "def ask():\n    try: got.append(llm_query('slow'))\n"
            "    except QueryError as error: got.append(error.reason)\n"
            "threading.Thread(target=ask).start()\nprint('asked')\n"
            "llm_query('until it is open')"
        )
        broker.finish()
        assert opened.wait(20)
        assert cancelled.wait(20)
        deadline_s = time.monotonic() + 10
        stdout = b"[]\n"
        while stdout == b"[]\n" and time.monotonic() < deadline_s:
            _, stdout, _ = broker.run("print(got)")

    assert stdout == b"['cancelled']\n"


def test_interrupt_reaches_a_cell_that_waits_for_an_answer(directory: Path) -> None:
    """A cell blocked on a query can be stopped, and the session goes on."""
    opened, released = threading.Event(), threading.Event()

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] == "never":
            opened.set()
            released.wait(20)
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer) as broker:
        broker.start("llm_query('never')")
        assert opened.wait(20)
        broker.stop()
        result, _, _ = broker.finish()
        released.set()
        _, stdout, _ = broker.run("print(llm_query('again'))")

    assert (result.outcome, result.state) == (pb.OUTCOME_TIMED_OUT, pb.VARIABLE_STATE_KEPT)
    assert stdout == b"echo: again\n"


#: Cells whose queries are open when they are stopped.
STOPPED_CELLS = {
    "one query": "seen = 1\nllm_query('q')",
    "threads": (
        "seen = 1\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    list(pool.map(llm_query, 'abcd'))"
    ),
    "awaited": "seen = 1\nawait llm_query_async('q')",
}


@pytest.mark.parametrize("source", STOPPED_CELLS.values(), ids=STOPPED_CELLS)
def test_cell_is_stopped_although_its_queries_end_first(directory: Path, source: str) -> None:
    """The end of a query may overtake the order to stop its cell: it is not what ends the cell."""
    ended = threading.Semaphore(0)

    def answer(request: pb.LlmQueryRequest, context: grpc.ServicerContext) -> pb.LlmQueryReply:
        if request.prompts[0] != "control":
            context.add_callback(ended.release)
            context.abort(grpc.StatusCode.CANCELLED, "the cell was stopped")
        return echo(request, context)

    with ScriptedBroker(directory, answer=answer, grace_s=5) as broker:
        broker.start(source)
        for _ in range(source.count("abcd") * 3 + 1):
            assert ended.acquire(timeout=20)
        time.sleep(0.3)  # time enough for a cell that hears of it to end
        broker.stop(pb.STOP_REASON_CANCELLED)
        result, _, _ = broker.finish()
        _, stdout, _ = broker.run("print(seen, llm_query('control'))")

    assert (result.outcome, result.state) == (pb.OUTCOME_STOPPED, pb.VARIABLE_STATE_KEPT)
    assert stdout == b"1 echo: control\n"
