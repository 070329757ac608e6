"""What a model is told about a cell that is no Python: the line, the place, and the way out.

Without it a reply with a Markdown fence, a sentence or a curly quote in its cell would come back
as "invalid syntax", and the next reply would make the same mistake.
"""

from __future__ import annotations

import keyword
import re

_SHOWN_CHARS = 120  # a cell can be one line of a megabyte; the caret's surroundings are enough

_FENCE = re.compile(r"\s*(```|~~~)")
_SHELL = re.compile(
    r"\s*([!%$]\s*\w|(pip3?|apt|apt-get|conda)\s+install\b|(cd|ls|cat)\s+[\w./~-]+\s*$)"
)
_PROSE_PREFIX = re.compile(r"\s*(?:[-*>]\s+|\d+[.)]\s+)?")
_PROSE_WORD = re.compile(r"[A-Za-z][A-Za-z'\u2019-]*[,.;:!?]?(?=\s|$)\s*")
_PROSE_WORDS = 4  # no Python has four bare words in a row, keywords aside

_UNREADABLE = re.compile("[\0\ud800-\udfff]")
_LINE_END = re.compile(r"\r\n|\r|\n")  # what Python calls a line; str.splitlines knows more

#: Characters that word processors and models put for plain ones.
_PLAIN_FOR = {
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"',
    "\u2018": "'", "\u2019": "'", "\u2032": "'", "\u00b4": "'",
    "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u00d7": "*", "\u00f7": "/",
    "\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\u2192": "->", "\u2026": "...",
    "\uff08": "(", "\uff09": ")", "\uff0c": ",", "\uff1a": ":",
}  # fmt: skip

_CUT_OFF = "if the cell was cut off, send it again in smaller steps"

#: Part of what the compiler says, and what to do about it; the first that fits is given.
_HINTS = (
    ("unterminated triple-quoted", f"close the text with the same three quotes; {_CUT_OFF}"),
    ("unterminated", "close the string on its line, or use triple quotes for text of many lines"),
    ("was never closed", f"close the bracket; {_CUT_OFF}"),
    ("unexpected EOF", f"finish the statement; {_CUT_OFF}"),
    ("f-string", "give the value a name on a line before; write {{ and }} for braces as text"),
    ("inconsistent use of tabs", "indent with four spaces, never with tabs"),
    ("unindent does not match", "indent each level by four spaces more than the one around it"),
    ("unexpected indent", "begin the cell's lines at the left margin, indent only inside blocks"),
    ("expected an indented block", "indent the body by four spaces; an empty body is `pass`"),
    ("'return' outside function", "a cell returns nothing: name the value, print it or FINAL it"),
    ("'yield' outside function", "a cell yields nothing: put the values in a list"),
    ("nonlocal", "the names of a cell are global: write `global` inside the function"),
    ("Exceeds the limit", "write the number as 0x..., or int(text) a shorter one"),
    ("non-printable character", "type the line again with plain spaces"),
)

_ANY_HINT = "write this statement again in plain Python 3; nothing of the cell ran"


def explain_syntax_error(error: SyntaxError, source: str) -> str:
    """Returns what is wrong with `source`, where, and what to write instead, for the root model."""
    line_number = error.lineno or 1
    line = line_of(source, line_number)
    what = error.msg or "invalid syntax"
    shown = _with_caret(line, max((error.offset or 1) - 1, 0))
    hint = _hint(what, line)
    return f"line {line_number}: {what}\n{shown}\n{hint}"


def explain_unreadable_character(source: str) -> str | None:
    """Returns where `source` has a character no Python source can have, or None.

    A model's reply is JSON, and JSON can carry both: NUL, at which the compiler fails in a way that
    differs between versions, and half of a surrogate pair, which has no UTF-8 form.
    """
    match = _UNREADABLE.search(source)
    if match is None:
        return None
    line_number = len(_LINE_END.findall(source, 0, match.start())) + 1
    code_point = ord(match.group())
    return (
        f"line {line_number}: the character U+{code_point:04X} cannot stand in a cell\n"
        f"write it as the escape \\u{code_point:04x} inside a string, or leave it out"
    )


def line_of(source: str, line_number: int) -> str:
    """Returns one line of a cell, from 1, or "" where there is none."""
    lines = _LINE_END.split(source)
    return lines[line_number - 1] if 0 < line_number <= len(lines) else ""


def clipped(text: str) -> str:
    """Returns the text without its margin, cut to what fits one line of a message."""
    text = _printable(text.strip())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def _with_caret(line: str, column: int) -> str:
    margin = len(line) - len(line.lstrip())
    start = max(margin, column - _SHOWN_CHARS // 2)
    shown = _printable(line[start : start + _SHOWN_CHARS].rstrip())
    return f"    {shown}\n    {' ' * max(column - start, 0)}^"


def _printable(text: str) -> str:
    # One column for one column, so that the caret stays where it belongs.
    return "".join(char if char.isprintable() else " " for char in text)


def _hint(what: str, line: str) -> str:
    if _FENCE.match(line):
        return "a Markdown fence is left in the cell; a cell holds Python only"
    if _SHELL.match(line):
        return "there is no shell and nothing to install; write it in Python, standard library only"
    if _is_prose(line):
        return "it looks like prose; put it in a comment after # or outside the cell"
    if "invalid character" in what:
        plain = sorted({_PLAIN_FOR[char] for char in line if char in _PLAIN_FOR})
        instead = " ".join(plain) or "a plain ASCII character"
        return f"write {instead} instead, and other letters only inside strings"
    return next((hint for part, hint in _HINTS if part in what), _ANY_HINT)


def _is_prose(line: str) -> bool:
    position = _PROSE_PREFIX.match(line).end()  # type: ignore[union-attr] # matches the empty text
    words: list[str] = []
    while len(words) < _PROSE_WORDS and (match := _PROSE_WORD.match(line, position)):
        words.append(match.group().rstrip(",.;:!? \t"))
        position = match.end()
    if len(words) < _PROSE_WORDS:
        return False
    return words[0][0].isupper() or sum(map(keyword.iskeyword, words)) <= 1
