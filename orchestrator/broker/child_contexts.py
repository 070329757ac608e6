"""The contexts of child runs on their way from a cell, piece by piece.

Without it a context would have to fit in one message, or a sandbox could have this side hold as
much as it likes.
"""

from __future__ import annotations

from orchestrator.broker.claims import ClaimedContext, ClaimedPart
from orchestrator.broker.order import ExcessError
from orchestrator.broker.received_context import received_context
from orchestrator.domain import EncodedContext
from orchestrator.errors import ProtocolViolationError


class ChildContexts:
    """Puts the parts of one context after the other together."""

    def __init__(self, *, limit_bytes: int) -> None:
        """Begins with nothing; holds `limit_bytes` at most, of all contexts together."""
        self._limit_bytes = limit_bytes
        self._parts: dict[str, bytearray] = {}
        self._held_bytes = 0

    def clear(self) -> None:
        """Forgets what has come: its cell has ended."""
        self._parts.clear()
        self._held_bytes = 0

    def take_part(self, part: ClaimedPart) -> None:
        """Takes one part.

        Raises:
            ProtocolViolationError: It does not follow the one before.
            ExcessError: It is more than a context may have. An honest worker refuses it itself.
        """
        if part.offset_bytes == 0:
            self._held_bytes -= len(self._parts.pop(part.context_id, b""))
            self._parts[part.context_id] = bytearray()
        buffer = self._parts.get(part.context_id)
        if buffer is None or part.offset_bytes != len(buffer):
            raise ProtocolViolationError("the parts of a context follow each other")
        self._held_bytes += len(part.data)
        if self._held_bytes > self._limit_bytes:
            raise ExcessError(f"contexts of child runs have at most {self._limit_bytes:,} bytes")
        buffer += part.data

    def whole(self, claimed: ClaimedContext) -> EncodedContext:
        """Returns a context that is whole; it is not held any longer.

        Raises:
            ProtocolViolationError: Its parts have not come, or it is no text.
            ExcessError: It is more than a context may have.
        """
        data = claimed.data
        if claimed.context_id:
            buffer = self._parts.pop(claimed.context_id, None)
            if buffer is None:
                raise ProtocolViolationError("the parts of a context come before its query")
            self._held_bytes -= len(buffer)
            data = bytes(buffer)
        if len(data) > self._limit_bytes:
            raise ExcessError(f"a context of a child run has at most {self._limit_bytes:,} bytes")
        return received_context(
            kind=claimed.kind,
            data=data,
            total_chars=claimed.total_chars,
            part_lengths=claimed.part_lengths,
        )
