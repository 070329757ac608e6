"""What the policy says when it refuses: what, why, and what to write instead.

Without it a refusal would be a sentence that somebody composed, and one of them would end before
the part that matters to a model: what works.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import NamedTuple


class Advice(NamedTuple):
    """Why something is refused and what to write in its place.

    Attributes:
        why: The reason, as the rest of a sentence; "" where `instead` says it all.
        instead: What works here, so that the next reply can be right. Never empty.
    """

    why: str
    instead: str

    def __str__(self) -> str:
        """Returns both as one clause."""
        return f"{self.why}; {self.instead}" if self.why else self.instead


class Rule(StrEnum):
    """The rules of `guarded`: every refusal is made by one of them."""

    MODULE = auto()  # an import
    MEMBER = auto()  # a member of a module that may be imported
    RELATIVE_IMPORT = auto()
    ATTRIBUTE = auto()  # written out
    ATTRIBUTE_NAME = auto()  # as text, where text names an attribute
    NAME = auto()
    BUILTIN = auto()  # a call of a builtin that cannot work
    GROUP_SPLIT = auto()
    SYNTAX = auto()  # a kind of statement or expression that nobody has looked at


class Refusal(NamedTuple):
    """One thing a cell may not do.

    Attributes:
        rule: Which rule refuses it.
        what: The thing, as it is written in a cell.
        advice: What is said of it.
    """

    rule: Rule
    what: str
    advice: Advice

    def __str__(self) -> str:
        """Returns the sentence the root model reads."""
        return f"{self.what}: {self.advice}"


class FoundRefusal(NamedTuple):
    """A refusal and its place; sorts by the place.

    Attributes:
        line: Line in the cell, from 1.
        column: Column in that line, from 0, in UTF-8 bytes as `ast` counts.
        refusal: What is said of it.
    """

    line: int
    column: int
    refusal: Refusal
