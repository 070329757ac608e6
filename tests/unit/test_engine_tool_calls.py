"""What becomes of a call of the caller's function: results, failures, time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from support.broker_host import until
from support.sample_tools import Colour, Item, Order, Shop, call

from orchestrator.domain import QueryFailure, QueryFailureReason
from orchestrator.engine.tools import Tool, Toolbox
from orchestrator.errors import ToolError

WORDS = "key sk-1 in /etc/shop"


class Odd(BaseException):
    """What no `except Exception` catches."""


@dataclass
class Picky:
    """An argument whose own code raises."""

    number: int

    def __post_init__(self) -> None:
        """Raises by number."""
        errors = {1: RuntimeError(WORDS), 2: ToolError("two is taken"), 3: ValueError("not three")}
        if self.number in errors:
            raise errors[self.number]


class Gate:
    """A synchronous function that hangs until it is let go."""

    def __init__(self) -> None:
        """Begins shut."""
        self.opened = threading.Event()
        self.entered = threading.Event()

    def wait(self) -> str:
        """Hangs."""
        self.entered.set()
        assert self.opened.wait(10)
        return "let go"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A function that hangs, whose thread ends with the test."""
    gate = Gate()
    yield gate
    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name.startswith("tool-"):
            thread.join(5)


def raising(error: BaseException) -> Tool:
    """Makes a synchronous tool that raises."""

    def fail() -> None:
        raise error

    return Tool(function=fail)


def raising_later(error: BaseException) -> Tool:
    """Makes an asynchronous tool that raises."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    return Tool(function=fail)


def giving(value: object) -> Tool:
    """Makes a tool that returns something."""
    return Tool(function=lambda: value, name="give")


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (None, None),
        (Order(number=1, tags=["a"]), {"number": 1, "tags": ["a"]}),
        ([Item(name="a")], [{"name": "a", "price": 1.0}]),
        ({"day": datetime(2026, 1, 2, tzinfo=UTC)}, {"day": "2026-01-02T00:00:00Z"}),
        (Colour.RED, "red"),
        (b"bytes", "bytes"),
        ({3}, [3]),
        ((1, "two"), [1, "two"]),
        ({1: "one"}, {"1": "one"}),
        ((number for number in range(3)), [0, 1, 2]),
        ('"quoted" \x00 é', '"quoted" \x00 é'),
        (float("inf"), float("inf")),
    ],
    ids=repr,
)
async def test_result_arrives_as_what_json_makes_of_it(value: object, result: object) -> None:
    """Models, dates and sets need no code of the caller's to become JSON."""
    assert await call(giving(value)) == result


async def test_nan_is_not_turned_into_nothing() -> None:
    """A figure that is none stays one: `null` would be read as missing."""
    assert repr(await call(giving([float("nan")]))) == "[nan]"


def recursive() -> list[Any]:
    """Returns a list that holds itself."""
    items: list[Any] = []
    items.append(items)
    return items


