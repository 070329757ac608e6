"""Reads bytes as a list of decisions, so that a fuzzer can steer what is not made of bytes.

Without it a fuzzer could only be pointed at parsers of bytes, and a text, an order of events or a
tree of JSON would be out of its reach. Any bytes are a valid list; where they end, zeros follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestrator.domain import Json

T = TypeVar("T")

_MAX_JSON_DEPTH = 6
_MAX_JSON_ITEMS = 6


class FuzzData:
    """A list of decisions; each call takes the next."""

    def __init__(self, data: bytes) -> None:
        """Begins with the first byte."""
        self._data = data
        self._at = 0

    @property
    def is_used_up(self) -> bool:
        """Whether everything that follows is zeros."""
        return self._at >= len(self._data)

    def raw(self, size_bytes: int) -> bytes:
        """Takes bytes; fewer where there are no more."""
        taken = self._data[self._at : self._at + size_bytes]
        self._at += size_bytes
        return taken

    def rest(self) -> bytes:
        """Takes all that is left."""
        return self.raw(max(len(self._data) - self._at, 0))

    def integer(self, low: int, high: int) -> int:
        """Takes a number from `low` to `high`, both included."""
        span = high - low + 1
        size_bytes = ((span - 1).bit_length() + 7) // 8
        return low + int.from_bytes(self.raw(size_bytes).ljust(size_bytes, b"\0")) % span

    def flag(self) -> bool:
        """Takes a yes or no."""
        return bool(self.integer(0, 1))

    def choice(self, options: Sequence[T]) -> T:
        """Takes one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def block(self, max_bytes: int) -> bytes:
        """Takes a number of bytes, and as many bytes."""
        return self.raw(self.integer(0, max_bytes))

    def text(self, max_bytes: int = 255) -> str:
        """Takes a text, which may hold what UTF-8 has no form for."""
        return text_of(self.block(max_bytes))

    def json(self, depth: int = 0) -> Json:
        """Takes any JSON value, and of what is no JSON the floats that Python takes for it."""
        inner = depth + 1
        leaves: tuple[Callable[[], Json], ...] = (
            lambda: None,
            lambda: self.text(40),
            lambda: self.integer(-(2**63), 2**64),
            lambda: self.integer(-3, 300),
            self.flag,
            lambda: self.choice([0.0, -0.5, 1e300, float("nan"), float("inf")]),
        )
        containers: tuple[Callable[[], Json], ...] = (
            lambda: [self.json(inner) for _ in range(self.integer(0, _MAX_JSON_ITEMS))],
            lambda: {
                self.text(12): self.json(inner) for _ in range(self.integer(0, _MAX_JSON_ITEMS))
            },
        )
        is_deep = depth >= _MAX_JSON_DEPTH
        return self.choice(leaves if is_deep else (*leaves, *containers, *containers))()


def text_of(data: bytes) -> str:
    """Returns any bytes as a text; those of UTF-8 as what they say, lone surrogates among them."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")
