from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from support.broker_host import PATIENCE_S, HangingQueries, until
from support.hostile_broker import Hostile, hostile
from support.scripted_worker import WALLS

from orchestrator.broker.context_place import CONTEXT_NAME
from orchestrator.broker.ending import EndKind
from orchestrator.broker.order import ExcessError
from orchestrator.broker_process.frames import Said, Told
from orchestrator.broker_process.query_frames import read_answers
from orchestrator.broker_process.setup_frames import wall_fields
from orchestrator.context import encode_context
from orchestrator.domain import Outcome, OutputStream
from orchestrator.errors import ProtocolViolationError, SandboxLostError, SandboxStartError
from orchestrator.limits import CellLimits, QueryLimits

#: The fields of a result of a cell that did nothing.
RESULT: dict[str, Any] = {
    "outcome": "succeeded",
    "state": "kept",
    "sizes": [0, 0, 0, 0, 0],
    "stdout": {"total_bytes": 0, "dropped_bytes": 0},
    "stderr": {"total_bytes": 0, "dropped_bytes": 0},
    "is_ready": False,
    "variables": [],
    "wall_s": 0.0,
    "cpu_s": 0.0,
    "peak_memory_bytes": 0,
    "query_count": 0,
}
QUERY: dict[str, Any] = {
    "number": 1,
    "query_id": "q1",
    "model_alias": None,
    "kind": "plain",
    "tool_name": "",
    "sizes": [1, 0],  # a prompt, and a schema that is none
    "context": None,
}
CONTEXT: dict[str, Any] = {"kind": "text", "total_chars": 1, "part_lengths": [1], "size": 1}

