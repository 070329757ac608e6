"""Values that grow while their text arrives.

Without it a context would be held twice when it is whole: as its text, and as what is made of it.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final, TypeAlias

from sandbox_image.repl.shared_pages import share

#: Takes the pieces of a text, then None; returns the value.
Growing: TypeAlias = "Generator[None, str | None, Any]"

#: What the orchestrator writes between the parts of a list or dict. JSON has no line end in a text,
#: so where there is one, a part may have ended.
_BETWEEN_PARTS: Final = ",\n"
_CLOSING: Final = {"[": "]", "{": "}"}
#: Less is not worth sharing: what is shared stays for as long as the session does. Of more, all is:
#: gVisor copies 2 MiB where a byte is written.
_SHARED_CHARS: Final = 64 * 1024


def growing_text() -> Growing:
    """Takes a text and returns it whole."""
    text = ""
    while (piece := (yield)) is not None:
        # In place: CPython appends to a str that nothing but one local variable holds, and the
        # kernel moves its pages if it must. Held by anything else, it is copied for each piece.
        text += piece
    return text


def growing_json() -> Growing:
    """Takes a JSON document and returns its value; reads each part once it is there.

    A document that was not written part by part is read when it is whole.
    """
    value: Any = None
    pending = ""
    chars = 0
    is_in_parts = True
    while (piece := (yield)) is not None:
        chars += len(piece)
        start = 0
        for end in _ends(piece) if is_in_parts else ():
            pending += piece[start:end]
            opening = pending[:1]
            closing = _CLOSING.get(opening, "")
            pending += closing
            try:
                value = _with_parts(value, pending, is_shared=chars >= _SHARED_CHARS)
            except ValueError:
                # Not between two parts: with a bracket left open it is never JSON.
                pending = pending.removesuffix(closing)
                start, is_in_parts = end, False
                break
            pending = opening
            start = end + 1
        pending += piece[start:]
    if value is None:
        return json.loads(pending)
    return _with_parts(value, pending, is_shared=chars >= _SHARED_CHARS)


def _ends(piece: str) -> list[int]:
    """Returns where the first part that ends in a piece does, and the last.

    A part that has been waited for is read by itself: beside one wide character of another, each of
    its own would take four bytes.
    """
    ends = {piece.find(_BETWEEN_PARTS), piece.rfind(_BETWEEN_PARTS)}
    return sorted(ends - {-1})


def _with_parts(value: Any, text: str, *, is_shared: bool) -> Any:  # noqa: ANN401 - JSON
    """Reads parts, and adds them to those that were read before, if there are any.

    Raises:
        ValueError: They are not JSON, or there are none: a comma stands where no part follows.
    """
    parts = json.loads(text) if text[:1] in _CLOSING else None
    if not parts:
        raise ValueError("a comma and no part beside it")
    if is_shared:
        share(parts)
    if value is None:
        return parts
    if isinstance(value, list):
        value += parts
    else:
        value.update(parts)
    return value
