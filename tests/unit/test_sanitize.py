import io
import time
import unicodedata

import pytest

from orchestrator.cli.sanitize import for_one_line, for_terminal

_ACTING = {
    "colour": ("\x1b[31mred\x1b[0m", "red"),
    "colour, 8-bit introducer": ("\x9b31mred", "red"),
    "erase the screen": ("a\x1b[2Jb", "ab"),
    "move the cursor": ("a\x1b[1;1Hb", "ab"),
    "private mode": ("a\x1b[?1049hb", "ab"),
    "window title": ("a\x1b]0;owned\x07b", "ab"),
    "clipboard": ("a\x1b]52;c;cm0gLXJmIH4=\x1b\\b", "ab"),
    "hyperlink": ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
    "device control": ("a\x1bPq#0;2;0;0;0\x1b\\b", "ab"),
    "title, 8-bit": ("a\x9d0;owned\x9cb", "ab"),
    "reset": ("a\x1bcb", "ab"),
    "character set": ("a\x1b(0b", "ab"),
    "answerback": ("a\x05b", "ab"),
    "bell": ("a\x07b", "ab"),
    "backspace": ("safe\x08\x08\x08\x08evil", "safeevil"),
    "delete": ("a\x7fb", "ab"),
    "shift out": ("a\x0eb", "ab"),
    "NUL": ("a\0b", "ab"),
    "carriage return": ("real\rfake", "real\nfake"),
    "vertical tab": ("a\x0bb", "ab"),
    "form feed": ("a\x0cb", "ab"),
    "right-to-left override": ("user\u202etxt.exe", "usertxt.exe"),
    "isolates": ("a\u2066b\u2069c", "abc"),
    "direction marks": ("a\u200eb\u200fc\u061cd", "abcd"),
    "zero-width space": ("a\u200bb", "ab"),
    "byte order mark inside": ("a\ufeffb", "ab"),
    "tag letters": ("a\U000e0041\U000e0042b", "ab"),
    "line separator": ("a\u2028b", "ab"),
    "soft hyphen": ("a\u00adb", "ab"),
    "half a surrogate pair": ("a\udc80b", "a\ufffdb"),
    "sequence inside a sequence": ("\x1b\x1b[0m[31mred", "[31mred"),
    "unfinished sequence": ("a\x1b[31", "a[31"),
    "unfinished title": ("a\x1b]0;shown", "a]0;shown"),
}
_KEPT = {
    "line feed and tab": "a\n\tb",
    "accents": "naïve café",
    "Arabic": "مرحبا",
    "Persian with a non-joiner": "می‌خواهم",
    "emoji joined": "👩‍💻",
    "Chinese": "你好",
    "brackets like markup": "[bold]not markup[/bold]",
}


@pytest.mark.parametrize(("text", "shown"), _ACTING.values(), ids=_ACTING.keys())
def test_nothing_a_terminal_acts_on_is_left(text: str, shown: str) -> None:
    """Text of a model or a sandbox can neither move, hide, colour nor reorder what is shown."""
    assert for_terminal(text) == shown


@pytest.mark.parametrize("text", _KEPT.values(), ids=_KEPT.keys())
def test_what_people_write_is_kept(text: str) -> None:
    """The control: text in any script comes through as it is."""
    assert for_terminal(text) == text


def test_no_control_or_unseen_character_survives_alone() -> None:
    """Of all control and bidirectional characters only tab and line feed come through."""
    acting = [
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(chr(code))
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    ]

    left = {char for char in acting if for_terminal(f"a{char}é") not in {"aé", "a\ufffdé"}}

    assert left == {"\t", "\n", "\r"}
    assert for_terminal("\r") == "\n"


def test_result_can_be_written() -> None:
    """What comes out can be encoded as UTF-8, whatever went in."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    stream.write(for_terminal("".join(chr(code) for code in range(0x3000)) + "\ud800"))


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[1;", "\x9d", "\x1bP", "\x1b( "])
def test_time_is_linear(piece: str) -> None:
    """Openings that are never closed do not make the cleaning quadratic."""
    started_s = time.monotonic()
    for_terminal(piece * 500_000)

    # Quadratic time would be hours; two megabytes take a few tenths of a second.
    assert time.monotonic() - started_s < 10.0


def test_one_line_is_one_line() -> None:
    """A line feed in untrusted text cannot make a line that looks like this program's own."""
    assert for_one_line("a\n\r\n\tb\u2028c", max_chars=20) == "a bc"


def test_one_line_is_cut_and_says_so() -> None:
    """A long text ends in an ellipsis within the room it was given."""
    assert for_one_line("x" * 50, max_chars=10) == "x" * 9 + "…"
    assert for_one_line("x" * 10, max_chars=10) == "x" * 10