#: What a process that has been taken over says while a cell runs, and the words of the rule.
Attack = Callable[[Hostile], None]
ATTACKS: dict[str, tuple[Attack, str]] = {
    "result of no shape": (lambda host: host.say(Said.RESULT), "sizes is a list"),
    "result that is longer than its texts": (
        lambda host: host.say(Said.RESULT, RESULT, body=b"x"),
        "and nothing else",
    ),
    "result of no outcome": (
        lambda host: host.say(Said.RESULT, RESULT | {"outcome": "fine"}),
        "outcome is one of",
    ),
    "printed text over the limit": (
        lambda host: host.say(
            Said.RESULT, RESULT | {"sizes": [1000, 0, 0, 0, 0]}, body=b"x" * 1000
        ),
        "what a cell printed has at most",
    ),
    "answer over the limit": (
        lambda host: host.say(Said.RESULT, RESULT | {"sizes": [0, 0, 0, 0, 65]}, body=b"x" * 65),
        "an answer has at most 64 bytes",
    ),
    "result larger than any can be": (
        lambda host: host.say(Said.RESULT, RESULT, body=b"x" * 2**20),
        "a frame of kind 107 has at most",
    ),
    "variable that is no identifier": (
        lambda host: host.say(Said.RESULT, RESULT | {"variables": [["a b", "int", None]]}),
        "is an identifier",
    ),
    "variable's type of half a character": (
        # Escaped: a header is UTF-8, and only JSON's own way to spell it can smuggle it in.
        lambda host: host.say_raw(
            Said.RESULT, json.dumps(RESULT | {"variables": [["x", "\ud800", 1]]}).encode()
        ),
        "text that UTF-8 can hold",
    ),
    "usage that is no number": (
        lambda host: host.say(Said.RESULT, RESULT | {"cpu_s": float("nan")}),
        "cpu_s is finite",
    ),
    "too many variables": (
        lambda host: host.say(Said.RESULT, RESULT | {"variables": [["x", "int", None]] * 201}),
        "at most 200 items",
    ),
    "negative usage": (
        lambda host: host.say(Said.RESULT, RESULT | {"wall_s": -1}),
        "finite and not negative",
    ),
    "output nobody asked for": (
        lambda host: host.say(Said.OUTPUT, {"stream": "stdout"}, body=b"x"),
        "where somebody watches",
    ),
    "second attachment": (
        lambda host: host.say(Said.ATTACHED, wall_fields(WALLS)),
        "a worker attaches once",
    ),
    "second place to listen": (
        lambda host: host.say(Said.LISTENING, {"walls": []}),
        "says once that it listens",
    ),
    "context taken that is not bound": (
        lambda host: host.say(Said.PIECE_TAKEN),
        "while one is bound",
    ),
    "end that nobody wanted": (lambda host: host.say(Said.CANCELLED), "by whoever made it"),
    "pong without a ping": (lambda host: host.say(Said.PONG), "answers a ping"),
    "frame of the other side": (lambda host: host.link.send(Told.RUN), "a kind that is known"),
    "query without a prompt": (
        lambda host: host.say(Said.QUERY, QUERY | {"sizes": []}),
        "at least one prompt",
    ),
    "query of more prompts than allowed": (
        lambda host: host.say(Said.QUERY, QUERY | {"sizes": [1] * 6}, body=b"x" * 6),
        "at most 5 items",
    ),
    "query of a longer prompt than allowed": (
        lambda host: host.say(Said.QUERY, QUERY | {"sizes": [11, 0]}, body=b"x" * 11),
        "at most 10 characters",
    ),
    "query of a longer schema than any": (
        lambda host: host.say(Said.QUERY, QUERY | {"sizes": [1, 20_001]}, body=b"x" * 20_002),
        "a schema has at most 20,000 characters",
    ),
    "query of no kind": (
        lambda host: host.say(Said.QUERY, QUERY | {"kind": "other"}, body=b"x"),
        "kind is one of plain, child_run, tool",
    ),
    "child run without a context": (
        lambda host: host.say(Said.QUERY, QUERY | {"kind": "child_run"}, body=b"x"),
        "a child run, and nothing else, has a context",
    ),
    "context of what is no child run": (
        lambda host: host.say(Said.QUERY, QUERY | {"context": CONTEXT}, body=b"xy"),
        "a child run, and nothing else, has a context",
    ),
    "child run of two prompts": (
        lambda host: host.say(
            Said.QUERY,
            QUERY | {"kind": "child_run", "sizes": [1, 1, 0], "context": CONTEXT},
            body=b"xyz",
        ),
        "a child run has one prompt",
    ),
    "context that is no text": (
        lambda host: host.say(
            Said.QUERY, QUERY | {"kind": "child_run", "context": CONTEXT}, body=b"x\xff"
        ),
        "a context is UTF-8",
    ),
    "context larger than its frame": (
        lambda host: host.say(
            Said.QUERY,
            QUERY | {"kind": "child_run", "context": CONTEXT | {"size": 9}},
            body=b"xy",
        ),
        "size is from 0 to 2",
    ),
    "query with a bad id": (
        lambda host: host.say(Said.QUERY, QUERY | {"query_id": "a b"}, body=b"x"),
        "a query id is 1 to 64",
    ),
    "query whose number goes back": (
        lambda host: host.say(Said.QUERY, QUERY | {"number": 0}, body=b"x"),
        "number is from 1",
    ),
    "cancelling a query that was not made": (
        lambda host: host.say(Said.QUERY_CANCELLED, {"number": 1}),
        "number is from",
    ),
    "log of no level": (
        lambda host: host.say(Said.LOG, {"level": 1000, "logger": "x", "text": "x"}),
        "level is from",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_broken_rule_ends_the_sandbox(attack: str) -> None:
    """A broker's process that breaks a rule is killed, and the caller reads which rule it was."""
    act, words = ATTACKS[attack]
    limits = QueryLimits(batch_prompts=4, prompt_chars=10)
    cell_limits = CellLimits(output_bytes=32, answer_bytes=64)
    async with hostile(query_limits=limits, cell_limits=cell_limits) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        act(host)
        with pytest.raises(ProtocolViolationError, match=words):
            await cell
        await asyncio.wait({host.ended}, timeout=PATIENCE_S)

        assert host.nursery.was_told_to_kill


async def test_kept_rules_control() -> None:
    """The frames that the attacks are made from are taken when they are right."""
    async with hostile() as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.QUERY, QUERY, body=b"?")
        answers = await host.hear(Told.ANSWERS)
        host.say(Said.RESULT, RESULT)

        assert (await cell).outcome is Outcome.SUCCEEDED
        assert read_answers(answers.fields, answers.body) == ["echo: ?"]
        assert not host.nursery.was_told_to_kill


@pytest.mark.parametrize("kind", [Said.QUERY, Said.RESULT, Said.OUTPUT])
async def test_nothing_of_a_cell_while_none_runs(kind: Said) -> None:
    """Outside a cell a broker's process cannot ask, print or end anything."""
    async with hostile() as host:
        host.say(kind, QUERY, body=b"x")
        await host.attachment.wait_for_end()
        with pytest.raises(ProtocolViolationError, match="runs"):
            await host.attachment.run_cell("pass", timeout_s=60)


async def test_query_after_the_result_is_refused_and_unpaid() -> None:
    """From the result on nothing is asked in the name of the cell, whoever still waits for it."""
    queries = HangingQueries()
    async with hostile(queries=queries) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.RESULT, RESULT)
        host.say(Said.QUERY, QUERY, body=b"?")
        await host.attachment.wait_for_end()
        await asyncio.wait({cell})

        assert queries.asked == []


