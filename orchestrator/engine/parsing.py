"""Turns the text of a root model's reply into cells.

Without it each oddity of a model family (another fence label, a fence inside a string, reasoning
before the reply) would cost a turn, or worse: a piece of a cell would run as if it were the whole.
Prose is never searched for a final answer. Such a search is the field's most repeated source of
wrong answers: 16 % of the turns in the paper's trajectories misused it.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

_CELL_LABELS = frozenset({"repl", "python", "python3", "py"})

# CommonMark 0.31 section 4.5, but for the indentation: models put fences under list items at any
# depth. An info string after backticks holds no backtick, which is what keeps ```x``` in a sentence
# from opening a fence.
_OPENING_FENCE = re.compile(r"^[^\S\n]*(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$")
_CLOSING_FENCE = re.compile(r"^[^\S\n]*(`{3,}|~{3,})[^\S\n]*$")

_THINK_OPEN = re.compile(r"^[^\S\n]*<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# The opening tag is part of some models' chat template, so a reply may hold the closing one alone.
# It has to be a line of its own: cells that clean up other models' text hold it in strings.
_LONE_THINK_CLOSE = re.compile(r"^[^\S\n]*</think(?:ing)?>[^\S\n]*$", re.IGNORECASE | re.MULTILINE)

# Bounds the work on a reply made of fences and quotes alone: each line is read this often at most.
_MAX_CLOSING_CANDIDATES = 6

_STRING_ENDS = {quote: re.compile(rf"\\.|{quote}") for quote in ('"""', "'''")}
_STRING_TOKEN = re.compile(
    r"""\\.|\#[^\n]*|\"\"\"|'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedReply:
    """What a reply holds.

    Attributes:
        cells: Sources to run, in order.
        spoken: The reply without its reasoning: what a transcript keeps.
        prose: What was said outside of fences.
        has_unlabelled_fence: Whether a fence without a language was passed over.
        foreign_labels: Languages of the fences that were passed over, in order, each once.
        has_open_fence: Whether a cell's fence was not closed and what it holds was passed over.
        was_cut: Whether the provider stopped the reply at a length limit.
    """

    cells: tuple[str, ...]
    spoken: str
    prose: str
    has_unlabelled_fence: bool = False
    foreign_labels: tuple[str, ...] = ()
    has_open_fence: bool = False
    was_cut: bool = False


@dataclass(frozen=True, slots=True)
class _Fence:
    label: str
    body: str
    is_closed: bool


def parse_reply(text: str, *, accepts_bare_code: bool, was_cut: bool) -> ParsedReply:
    """Finds the cells in a reply.

    A fence labelled `repl`, `python`, `python3` or `py` is a cell. Where there is none of these, a
    fence without a label that does something as Python is one too: small models forget the label,
    and a turn spent on teaching it is a turn lost. Beside a labelled fence it stays text, because
    there it is output the model quotes.

    Args:
        text: What the model answered.
        accepts_bare_code: Whether a reply without any fence that does something as Python is a
            cell. For models too small to keep to fences.
        was_cut: Whether the provider stopped the reply at a length limit. A fence that is still
            open then is not run: `n = 12` may be what is left of `n = 1234`.
    """
    spoken = _without_reasoning(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    fences, prose = _split(spoken)
    labelled = [fence for fence in fences if fence.label in _CELL_LABELS]
    unlabelled = [fence for fence in fences if not fence.label]
    runnable: list[_Fence] = []
    passed_over: list[_Fence] = []
    for fence in labelled or unlabelled:
        is_whole = fence.is_closed or (not was_cut and _parses(fence.body))
        runs = is_whole and (bool(labelled) or _acts(fence.body))
        (runnable if runs else passed_over).append(fence)
    cells = [fence.body for fence in runnable if fence.body.strip()]
    if accepts_bare_code and not fences and not was_cut and _acts(spoken):
        cells, prose = [spoken], ""
    foreign = [fence.label for fence in fences if fence.label and fence.label not in _CELL_LABELS]
    return ParsedReply(
        cells=tuple(cells),
        spoken=spoken,
        prose=prose,
        has_unlabelled_fence=bool(unlabelled if labelled else passed_over),
        foreign_labels=tuple(dict.fromkeys(foreign)),
        has_open_fence=bool(labelled and passed_over),
        was_cut=was_cut,
    )


def _without_reasoning(text: str) -> str:
    """Removes `<think>` parts; one that is not closed reaches to the end of the text.

    A part starts at the beginning of a line outside of any fence, so a cell that handles such tags
    as data stays whole.
    """
    lone = _LONE_THINK_CLOSE.search(text)
    if lone and not re.search(r"<think(?:ing)?>", text[: lone.start()], re.IGNORECASE):
        text = text[lone.end() :]
    lines = text.split("\n")
    kept: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if opening := _OPENING_FENCE.match(line):
            end = _closing_index(lines, index + 1, marker=opening[1])
            kept += lines[index : end + 1]
            index = end + 1
        elif start := _THINK_OPEN.match(line):
            lines[index] = line[start.end() :]
            while index < len(lines) and not (closing := _THINK_CLOSE.search(lines[index])):
                index += 1
            if index < len(lines) and closing:
                lines[index] = lines[index][closing.end() :]
        else:
            kept.append(line)
            index += 1
    return "\n".join(kept)


def _split(text: str) -> tuple[list[_Fence], str]:
    """Returns the fences of a text, and what is outside of them."""
    lines = text.split("\n")
    fences: list[_Fence] = []
    prose: list[str] = []
    index = 0
    while index < len(lines):
        opening = _OPENING_FENCE.match(lines[index])
        if not opening:
            prose.append(lines[index])
            index += 1
            continue
        end = _closing_index(lines, index + 1, marker=opening[1])
        info = opening[2].split()
        fences.append(
            _Fence(
                label=info[0].lower() if info else "",
                body=_dedented(lines[index + 1 : end]),
                is_closed=end < len(lines),
            )
        )
        index = end + 1
    return fences, "\n".join(prose).strip()


def _closing_index(lines: Sequence[str], start: int, *, marker: str) -> int:
    """Returns the index of the line that closes a fence, or `len(lines)`.

    A fence that stands inside a triple-quoted string of the cell belongs to the string: models
    write prompts with fences in them. Where the string never ends, the first fence closes.
    """
    first = len(lines)
    candidate_count = 0
    scan = _StringScan()
    for index in range(start, len(lines)):
        closing = _CLOSING_FENCE.match(lines[index])
        if closing and closing[1][0] == marker[0] and len(closing[1]) >= len(marker):
            first = min(first, index)
            candidate_count += 1
            if not scan.is_inside:
                return index
            if candidate_count == _MAX_CLOSING_CANDIDATES:
                break
        scan.read(lines[index])
    return first


class _StringScan:
    """Follows a Python source line by line and knows whether it is inside a triple-quoted string.

    Not the tokenizer of the standard library, which reads a source from its beginning each time
    and gives up at the first error; a reply is any text.
    """

    def __init__(self) -> None:
        self._quote = ""

    @property
    def is_inside(self) -> bool:
        """Whether the lines read so far end inside a triple-quoted string."""
        return bool(self._quote)

    def read(self, line: str) -> None:
        """Takes in one more line."""
        position = 0
        while position < len(line):
            if self._quote:
                closing = _STRING_ENDS[self._quote].search(line, position)
                if not closing:
                    return
                position = closing.end()
                if closing[0] == self._quote:
                    self._quote = ""
                continue
            token = _STRING_TOKEN.search(line, position)
            if not token:
                return
            position = token.end()
            if token[0] in {'"""', "'''"}:
                self._quote = token[0]


def _dedented(lines: Sequence[str]) -> str:
    """Returns the body of a fence, moved to the left where all of it is indented.

    Python refuses a source whose first line is indented, so nothing that would run is changed.
    """
    body = "\n".join(lines)
    first = next((line for line in lines if line.strip()), "")
    return textwrap.dedent(body) if first[:1].isspace() else body


def _tree(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a model's pattern is not our reader's concern
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # The last two are how the parser refuses a source nested too deeply; tried with twenty
        # kinds of nesting, 256 KB each, none of which took the process down.
        return None


def _parses(source: str) -> bool:
    return _tree(source) is not None


def _acts(source: str) -> bool:
    """Returns whether a text is Python that does something.

    That it parses is not enough: `42`, `Paris` and `Answer: 42` do, and so does quoted JSON.
    """
    tree = _tree(source)
    return tree is not None and any(
        isinstance(node, ast.Call | ast.Assign | ast.AugAssign | ast.Import | ast.ImportFrom)
        for node in ast.walk(tree)
    )
