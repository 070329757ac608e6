"""The context of a child run, from the bytes that a sandbox sent.

Without it the broker and whoever stands behind a broker's process would each believe other claims.
Knows no message of the contract: it is used beside the keys, too.
"""

from __future__ import annotations

import hashlib
import sys

from orchestrator.domain import ContextKind, EncodedContext
from orchestrator.errors import ProtocolViolationError

#: What a value made from JSON takes at most of what is worth trying: a guess, because nothing on
#: this side reads it. A child run whose sandbox cannot hold it says so.
_JSON_GROWTH = 4


def received_context(
    *, kind: ContextKind, data: bytes, total_chars: int, part_lengths: tuple[int, ...]
) -> EncodedContext:
    """Returns what a sandbox sent as a context, measured as far as that needs no look into it.

    Raises:
        ProtocolViolationError: It is not UTF-8.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ProtocolViolationError("a context is UTF-8") from None
    is_text = kind is ContextKind.TEXT
    return EncodedContext(
        kind=kind,
        data=data,
        part_lengths=(len(text),) if is_text else part_lengths,
        # A claim beyond what the bytes can hold would be shown to a model as a fact.
        total_chars=len(text) if is_text else min(total_chars, len(text)),
        sha256_hex=hashlib.sha256(data).hexdigest(),
        resident_bytes=sys.getsizeof(text) * (1 if is_text else _JSON_GROWTH),
    )
