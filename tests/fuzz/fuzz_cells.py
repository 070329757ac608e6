"""The source of a cell, as the language policy and the compiler read it.

Holds: nothing is raised but a rejection; its message is one a model can be shown, says what to do,
and does not grow with the cell; what `guarded` accepts, `open` accepts.
"""

from __future__ import annotations

import warnings

from support.fuzz_data import FuzzData, text_of

from sandbox_image.repl.language import CellRejectedError, LanguagePolicy, compile_cell

_MAX_MESSAGE_CHARS = 4_000

TOKENS = (
    *(b"import ", b"from ", b"numpy", b"os.system", b" as ", b"__import__(", b"getattr(", b"eval("),
    *(
        b"__globals__",
        b".gi_frame",
        b"__builtins__",
        b"def f(",
        b"class ",
        b"lambda",
        b"async ",
        b"await ",
    ),
    *(
        b"match x:\n case ",
        b"try:\n",
        b"except* ",
        b"ExceptionGroup",
        b"with ",
        b"f'{",
        b"format(",
        b"{0.",
    ),
    *(b"type X = ", b"global ", b"nonlocal ", b"```", b"\xe2\x80\x9c", b"\n\t", b"\\\n", b"\x0c"),
)


def TestOneInput(data: bytes) -> None:
    """Compiles a text under both policies."""
    fuzz = FuzzData(data)
    known_names = {"input"} if fuzz.flag() else set[str]()
    source = text_of(fuzz.rest())
    is_accepted = {policy: accepts(source, policy, known_names) for policy in ("guarded", "open")}
    assert is_accepted["open"] or not is_accepted["guarded"]


def accepts(source: str, policy: LanguagePolicy, known_names: set[str]) -> bool:
    """Whether a cell is compiled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile_cell(source, policy=policy, filename="<cell 1>", known_names=known_names)
    except CellRejectedError as rejected:
        assert rejected.message.splitlines()[-1].strip() not in {"", "^"}
        assert len(rejected.message) <= _MAX_MESSAGE_CHARS
        assert all(char.isprintable() or char == "\n" for char in rejected.message)
        return False
    assert code.co_filename == "<cell 1>"
    return True