async def test_queries_left_open_are_cancelled_with_their_cell() -> None:
    """A process that ends its cell and leaves a query open leaves nothing to pay for."""
    queries = HangingQueries()
    async with hostile(queries=queries) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.QUERY, QUERY, body=b"?")
        await until(lambda: bool(queries.asked))
        host.say(Said.RESULT, RESULT)
        await cell

        assert queries.cancelled == queries.asked


async def test_repeated_query_id_ends_the_sandbox() -> None:
    """A query id is used once, whatever number it comes under."""
    async with hostile() as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.QUERY, QUERY, body=b"?")
        host.say(Said.QUERY, QUERY | {"number": 2}, body=b"?")
        with pytest.raises(ProtocolViolationError, match="a query id is used once"):
            await cell


async def test_more_open_queries_than_a_sandbox_may_have_end_it() -> None:
    """A process cannot have more requests open at the provider than its sandbox could."""
    queries = HangingQueries()
    async with hostile(queries=queries, query_limits=QueryLimits(concurrent_queries=1)) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        for number in range(1, 6):
            host.say(Said.QUERY, QUERY | {"number": number, "query_id": f"q{number}"}, body=b"?")
        with pytest.raises(ProtocolViolationError, match="no more queries are open"):
            await cell

        assert len(queries.asked) == 4
        assert len(queries.cancelled) == 4


async def test_output_flood_ends_the_sandbox() -> None:
    """A process that forwards more output than any cell may is not listened to any more."""
    seen_bytes = 0

    def count(_stream: OutputStream, data: bytes) -> None:
        nonlocal seen_bytes
        seen_bytes += len(data)

    async with hostile(cell_limits=CellLimits(output_bytes=2**16)) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60, on_output=count))
        await host.hear(Told.RUN)
        for _ in range(4):
            host.say(Said.OUTPUT, {"stream": "stdout"}, body=b"x" * 2**16)
        with pytest.raises(ProtocolViolationError, match="prints no more of stdout"):
            await cell

    assert seen_bytes == 3 * 2**16


async def test_other_walls_than_promised_end_the_sandbox() -> None:
    """A process cannot attach a worker that found other walls than were promised."""
    async with hostile(is_attached=False) as host:
        attaching = asyncio.create_task(host.endpoint.attached(timeout_s=PATIENCE_S))
        await host.hear(Told.AWAIT_WORKER)
        host.say(Said.ATTACHED, wall_fields(WALLS) | {"uid": 0})
        with pytest.raises(ProtocolViolationError, match="found other walls"):
            await attaching


