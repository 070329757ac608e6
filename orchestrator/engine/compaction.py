"""Makes room in a root model's window: earlier turns keep their code and lose their talk.

Without it a run of many turns ends where the window does. Nothing is summed up by a model: what a
cell was is kept word for word, of what it printed both ends are. The variables hold the rest, which
is what they are for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.engine.parsing import parse_reply
from orchestrator.engine.transcript import Transcript, Turn

#: Turns that stay as they are: what the root model is in the middle of.
_WHOLE_TURNS = 3
#: Of what an earlier turn was told, how much stays of each end.
_KEPT_HEAD_CHARS = 400
_KEPT_TAIL_CHARS = 200
#: More than the line that stands for what was cut: what was shortened once is not shortened again.
_GAP_CHARS = 60
#: Of a window, the share that a conversation may fill before it is shortened: one more turn, with
#: a long reply and a long output, has to fit.
_WINDOW_SHARE = 0.6
_CHARS_PER_TOKEN = 3  # code and figures have more tokens than prose
_USUAL_WINDOW_TOKENS = 128_000
#: Said once, where the shortened turns begin.
_NOTE = (
    "(Earlier turns are shortened to save room: the code is whole, outputs are cut. Variables "
    "still hold everything.)"
)


def compaction_chars(window_tokens: int | None) -> int:
    """Returns from which length a conversation is shortened, for a window or one nobody knows."""
    return int((window_tokens or _USUAL_WINDOW_TOKENS) * _WINDOW_SHARE * _CHARS_PER_TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What shortening came to.

    Attributes:
        transcript: Shortened.
        turn_count: How many turns were.
        before_chars: Length of all messages before.
        after_chars: And after.
    """

    transcript: Transcript
    turn_count: int
    before_chars: int
    after_chars: int


def compacted(transcript: Transcript, *, accepts_bare_code: bool) -> Compaction | None:
    """Returns a transcript with all but the last turns shortened; None where that gains nothing.

    Args:
        transcript: As it was sent.
        accepts_bare_code: As in `parse_reply`: what of a reply is a cell.
    """
    early = transcript.turns[:-_WHOLE_TURNS]
    shortened = tuple(
        _shortened(turn, accepts_bare_code=accepts_bare_code, is_first=index == 0)
        for index, turn in enumerate(early)
    )
    whole = transcript.turns[len(early) :]
    result = replace(transcript, turns=(*shortened, *whole))
    before_chars, after_chars = transcript.char_count, result.char_count
    if after_chars >= before_chars:
        return None
    return Compaction(
        transcript=result,
        turn_count=sum(old != new for old, new in zip(early, shortened, strict=True)),
        before_chars=before_chars,
        after_chars=after_chars,
    )


def _shortened(turn: Turn, *, accepts_bare_code: bool, is_first: bool) -> Turn:
    feedback = turn.feedback.removeprefix(f"{_NOTE}\n")
    most_chars = _KEPT_HEAD_CHARS + _KEPT_TAIL_CHARS
    if len(feedback) > most_chars + _GAP_CHARS:
        cut_chars = len(feedback) - most_chars
        feedback = f"{feedback[:_KEPT_HEAD_CHARS]}{_gap(cut_chars)}{feedback[-_KEPT_TAIL_CHARS:]}"
    return Turn(
        reply=_without_talk(turn.reply, accepts_bare_code=accepts_bare_code),
        feedback=f"{_NOTE}\n{feedback}" if is_first else feedback,
    )


def _without_talk(reply: str, *, accepts_bare_code: bool) -> str:
    """Returns the cells of a reply, its beginning where it has none."""

    def cells_of(text: str) -> tuple[str, ...]:
        return parse_reply(text, accepts_bare_code=accepts_bare_code, was_cut=False).cells

    cells = cells_of(reply)
    short = "\n\n".join(f"```repl\n{cell}\n```" for cell in cells) or reply[:_KEPT_HEAD_CHARS]
    # A cell with a fence of its own, or a fence that a cut has made whole: code that is not what
    # has run would be worse than talk.
    return short if cells_of(short) == cells else reply


def _gap(char_count: int) -> str:
    return f"\n... [{char_count:,} characters left out] ...\n"
