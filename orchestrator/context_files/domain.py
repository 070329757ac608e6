"""Guesses from the names of files what a context is about.

Without it a folder of source code would be gone about like a pile of letters, unless its user knew
of an option.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

_CODE = frozenset(
    """
    .asm .bash .c .cc .cjs .clj .cljs .cmake .cpp .cs .cxx .dart .el .erl .ex .exs .f90 .fs .go
    .gradle .groovy .h .hh .hpp .hs .java .jl .js .jsx .kt .kts .lisp .lua .m .mjs .ml .mli .mm .nim
    .pas .php .pl .pm .proto .ps1 .py .pyi .pyx .r .rb .rs .s .scala .sh .sol .sql .svelte .swift
    .tf .ts .tsx .v .vb .vhd .vue .zig .zsh
    """.split()  # noqa: SIM905 - a list of literals would be a page
)
_CODE_NAMES = frozenset({"makefile", "dockerfile", "jenkinsfile", "rakefile", "cmakelists.txt"})
_KIND_BY_SUFFIX: Final[Mapping[str, str]] = {
    **dict.fromkeys(_CODE, "code"),
    **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), "tables"),
    ".log": "logs",
}


def guess_domain(names: Iterable[str]) -> str:
    """Returns the domain of most of the files that are called so, or nothing where none has most.

    Args:
        names: Of the files of a context, with or without their folders.
    """
    domains = Counter(map(_domain_of, names))
    if not domains:
        return ""
    domain, count = domains.most_common(1)[0]
    return domain if 2 * count > domains.total() else ""


def _domain_of(name: str) -> str:
    path = PurePosixPath(name.lower())
    if path.name in _CODE_NAMES:
        return "code"
    # One that has been turned over is still a log: `app.log.1`.
    suffixes = [suffix for suffix in path.suffixes if not suffix[1:].isdigit()]
    return _KIND_BY_SUFFIX.get(suffixes[-1], "") if suffixes else ""
