"""Why a sandbox's stream ended, as one value.

Without it the gRPC status a worker sees and the error the caller sees could tell different stories.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.broker.order import ExcessError
from orchestrator.errors import (
    ProtocolViolationError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)


class EndKind(StrEnum):
    """Who ended the stream."""

    CLOSED = "closed"  # the orchestrator, because the sandbox is no longer needed
    LOST = "lost"  # the worker went away, or stopped answering
    REFUSED = "refused"  # the orchestrator, because of what the hello says
    BROKEN = "broken"  # the orchestrator, because a rule was broken
    EXCEEDED = "exceeded"  # the orchestrator, because more came than any cell could need


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """How a stream ended; `reason` is the broken rule where a rule was broken."""

    kind: EndKind
    reason: str

    @classmethod
    def of_violation(cls, violation: ProtocolViolationError) -> StreamEnd:
        """Returns the end that a broken rule brings."""
        kind = EndKind.EXCEEDED if isinstance(violation, ExcessError) else EndKind.BROKEN
        return cls(kind=kind, reason=violation.rule)

    def error(self) -> SandboxError:
        """Returns a new error for a caller who still wanted something of the sandbox."""
        if self.kind is EndKind.BROKEN:
            return ProtocolViolationError(self.reason)
        if self.kind is EndKind.EXCEEDED:
            return ExcessError(self.reason)
        if self.kind is EndKind.REFUSED:
            return SandboxStartError(self.reason)
        return SandboxLostError(self.reason)
