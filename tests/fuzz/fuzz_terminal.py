"""Untrusted text on its way to a terminal.

Holds: of all a terminal acts on, only tabs and line feeds are left; nothing that hides or reorders
text is left; cleaning twice is cleaning once; plain text is not touched; one line is one line.
"""

from __future__ import annotations

import unicodedata

from support.fuzz_data import FuzzData, text_of

from orchestrator.cli.sanitize import for_one_line, for_terminal

#: Scripts need these two to be joined or kept apart; they hide nothing by themselves.
_NEEDED_BY_SCRIPTS = {"\u200c", "\u200d"}

TOKENS = (
    *(
        b"\x1b[",
        b"\x1b]0;",
        b"\x1bP",
        b"\x1b\\",
        b"\x07",
        b"\xc2\x9b",
        b"\xc2\x9d",
        b"\xc2\x9c",
        b"31m",
    ),
    *(
        b"\xe2\x80\xae",
        b"\xe2\x81\xa6",
        b"\xe2\x80\x8b",
        b"\xf3\xa0\x81\x81",
        b"\xed\xa0\x80",
        b"\r\n",
    ),
)


def TestOneInput(data: bytes) -> None:
    """Cleans a text both ways."""
    fuzz = FuzzData(data)
    max_chars = fuzz.integer(1, 200)
    text = text_of(fuzz.rest())
    clean = for_terminal(text)
    for char in clean:
        category = unicodedata.category(char)
        assert category not in {"Cc", "Cs", "Zl", "Zp"} or char in "\t\n"
        assert unicodedata.bidirectional(char) not in BIDI_CONTROLS
        assert category != "Cf" or char in _NEEDED_BY_SCRIPTS or is_drawn(char)
    assert for_terminal(clean) == clean
    assert len(clean) <= len(text)
    clean.encode()
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():
        assert clean == text
    line = for_one_line(text, max_chars=max_chars)
    assert "\n" not in line
    assert len(line) <= max_chars


BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def is_drawn(char: str) -> bool:
    """Whether a format character is one that is seen: signs that span what follows them."""
    return unicodedata.name(char, "").startswith(
        ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND", "MUSICAL")
    )
