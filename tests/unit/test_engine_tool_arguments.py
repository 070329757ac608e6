"""What a cell sends to a tool is checked against the tool's own type hints."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from support.sample_tools import (
    Shop,
    bare,
    call,
    day,
    describe,
    gather,
    later,
    priced,
    total,
)

from orchestrator.domain import QueryFailure, QueryFailureReason
from orchestrator.engine.tools import Tool, Toolbox


@pytest.mark.parametrize(
    ("tool", "args", "kwargs", "result"),
    [
        (total, [2.5, 4], {}, 10.0),
        (total, [2.5], {"count": 4}, 10.0),
        (total, [], {"count": 4, "price": 2}, 8.0),
        (total, ["2.5"], {}, 2.5),  # as text a cell has cut out of something
        (describe, [{"number": 7, "tags": ["a"]}], {}, "Order 7 ['a'] <Colour.RED: 'red'> kg"),
        (describe, [{"number": 7}, "blue"], {"unit": "lb"}, "Order 7 [] <Colour.BLUE: 'blue'> lb"),
        (priced, [[{"name": "a"}, {"name": "b", "price": 2.5}]], {}, 3.5),
        (day, ["2026-01-02T03:04:05Z"], {}, "Friday None"),
        (day, ["2026-01-02T03:04:05Z"], {"note": None}, "Friday None"),
        (gather, [1, 2], {"self": "a", "function": "b"}, [[1, 2], {"self": "a", "function": "b"}]),
        (gather, [], {}, [[], {}]),
        (bare, [{"any": ["thing", None]}], {"other": 1}, [{"any": ["thing", None]}, 1]),
        (later, [1], {}, 2),
        (Shop(3).price, [2], {}, 6),
        (Tool(function=Shop(3), name="price_of"), ["2"], {}, 6),
        (Tool(function=functools.partial(total, 3.0), name="thrice"), ["2"], {}, 6.0),
        (Tool(function=functools.partial(total, count=3), name="thrice"), ["2"], {}, 6.0),
        (Tool(function=functools.partial(total, count=3), name="thrice"), [2], {"count": 1}, 2.0),
        (Tool(function=functools.lru_cache(total), name="cached"), [2], {}, 2.0),
        (Tool(function=lambda text: text[::-1], name="turned"), ["abc"], {}, "cba"),
    ],
)
async def test_arguments_are_what_the_type_hints_say(
    tool: Tool | Callable[..., Any], args: list[Any], kwargs: dict[str, Any], result: object
) -> None:
    """JSON becomes dates, models and enumerations; functions of all kinds are called alike."""
    assert await call(tool, *args, **kwargs) == result


@pytest.mark.parametrize(
    ("tool", "args", "kwargs", "words"),
    [
        (total, [], {}, ["total(price: float, count: int = 1) -> float: ", "price: Missing"]),
        (total, [1, "two"], {}, ["count: Input should be a valid integer"]),
        (total, [1, 2, 3], {}, ["Unexpected positional argument"]),
        (total, [1], {"amount": 2}, ["amount: Unexpected keyword argument"]),
        (total, [1], {"price": 2}, ["price: Got multiple values for argument"]),
        (describe, ["seven"], {}, ["order: Input should be a dictionary or an instance of Order"]),
        (describe, [{"number": 7.5}], {}, ["order.number: Input should be a valid integer"]),
        (describe, [{"number": 7}, "green"], {}, ["colour: Input should be 'red' or 'blue'"]),
        (describe, [{"number": 7}], {"unit": "t"}, ["unit: Input should be 'kg' or 'lb'"]),
        (priced, [[{"name": "a"}, {}]], {}, ["items.1.name: Field required"]),
        (day, ["tomorrow"], {}, ["at: Input should be a valid datetime"]),
        (gather, [1, "x"], {"word": 5}, ["valid integer", "word: Input should be a valid string"]),
        (bare, [], {"value": 1}, ["value: "]),
        (later, ["x"], {}, ["number: Input should be a valid integer"]),
        (Shop(3).price, ["x"], {}, ["number: Input should be a valid integer"]),
        (Tool(function=Shop(3), name="price_of"), ["x"], {}, ["number: Input should be a valid"]),
        (Tool(function=functools.partial(total, 3.0), name="thrice"), ["x"], {}, ["count: Input"]),
        (total, [1, "\ud800"], {}, ["count: "]),
        (total, [1], {"\ud800": 2}, ["unicode"]),
        (total, [1, float("nan")], {}, ["count: Input should be a finite number"]),
    ],
)
async def test_wrong_arguments_are_named_with_what_was_expected(
    tool: Tool | Callable[..., Any], args: list[Any], kwargs: dict[str, Any], words: list[str]
) -> None:
    """The model reads which parameter is wrong and how, and calls again."""
    failure = await call(tool, *args, **kwargs)

    assert isinstance(failure, QueryFailure)
    assert failure.reason is QueryFailureReason.TOOL_FAILED
    for part in words:
        assert part in failure.message
    assert "pydantic" not in failure.message


async def test_function_is_not_called_with_wrong_arguments() -> None:
    """What a cell sends is checked before anything of the caller's runs."""
    calls: list[int] = []

    def note(number: int) -> None:
        calls.append(number)

    await call(note, "x")
    await call(note, "5")

    assert calls == [5]


async def test_many_mistakes_are_counted_and_cut() -> None:
    """A list of a thousand wrong items does not fill the model's window with a thousand lines."""
    failure = await call(priced, [{"name": 1, "price": "y" * 5_000}] * 500)

    assert failure.message.endswith("; and 995 more")
    assert len(failure.message) < 2_000


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "null",
        "[1]",
        '"text"',
        '{"args": 5}',
        '{"kwargs": []}',
        '{"args": [1]',
        "[" * 100_000,
        '{"args": [' + "9" * 10_000 + "]}",
        "\x00",
    ],
    ids=lambda text: text[:12],
)
async def test_what_no_cell_of_ours_would_send_is_refused(sent: str) -> None:
    """A hostile cell can send any text in place of arguments; it is told so and nothing runs."""
    failure = await Toolbox([gather]).call("gather", sent)

    assert failure == QueryFailure(
        reason=QueryFailureReason.TOOL_FAILED,
        message="gather: its arguments are not JSON as cells send it",
    )
