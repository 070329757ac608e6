"""The text of a root model's reply, as cells are found in it.

Holds: any text is a reply; a cell is never blank and never more than the text; what a transcript
keeps, read again, holds the same cells; of a reply that was cut the last, open cell is not run.
"""

from __future__ import annotations

from support.fuzz_data import FuzzData, text_of

from orchestrator.engine.parsing import parse_reply

TOKENS = (
    *(
        b"```",
        b"````",
        b"~~~",
        b"```repl\n",
        b"```python\n",
        b"\n```\n",
        b"```json\n",
        b"py",
        b"\r\n",
    ),
    *(
        b"<think>",
        b"</think>",
        b"<thinking>",
        b"\n</think>\n",
        b'"""',
        b"'''",
        b"print(1)",
        b"x = 1\n",
    ),
)


def TestOneInput(data: bytes) -> None:
    """Parses a text under one choice of flags."""
    fuzz = FuzzData(data)
    accepts_bare_code, was_cut = fuzz.flag(), fuzz.flag()
    text = text_of(fuzz.rest())
    reply = parse_reply(text, accepts_bare_code=accepts_bare_code, was_cut=was_cut)
    lines = {line.strip() for line in text.replace("\r", "\n").split("\n")}
    for cell in reply.cells:
        assert cell.strip()
        # Nothing is made up: each line of a cell stands in the reply, or at the end of a line of
        # it where reasoning was cut away before.
        for line in cell.split("\n"):
            assert line.strip() in lines or any(known.endswith(line.strip()) for known in lines)
    assert sum(map(len, reply.cells)) <= len(text)
    assert len(reply.prose) <= len(reply.spoken) <= len(text)
    assert reply.was_cut == was_cut
    whole = parse_reply(text, accepts_bare_code=accepts_bare_code, was_cut=False)
    assert reply.cells == whole.cells[: len(reply.cells)] or len(reply.cells) <= len(whole.cells)
    if "think" not in text.lower():
        # With it: what follows one closing tag may hold another, which then is the first.
        again = parse_reply(reply.spoken, accepts_bare_code=accepts_bare_code, was_cut=was_cut)
        assert again.cells == reply.cells
