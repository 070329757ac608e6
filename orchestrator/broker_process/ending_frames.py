"""How a stream ended and how a start failed, from the broker's process to the orchestrator.

Without it an error of the contract would lose its type or its text on the way to the caller.
"""

from __future__ import annotations

from orchestrator.broker.ending import EndKind, StreamEnd
from orchestrator.broker.order import ExcessError
from orchestrator.broker_process.fields import Fields
from orchestrator.broker_process.printable import printable
from orchestrator.domain import Json
from orchestrator.errors import ProtocolViolationError, SandboxError, SandboxStartError

#: Longer than any reason the broker gives: every wall of one sandbox, differing.
MAX_REASON_CHARS = 16_000


def end_fields(end: StreamEnd) -> dict[str, Json]:
    """Returns the fields of a `Said.ENDED`."""
    return {"kind": end.kind, "reason": end.reason[:MAX_REASON_CHARS]}


def read_end(fields: Fields) -> StreamEnd:
    """Returns what `end_fields` was given, its text printable.

    Raises:
        FrameError: They are not its fields.
    """
    return StreamEnd(kind=fields.member("kind", EndKind), reason=_read_reason(fields))


def start_error_fields(error: SandboxError) -> dict[str, Json]:
    """Returns the fields of a `Said.NOT_ATTACHED`."""
    if isinstance(error, ProtocolViolationError):
        return end_fields(StreamEnd.of_violation(error))
    return end_fields(StreamEnd(kind=EndKind.REFUSED, reason=str(error)))


def read_start_error(fields: Fields) -> SandboxError:
    """Returns the error that `start_error_fields` was given, its text printable.

    Raises:
        FrameError: They are not its fields.
    """
    end = read_end(fields)
    if end.kind is EndKind.BROKEN:
        return ProtocolViolationError(end.reason)
    if end.kind is EndKind.EXCEEDED:
        return ExcessError(end.reason)
    return SandboxStartError(end.reason)


def _read_reason(fields: Fields) -> str:
    return printable(fields.text("reason", max_chars=MAX_REASON_CHARS), max_chars=MAX_REASON_CHARS)
