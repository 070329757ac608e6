"""Text as it can be sent to any model.

Without it one NUL in a cell's output, or half a surrogate pair in a question, would end a run: the
first is refused by providers that keep requests in PostgreSQL, the second by JSON encoders.
Everything else stays verbatim, control characters included: they harm terminals, not models.
"""

from __future__ import annotations

import re

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")


def sendable(text: str) -> str:
    """Returns `text` with NUL and lone surrogates replaced by U+FFFD."""
    return _UNSENDABLE.sub(_REPLACEMENT, text)