async def test_reason_of_an_end_is_printable() -> None:
    """Whatever a process says of its end, nothing of it acts on a terminal or forges a line."""
    async with hostile() as host:
        host.say(Said.ENDED, {"kind": EndKind.LOST, "reason": "a\n\x1b[31mb\u202ec" + "x" * 20_000})
        await host.attachment.wait_for_end()
        with pytest.raises(SandboxLostError) as caught:
            await host.attachment.run_cell("pass", timeout_s=60)

    assert str(caught.value).startswith("a\\n\\x1b[31mb\\u202ecx")
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [
        (EndKind.REFUSED, SandboxStartError),
        (EndKind.BROKEN, ProtocolViolationError),
        (EndKind.EXCEEDED, ExcessError),
    ],
)
async def test_errors_keep_their_types(kind: EndKind, error_type: type[Exception]) -> None:
    """What ended the stream is raised as the same error as where there is no other process."""
    async with hostile() as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.ENDED, {"kind": kind, "reason": "why"})
        with pytest.raises(error_type, match="why"):
            await cell


async def test_logs_are_printable_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A process writes a bounded number of lines to the log, under our own loggers' names."""
    caplog.set_level(logging.WARNING)
    async with hostile() as host:
        told = {"level": logging.WARNING, "logger": "orchestrator.broker.x", "text": "a\nb\x1b[0m"}
        host.say(Said.LOG, told)
        host.say(Said.LOG, told | {"logger": "root\n"})
        for _ in range(300):
            host.say(Said.LOG, told)
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=60))
        await host.hear(Told.RUN)
        host.say(Said.RESULT, RESULT)
        await cell
    records = [record for record in caplog.records if "broker of" in record.getMessage()]

    assert len(records) == 200
    assert records[0].name == "orchestrator.broker.x"
    assert records[0].getMessage() == "broker of under-test: a\\nb\\x1b[0m"
    assert records[1].name == "orchestrator.broker_process.log_frames"
    assert "logs too much" in records[-1].getMessage()


async def test_result_that_never_comes_is_not_waited_for() -> None:
    """A process that lets a cell's time run out, and says nothing, is killed in the end."""
    async with hostile(cell_limits=CellLimits(grace_s=0.01)) as host:
        cell = asyncio.create_task(host.attachment.run_cell("pass", timeout_s=0.01))
        await host.hear(Told.RUN)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(SandboxLostError, match="no result of cell 1"):
                await cell

        assert host.nursery.was_told_to_kill


async def test_context_is_laid_where_the_sandbox_was_to_see_it() -> None:
    """A process that puts a link in the place of its directory moves nothing to where it leads."""
    context = encode_context("x" * (4 * 2**20))
    async with hostile() as host:
        directory = host.endpoint.socket_directory
        moved, target = directory.with_name("moved"), directory.with_name("target")
        target.mkdir()
        directory.rename(moved)
        directory.symlink_to(target)
        binding = asyncio.create_task(host.attachment.bind_context("context", context))
        await host.hear(Told.BIND_FILE)
        assert (moved / CONTEXT_NAME).stat().st_size == len(context.data)
        host.say(Said.BOUND)
        await binding

        assert not list(target.iterdir())
        assert not list(moved.iterdir())


async def test_context_that_is_a_link_is_not_written_through() -> None:
    """A process that lays a link where a context is to lie has it in pieces, and no file more."""
    async with hostile() as host:
        target = host.endpoint.socket_directory.with_name("target")
        (host.endpoint.socket_directory / CONTEXT_NAME).symlink_to(target)
        binding = asyncio.create_task(
            host.attachment.bind_context("context", encode_context("x" * (2 * 2**20)))
        )
        for _ in range(2):
            await host.hear(Told.PIECE)
            host.say(Said.PIECE_TAKEN)
        host.say(Said.BOUND)
        await binding

        assert not target.exists()


async def test_pieces_wait_for_the_process() -> None:
    """A process that takes nothing has four pieces of a context in its hands, and no more."""
    context = encode_context("x" * (64 * 2**20))
    async with hostile() as host:
        (host.endpoint.socket_directory / CONTEXT_NAME).touch()  # so that it goes in pieces
        binding = asyncio.create_task(host.attachment.bind_context("context", context))
        await host.hear(Told.BIND)
        await asyncio.wait({binding}, timeout=0.5)
        pieces = [frame for frame in _drain(host.told) if frame.kind == Told.PIECE]
        assert len(pieces) == 4
        binding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await binding


def _drain(queue: asyncio.Queue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]
