"""A caller's context, checked and made ready for the wire.

Without it a context that cannot cross to a sandbox unchanged (a set, a NaN, half a surrogate pair)
would fail deep inside a started run, after money was spent.
"""

from orchestrator.context.documents import DocumentsEncoding
from orchestrator.context.encode import Encodable, encode_context
from orchestrator.context.parts import PartsEncoding, longest_unread_bytes
from orchestrator.context.text import TextEncoding

__all__ = [
    "DocumentsEncoding",
    "Encodable",
    "PartsEncoding",
    "TextEncoding",
    "encode_context",
    "longest_unread_bytes",
]