def failing_generator() -> Iterator[int]:
    """Raises in the middle."""
    yield 1
    raise KeyError(WORDS)


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (Shop(1), "Shop"),
        (recursive(), "list"),
        (b"\xff\xfe", "bytes"),
        ({"text": "\ud800"}, "dict"),
        (failing_generator(), "generator"),
        (lambda: 1, "function"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_result_that_json_cannot_hold_is_a_failure(value: object, type_name: str) -> None:
    """The cell learns what came instead; nothing of the object itself is shown."""
    assert await call(giving(value)) == QueryFailure(
        reason=QueryFailureReason.TOOL_FAILED,
        message=f"give returned a {type_name}, which JSON cannot hold",
    )


async def test_result_has_a_longest() -> None:
    """Two MiB of JSON fit a message to the sandbox; one byte more is a failure that says so."""
    fits = "x" * (2 * 2**20 - 2)

    assert await call(giving(fits)) == fits
    assert await call(giving(fits + "x")) == QueryFailure(
        reason=QueryFailureReason.TOO_LARGE,
        message="give returned 2,097,153 bytes, at most 2,097,152 are taken; ask it for less at "
        "a time",
    )


async def test_huge_result_is_a_failure_and_not_the_end() -> None:
    """A function that returns a hundred megabytes costs the run that one call."""
    failure = await call(giving("x" * 10**8))

    assert failure.reason is QueryFailureReason.TOO_LARGE
    assert "returned 100,000,002 bytes" in failure.message


@pytest.mark.parametrize("tool_of", [raising, raising_later])
async def test_what_a_tool_wants_to_say_reaches_the_cell(
    tool_of: Callable[[BaseException], Tool],
) -> None:
    """`ToolError` is how a function tells the model what is wrong; a novel is cut."""
    assert await call(tool_of(ToolError("no order has that number"))) == QueryFailure(
        reason=QueryFailureReason.TOOL_FAILED, message="fail: no order has that number"
    )
    assert len((await call(tool_of(ToolError("x" * 10_000)))).message) < 2_100


ERRORS = [
    KeyError(WORDS),
    OSError(2, WORDS, "/etc/shop"),
    StopIteration(WORDS),
    StopAsyncIteration(WORDS),
    TimeoutError(WORDS),
    MemoryError(WORDS),
    SystemExit(WORDS),
    asyncio.CancelledError(WORDS),
    Odd(WORDS),
    BaseExceptionGroup(WORDS, [Odd(WORDS)]),
]


@pytest.mark.parametrize(
    ("tool_of", "error"),
    [
        *[(raising, error) for error in (*ERRORS, KeyboardInterrupt(WORDS), GeneratorExit())],
        *[(raising_later, error) for error in ERRORS],
    ],
    ids=lambda value: value.__name__ if callable(value) else type(value).__name__,
)
async def test_what_a_tool_says_otherwise_stays_in_the_log(
    tool_of: Callable[[BaseException], Tool], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a function raises, the cell gets a failure without its text, and the run goes on."""
    caplog.set_level(logging.WARNING)
    failure = await call(tool_of(error))

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.TOOL_FAILED
    assert failure.message.startswith("fail failed with ")
    assert failure.message.endswith("; go on without it, or ask otherwise")
    assert not any(secret in failure.message for secret in ("sk-1", "/etc"))
    assert type(error).__name__ in caplog.text
    assert WORDS in caplog.text or not error.args


async def test_interrupt_in_an_asynchronous_tool_is_the_users() -> None:
    """It runs in the orchestrator's own thread, and Ctrl-C is not a tool's to take."""
    with pytest.raises(KeyboardInterrupt):
        await call(raising_later(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (1, "take failed with RuntimeError; go on without it, or ask otherwise"),
        (2, "take: two is taken"),
        (3, ": it: Value error, not three"),
    ],
)
async def test_code_of_an_argument_is_held_to_the_same(number: int, sentence: str) -> None:
    """A type of the caller's that raises while it is made says no more than the function would."""

    def take(it: Picky) -> int:
        return it.number

    failure = await call(take, {"number": number})

    assert failure.message.endswith(sentence)
    assert await call(take, {"number": 4}) == 4


async def test_synchronous_tool_does_not_hold_up_the_loop(gate: Gate) -> None:
    """Other runs go on while a function waits for its database."""
    task = asyncio.ensure_future(call(gate.wait))
    await until(gate.entered.is_set)  # the loop went on, or nobody would look
    gate.opened.set()

    assert await task == "let go"


async def test_asynchronous_tool_runs_in_the_callers_loop() -> None:
    """It may use the caller's own clients, which belong to that loop."""

    async def whose() -> bool:
        return asyncio.get_running_loop() is loop and threading.current_thread() is thread

    loop, thread = asyncio.get_running_loop(), threading.current_thread()

    assert await call(whose) is True


async def test_synchronous_tool_that_hangs_is_not_waited_for(gate: Gate) -> None:
    """The cell learns within the tool's time that nothing came."""
    assert await call(Tool(function=gate.wait, timeout_s=0.02)) == QueryFailure(
        reason=QueryFailureReason.TOOL_FAILED, message="wait gave no result within 0.02 s"
    )
    assert not gate.opened.is_set()


@contextlib.asynccontextmanager
async def noted(ends: list[str]) -> AsyncIterator[None]:
    """Notes how what is inside ends."""
    try:
        yield
    except BaseException as error:
        ends.append(type(error).__name__)
        raise


async def test_asynchronous_tool_that_hangs_is_cancelled() -> None:
    """Its request is ended, and not merely forgotten."""
    ends: list[str] = []

    async def hang() -> None:
        async with noted(ends):
            await asyncio.Event().wait()

    failure = await call(Tool(function=hang, timeout_s=0.02))

    assert failure.message == "hang gave no result within 0.02 s"
    assert ends == ["CancelledError"]


async def test_cancelling_a_call_cancels_an_asynchronous_tool() -> None:
    """Nobody waits for the answer of a cell that has ended."""
    ends: list[str] = []
    entered = asyncio.Event()

    async def hang() -> None:
        async with noted(ends):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(call(hang))
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert ends == ["CancelledError"]


async def test_cancelling_a_call_leaves_a_synchronous_tool_behind(gate: Gate) -> None:
    """A thread cannot be ended, and is not waited for either."""
    task = asyncio.ensure_future(call(gate.wait))
    await until(gate.entered.is_set)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert not gate.opened.is_set()


def blocked(gate: Gate) -> Iterator[str]:
    """Makes a result that takes for ever to become JSON."""
    yield gate.wait()


@pytest.mark.parametrize("is_async", [False, True])
def test_loop_closes_while_a_tool_hangs(gate: Gate, *, is_async: bool) -> None:
    """A function that never returns does not keep the program from its end, nor speaks up later."""

    async def give() -> Iterator[str]:
        return blocked(gate)

    tool = Tool(function=give if is_async else gate.wait, name="hang", timeout_s=0.02)
    failure = asyncio.run(call(tool))
    [thread] = [thread for thread in threading.enumerate() if thread.name == "tool-hang"]

    assert "gave no result" in failure.message
    assert thread.daemon
    gate.opened.set()
    thread.join(5)
    assert not thread.is_alive()


async def test_calls_do_not_share_what_they_are_given() -> None:
    """A default that can be changed is fresh for each call, and so are the arguments."""

    def collect(item: int, items: list[int] = []) -> list[int]:  # noqa: B006 - the point
        items.append(item)
        return items

    box = Toolbox([collect])
    answers = [await box.call("collect", json.dumps({"args": [n]})) for n in (1, 2)]

    assert answers == ["[1]", "[2]"]
