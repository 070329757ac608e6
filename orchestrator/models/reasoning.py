"""Tells a model's reasoning from its answer where both come as one text.

Without it a plan, and the cells it weighs, would be taken for the reply itself.
"""

from __future__ import annotations

import re
from enum import Enum, auto

_FENCES = ("```", "~~~")
_OPENING, _CLOSING = "<think>", "</think>"
# Some chat templates put the opening tag into the prompt, so that a reply has the closing one only.
_ORPHAN_CLOSING = re.compile(r"^[ \t]*</think>", re.MULTILINE)


def without_reasoning(text: str) -> str:
    """Returns `text` without its `<think>` parts.

    A part begins where a line outside a code fence begins with the opening tag, so that a cell
    whose code handles such tags is left as it is. A part that is never closed is all there is.
    """
    orphan = _orphan_closing(text)
    if orphan is not None:
        text = text[orphan:].lstrip()
    kept: list[str] = []
    rest = text
    is_in_fence = was_reasoning = False
    while rest:
        line, newline, after = rest.partition("\n")
        stripped = line.lstrip()
        if not is_in_fence and stripped.startswith(_OPENING):
            _, _, rest = rest.partition(_CLOSING)
            rest = rest.lstrip()
            was_reasoning = True
            continue
        if stripped.startswith(_FENCES):
            is_in_fence = not is_in_fence
        kept.append(line + newline)
        rest = after
    answer = "".join(kept)
    return answer.strip() if was_reasoning else answer


def begins_in_reasoning(text: str) -> bool:
    """Whether a reply has a closing tag that nothing in it opened: what stands before it is none.

    Whoever has seen one reply of a model begin so has to expect it of the next.
    """
    return _orphan_closing(text) is not None


def _orphan_closing(text: str) -> int | None:
    """Returns where the answer begins after a closing tag without an opening one."""
    orphan = _ORPHAN_CLOSING.search(text)
    return orphan.end() if orphan and _OPENING not in text[: orphan.start()] else None


class _Place(Enum):
    """Where in a reply the next character stands."""

    LINE_START = auto()  # nothing but spaces of its line has come
    LINE = auto()  # what the line begins with is known
    REASONING = auto()
    AFTER_REASONING = auto()  # spaces that are dropped


class ReasoningFilter:
    """Leaves reasoning out of a text that comes in pieces; what `without_reasoning` does at once.

    A piece is held back as long as it may turn out to be a tag, and no longer.
    """

    def __init__(self, *, begins_in_reasoning: bool = False) -> None:
        """Begins with a reply.

        Args:
            begins_in_reasoning: Whether the model is known to begin with reasoning that no tag
                opens. Everything is held back then until a tag closes it, or the reply ends.
        """
        self._place = _Place.LINE_START
        self._waits_for_orphan = begins_in_reasoning
        self._waiting: list[str] = []
        self._last_chars = ""
        self._pending = ""
        self._held_spaces = ""
        self._is_in_fence = False
        self._was_reasoning = False
        self._has_begun = False

    def take(self, piece: str) -> str:
        """Takes the next piece and returns what is now known to be of the answer."""
        if not self._waits_for_orphan:
            self._pending += piece
        elif not self._ends_waiting(piece):
            return ""
        return "".join(self._answer_parts())

    def finish(self) -> str:
        """Returns what was held back and is of the answer after all: the reply has ended."""
        if self._waits_for_orphan:  # it began otherwise this time
            self._waits_for_orphan = False
            return without_reasoning("".join(self._waiting))
        rest = "" if self._place is _Place.REASONING else self._shown(self._pending)
        self._pending = ""
        return rest if self._was_reasoning else rest + self._held_spaces

    def _ends_waiting(self, piece: str) -> bool:
        """Takes a piece of reasoning that no tag opened; returns whether it has come to an end."""
        self._waiting.append(piece)
        # Only where a tag may have come is all of it looked at: it may be long, in short pieces.
        window = self._last_chars + piece
        self._last_chars = window[-(len(_CLOSING) - 1) :]
        if _CLOSING not in window and _OPENING not in window:
            return False
        text = "".join(self._waiting)
        begin = _orphan_closing(text)
        if begin is None and _OPENING not in text:
            return False
        self._waits_for_orphan = False  # a reply that opens its reasoning is like any other
        if begin is None:
            self._pending = text
        else:
            self._pending, self._place = text[begin:], _Place.AFTER_REASONING
        return True

    def _answer_parts(self) -> list[str]:
        parts: list[str] = []
        while self._pending:
            if self._place is _Place.REASONING:
                _, closing, after = self._pending.partition(_CLOSING)
                if not closing:
                    self._pending = self._pending[-(len(_CLOSING) - 1) :]
                    return parts
                self._pending, self._place = after, _Place.AFTER_REASONING
            elif self._place is _Place.AFTER_REASONING:
                self._pending = self._pending.lstrip()
                if self._pending:
                    self._place = _Place.LINE_START
            elif self._place is _Place.LINE_START:
                if not self._begin_line():
                    return parts
            else:
                line, newline, self._pending = self._pending.partition("\n")
                parts.append(self._shown(line + newline))
                self._place = _Place.LINE_START if newline else _Place.LINE
        return parts

    def _begin_line(self) -> bool:
        """Finds out what a line begins with; returns whether enough of it has come."""
        line, newline, _ = self._pending.partition("\n")
        start = line.lstrip()
        marks = (_OPENING, *_FENCES)
        # It may yet become a mark. One that is whole needs no more of its line.
        if not newline and start not in marks and any(mark.startswith(start) for mark in marks):
            return False
        if not self._is_in_fence and start.startswith(_OPENING):
            self._place, self._was_reasoning = _Place.REASONING, True
            return True
        if start.startswith(_FENCES):
            self._is_in_fence = not self._is_in_fence
        self._place = _Place.LINE
        return True

    def _shown(self, text: str) -> str:
        """Returns text of the answer; where there was reasoning, without spaces at either end."""
        text = self._held_spaces + text
        self._held_spaces = ""
        if not self._has_begun:
            visible = text.lstrip()
            if not visible:  # reasoning may follow, and then they are none of the answer
                self._held_spaces = text
                return ""
            self._has_begun = True
            text = visible if self._was_reasoning else text
        if not self._was_reasoning:
            return text
        shown = text.rstrip()
        self._held_spaces = text[len(shown) :]
        return shown


class StreamedText:
    """A reply's text as it comes."""

    def __init__(self, *, begins_in_reasoning: bool) -> None:
        """Begins with nothing; see `ReasoningFilter`."""
        self._filter = ReasoningFilter(begins_in_reasoning=begins_in_reasoning)
        self._pieces: list[str] = []
        self._apart: list[str] = []

    def add(self, piece: str) -> str:
        """Takes a piece of the text and returns what of it belongs to the answer."""
        self._pieces.append(piece)
        return self._filter.take(piece)

    def add_reasoning(self, piece: str) -> None:
        """Takes a piece of reasoning that came apart from the text."""
        self._apart.append(piece)

    def finish(self) -> str:
        """Returns what was held back of the answer."""
        return self._filter.finish()

    @property
    def raw(self) -> str:
        """The text as it came."""
        return "".join(self._pieces)

    @property
    def everything(self) -> str:
        """All that has come, reasoning first: what a provider bills."""
        return "".join(self._apart) + self.raw
