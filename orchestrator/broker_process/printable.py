"""Makes text out of a broker's process safe for a log and for an error's message.

Without it a process that has been taken over could forge lines of the operator's log, or write
what a terminal acts on into it.
"""

from __future__ import annotations


def printable(text: str, *, max_chars: int) -> str:
    r"""Returns the head of `text` as one line in which nothing acts and nothing is unseen.

    Controls, line ends, surrogates and characters that change the direction of text become
    escapes, such as `\x1b`.
    """
    head = text[:max_chars]
    if head.isprintable():
        return head
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in head
    )
