"""Whoever waits for an answer gets it, however many wait, and whoever of them leaves first."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sandbox_image.repl.channel import CLAIMS, FrameKind, FrameReader, encode
from sandbox_image.repl.mailbox import Interrupts, Mailbox

PATIENCE_S = 20.0


class Waiters:
    """A mailbox, threads that wait at it, and the worker's end."""

    def __init__(self) -> None:
        """Begins with nobody waiting."""
        self.worker, near = socket.socketpair()
        self.worker.settimeout(PATIENCE_S)
        self.interrupts = Interrupts()
        self.mailbox = Mailbox(near, self.interrupts)
        self.threads = ThreadPoolExecutor(100)

    def close(self) -> None:
        """Ends the threads that still wait, then both ends."""
        self.mailbox.abandon_replies()
        self.say("nobody's")  # whoever reads has to look
        self.threads.shutdown()
        self.mailbox.connection.close()
        self.worker.close()

    def wait_for(self, query_id: str) -> Future[object]:
        """Has a thread wait for a reply."""
        self.mailbox.expect_reply(query_id)
        return self.threads.submit(lambda: self.mailbox.wait_for_reply(query_id))

    def say(self, query_id: str) -> None:
        """Answers a query."""
        self.worker.sendall(encode(FrameKind.REPLY, {"query_id": query_id, "answers": []}))

    def command(self, cell_id: int) -> None:
        """Wants a cell to be run."""
        self.worker.sendall(encode(FrameKind.RUN, {"cell_id": cell_id, "source": ""}))


@pytest.fixture
def waiters() -> Iterator[Waiters]:
    """Nobody yet."""
    made = Waiters()
    yield made
    made.close()


def reply(query_id: str) -> object:
    """What `Waiters.say` says."""
    return {"query_id": query_id, "answers": []}


@pytest.mark.parametrize("seed", range(5))
def test_every_thread_gets_its_own(waiters: Waiters, seed: int) -> None:
    """In whatever order replies come, one by one or many at once."""
    order = [f"1-{number}" for number in range(64)]
    waiting = {query_id: waiters.wait_for(query_id) for query_id in order}
    chance = random.Random(seed)  # noqa: S311 - an order of events
    chance.shuffle(order)

    for query_id in order:
        waiters.say(query_id)
        if chance.random() < 0.3:
            time.sleep(0.002)

    for query_id, future in waiting.items():
        assert future.result(PATIENCE_S) == reply(query_id)


def test_who_waits_is_served_after_all_others_have_left(waiters: Waiters) -> None:
    """Who reads for all leaves with its reply; one of the rest reads on, each time."""
    waiting = [waiters.wait_for(f"1-{number}") for number in range(20)]

    for number, future in enumerate(waiting):
        waiters.say(f"1-{number}")
        assert future.result(PATIENCE_S) == reply(f"1-{number}")


def test_command_reaches_the_thread_that_runs_cells(waiters: Waiters) -> None:
    """Though another one, left over from a cell, was the first to read."""
    left_over = waiters.wait_for("1-1")
    command = waiters.threads.submit(waiters.mailbox.next_command)

    waiters.command(7)

    assert command.result(PATIENCE_S).json() == {"cell_id": 7, "source": ""}
    assert not left_over.done()
    waiters.say("1-1")
    assert left_over.result(PATIENCE_S) == reply("1-1")


def test_end_of_a_cell_wakes_everyone(waiters: Waiters) -> None:
    """Who follows hears it at once; who reads, with what it reads next."""
    waiting = [waiters.wait_for(f"1-{number}") for number in range(20)]
    time.sleep(0.05)

    waiters.mailbox.abandon_replies()
    waiters.command(2)

    assert [future.result(PATIENCE_S) for future in waiting] == [None] * 20
    assert waiters.mailbox.next_command().json()["cell_id"] == 2


@pytest.mark.parametrize("leads", [True, False], ids=["who reads", "who follows"])
def test_interrupted_wait_leaves_a_reader(waiters: Waiters, *, leads: bool) -> None:
    """An interrupt takes the cell's thread out; the others are served as before."""
    waiters.interrupts.install()
    first = [] if leads else [waiters.wait_for("1-1")]
    main = threading.main_thread().ident
    assert main is not None
    waiters.mailbox.expect_reply("1-2")

    def interrupt() -> None:
        time.sleep(0.1)
        first.append(waiters.wait_for("1-3"))
        time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    try:
        waiters.threads.submit(interrupt)
        with waiters.interrupts.on(), pytest.raises(KeyboardInterrupt):
            waiters.mailbox.wait_for_reply("1-2")
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    waiters.say("1-2")  # nobody's any more
    for query_id in ("1-1", "1-3"):
        waiters.say(query_id)
    for future in first:
        assert isinstance(future.result(PATIENCE_S), dict)


def test_reply_wakes_one_thread_only(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred that wait, one runs: or they would keep one another from working."""
    waiting = {f"1-{number}": waiters.wait_for(f"1-{number}") for number in range(100)}
    time.sleep(0.2)
    woken: list[str] = []
    wake = waiters.mailbox._wake  # noqa: SLF001 - no other way tells it apart but the time it takes

    def note(awaited: str) -> None:
        woken.append(awaited)
        wake(awaited)

    monkeypatch.setattr(waiters.mailbox, "_wake", note)
    asked = list(waiting)[50:60]  # nobody's who reads: that was the first to come
    for query_id in asked:
        waiters.say(query_id)
        assert waiting[query_id].result(PATIENCE_S) == reply(query_id)

    assert woken == asked


def test_thread_and_event_loop_wait_together(waiters: Waiters) -> None:
    """Either reads for the other; a thread that came later is not forgotten."""

    async def ask() -> list[object]:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(
                *(waiters.mailbox.reply(f"1-{number}") for number in range(20))
            )

    for number in range(20):
        waiters.mailbox.expect_reply(f"1-{number}")
    in_loop = waiters.threads.submit(lambda: asyncio.run(ask()))
    time.sleep(0.05)
    in_threads = [waiters.wait_for(f"2-{number}") for number in range(20)]

    for number in range(20):
        waiters.say(f"2-{number}")
        waiters.say(f"1-{number}")

    assert in_loop.result(PATIENCE_S) == [reply(f"1-{number}") for number in range(20)]
    for number, future in enumerate(in_threads):
        assert future.result(PATIENCE_S) == reply(f"2-{number}")


def test_frame_that_is_sent_arrives_whole(waiters: Waiters) -> None:
    """From many threads at once, each longer than the socket holds."""
    prompts = [f"{number}" * 200_000 for number in range(10)]
    sending = [
        waiters.threads.submit(
            waiters.mailbox.send, FrameKind.QUERY, {"prompts": [prompt], "contexts": []}
        )
        for prompt in prompts
    ]
    reader = FrameReader(waiters.worker, most=CLAIMS)

    claims: list[str] = []
    while len(claims) < len(prompts):
        reader.receive()
        while (frame := reader.next_frame()) is not None:
            claims.append(frame.claim()["prompts"][0])

    assert sorted(claims) == sorted(prompts)
    for future in sending:
        future.result(PATIENCE_S)
