"""Functions of a caller's, of all kinds, for tests of what cells can call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel

from orchestrator.domain import QueryFailure
from orchestrator.engine.tools import Tool, Toolbox


class Colour(StrEnum):
    """A closed set of words."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Order:
    """What a cell sends as a dict."""

    number: int
    tags: list[str] = field(default_factory=list)


class Item(BaseModel):
    """Likewise, of pydantic's."""

    name: str
    price: float = 1.0


class Shop:
    """An object with state of its own."""

    def __init__(self, factor: int) -> None:
        """Keeps the factor."""
        self.factor = factor

    def price(self, number: int) -> int:
        """Prices an order."""
        return number * self.factor

    def __call__(self, number: int) -> int:
        """Prices an order too."""
        return number * self.factor


def total(price: float, count: int = 1) -> float:
    """Multiplies.

    And explains at length.
    """
    return price * count


def describe(order: Order, colour: Colour = Colour.RED, *, unit: Literal["kg", "lb"] = "kg") -> str:
    """Describes an order."""
    return f"{type(order).__name__} {order.number} {order.tags} {colour!r} {unit}"


def priced(items: list[Item]) -> float:
    """Adds up."""
    return sum(item.price for item in items)


def day(at: datetime, note: str | None = None) -> str:
    """Names a day."""
    assert isinstance(at, datetime)
    return f"{at.astimezone(UTC):%A} {note}"


def gather(*numbers: int, **words: str) -> list[Any]:
    """Takes any number of things."""
    return [list(numbers), words]


def bare(value, /, other=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - the point
    """Has no type hints."""
    return [value, other]


async def later(number: int) -> int:
    """Is asynchronous."""
    return number + 1


async def call(tool: Tool | Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - JSON
    """Calls a tool as a cell does; returns what the cell gets, or why it gets nothing."""
    box = Toolbox([tool])
    sent = json.dumps({"args": args, "kwargs": kwargs})
    answer = await box.call(box.offered[0].name, sent)
    return answer if isinstance(answer, QueryFailure) else json.loads(answer)
