"""How a context is cut for the way to a worker.

Without it whoever hands a context on would have to hold all of it: the broker's process never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain import ContextKind, EncodedContext

#: As fast as any larger piece, and far below the cap of a message.
PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextHead:
    """What a worker is told of a context beside its bytes."""

    kind: ContextKind
    total_bytes: int
    sha256_hex: str
    aliases: tuple[str, ...] = ()

    @classmethod
    def of(cls, context: EncodedContext, *, aliases: Sequence[str] = ()) -> ContextHead:
        """Returns the head of a context that is bound to further names, too."""
        return cls(
            kind=context.kind,
            total_bytes=len(context.data),
            sha256_hex=context.sha256_hex,
            aliases=tuple(aliases),
        )


def cut(data: bytes) -> Iterator[memoryview]:
    """Yields the pieces of a context in order; one empty piece if there is nothing."""
    view = memoryview(data)
    for offset_bytes in range(0, max(len(data), 1), PIECE_BYTES):
        yield view[offset_bytes : offset_bytes + PIECE_BYTES]
