"""How to go about a context of a given size: the table that fills the prompts.

Without it every root model would find its own first decomposition, which the paper names as what
decides the score.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Characters of context worth putting into one query: more costs accuracy, fewer cost money
#: (the paper's figure for its sub-models).
PIECE_CHARS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingAdvice:
    """What to do with a context below a size.

    Attributes:
        below_chars: The row is for contexts shorter than this; None in the last row.
        advice: One or two sentences for the root model.
    """

    below_chars: int | None
    advice: str


#: Sizes and numbers of queries are the paper's.
CHUNKING: tuple[ChunkingAdvice, ...] = (
    ChunkingAdvice(
        below_chars=100_000,
        advice="The whole context fits into one query; 1 to 3 queries should do.",
    ),
    ChunkingAdvice(
        below_chars=1_000_000,
        advice="Where all of it has to be read, cut it into even pieces of about 200,000 "
        "characters; 5 to 10 queries should do.",
    ),
    ChunkingAdvice(
        below_chars=10_000_000,
        advice="Find its structure, partition it along that, and filter in Python before anything "
        "is sent; 10 to 50 queries should do.",
    ),
    ChunkingAdvice(
        below_chars=None,
        advice="It is too long to be read whole. Work in stages: filter in Python, have the "
        "sub-model read what is left, combine its answers in Python, and go on from there.",
    ),
)


def chunking_advice(*, total_chars: int, query_chars: int) -> str:
    """Returns the advice for a context, true for a sub-model with a window of `query_chars`."""
    piece_chars = min(PIECE_CHARS, query_chars * 4 // 5)  # the rest is for the question
    row = next(r for r in CHUNKING if r.below_chars is None or total_chars < r.below_chars)
    if piece_chars == PIECE_CHARS or row.below_chars is None:
        return row.advice
    if total_chars <= piece_chars:
        return CHUNKING[0].advice
    piece_count = -(-total_chars // piece_chars)
    return (
        f"Cut into pieces of {piece_chars:,} characters, all of it would take {piece_count:,} "
        "queries: filter in Python before anything is sent."
    )
