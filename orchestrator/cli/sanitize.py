"""Makes text from models and sandboxes safe to show in a terminal.

Without it a context could rewrite what the user has read, retitle the window, or put text into the
clipboard: terminals act on control sequences wherever they come from (CVE-2021-25743, and the
bidirectional reordering of CVE-2021-42574). Text for programs goes out as ASCII-only JSON instead,
which keeps every character and lets none act.
"""

import re

# A whole sequence goes, so that no debris such as "[31m" stays behind. Each alternative stops at
# the next escape, so that one never closed takes nothing after it along and the time is linear.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erasing (ECMA-48 5.4)
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])"  # OSC, DCS, SOS, PM, APC: title, clipboard …
    r"[^\x1b\x90\x98\x9b-\x9f\x07]*(?:\x07|\x1b\\|\x9c)"  # … up to what closes them
    r"|\x1b[ -/]+[0-~]"  # character sets
    r"|\x1b[0-OQ-WYZ\\`-~]"  # two characters: reset, save cursor
)
_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but for tab and line feed
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # invisible, or changes direction
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # U+200C and U+200D stay: scripts need them
    "\u3164\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"  # tags: an alphabet that nobody sees and models read
    "]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")


def for_terminal(text: str) -> str:
    r"""Returns `text` without anything a terminal acts on, but for tabs and line feeds.

    Carriage returns become line feeds, because one alone lets later text cover earlier text.
    Surrogates, which no terminal's encoding can write, become U+FFFD.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNSEEN.sub("", _SEQUENCE.sub("", text))
    return _SURROGATE.sub("\ufffd", text)


def for_one_line(text: str, *, max_chars: int) -> str:
    """Returns the head of `text` as one line of at most `max_chars` characters."""
    # Only what can be shown is cleaned: a cell may be a quarter of a megabyte, a prompt more.
    head = _SPACES.sub(" ", for_terminal(text[: 4 * max_chars])).strip()
    if len(head) <= max_chars and len(text) <= 4 * max_chars:
        return head
    return head[: max_chars - 1] + "…"
