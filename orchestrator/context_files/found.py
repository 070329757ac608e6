"""A context as it was found in files, and what it can be made of.

Without it a front end could not say what was left out of a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.domain import EncodedContext


class ContextShape(StrEnum):
    """What becomes of the text of files."""

    TEXT = "text"  # a str; of a folder its files, joined, each under its name
    JSON = "json"  # the list or dict that one file says, as JSON or as JSON Lines
    DOCUMENTS = "documents"  # a list of {"name": …, "text": …}, one for each file


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundContext:
    """A context, and what its caller has to know about how it was read.

    Attributes:
        value: The context, ready for the wire.
        notes: What was read of folders, and what was left out: one sentence each.
        domain: What it is about, as the names of its files suggest; empty for no guess.
    """

    value: EncodedContext
    notes: tuple[str, ...] = ()
    domain: str = ""
