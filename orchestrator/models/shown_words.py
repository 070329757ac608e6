"""A provider's own words, made fit to be shown.

Without it they would reach a terminal as they came: with the key in them, with control characters,
a page long.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

#: More of a provider's own words than this is a page, not a message.
MESSAGE_CHARS = 500

# What keys look like where only a part of one is echoed: a scheme's prefix, a bearer token, or
# characters around a run of asterisks ("Incorrect API key provided: sk-abcd****wxyz").
_KEY_LIKE = re.compile(
    r"\bsk-[\w*.-]{4,}|\bBearer\s+\S+|[\w-]*\*{3,}[\w-]*",
    re.IGNORECASE,
)


def shown(text: str, *, secrets: Collection[str]) -> str:
    """Returns a provider's words fit to be shown: one line, no key, no control characters, short.

    Args:
        text: What the provider said; untrusted.
        secrets: The keys that were sent, which some endpoints echo.
    """
    # Bidirectional marks and zero-width characters are category C as well: they can make a
    # terminal show other words than those that came.
    line = " ".join(
        "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text).split()
    )
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        line = line.replace(secret, "[key]")
    line = _KEY_LIKE.sub("[key]", line)
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"
