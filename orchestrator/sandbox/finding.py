"""One thing that was looked at on a host, and what to do about it.

Without it each judgement would have its own words for good and bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How one finding bears on running a sandbox here."""

    OK = "ok"
    WARNING = "warning"  # works, with a wall less thick than it could be
    FAILED = "failed"  # no sandbox will start


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: Its id; part of the interface.
        found: What is so.
        expected: What should be so; empty where anything will do.
        advice: What to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    expected: str = ""
    advice: str = ""
