"""Notices when a root model goes round in circles.

Without it a model that checks its answer five times pays for four of them: the seed's most frequent
waste, and in the tail of all costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.engine.prompts.remarks import repeated_queries, repetition, verifying
from orchestrator.events import NoticeKind

#: So many prompts asked again in one turn are no accident.
_TELLING_REPEATS = 2
#: And so many turns around an unchanged draft are no second look.
_TELLING_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One remark to the root model."""

    kind: NoticeKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFacts:
    """What a turn came to.

    Attributes:
        turn: Its number.
        cells: Their sources.
        reports: What the root model is told of each.
        draft: `answer["content"]` at its end.
        asked_count: Prompts that its cells sent.
        repeated_count: Of those the ones that had been answered before.
    """

    turn: int
    cells: Sequence[str]
    reports: Sequence[str]
    draft: str
    asked_count: int
    repeated_count: int


class Watch:
    """Looks at the turns of one run as they end."""

    def __init__(self) -> None:
        """Begins before the first turn."""
        self._outcomes: dict[tuple[str, ...], tuple[int, tuple[str, ...]]] = {}
        self._draft = ""
        self._draft_turn = 0

    def look(self, facts: TurnFacts) -> list[Notice]:
        """Takes one more turn in, and returns what is to be said about it."""
        return [
            notice
            for notice in (
                self._repeated_cells(facts),
                self._repeated_queries(facts),
                self._unchanged_draft(facts),
            )
            if notice
        ]

    def _repeated_cells(self, facts: TurnFacts) -> Notice | None:
        cells, reports = tuple(facts.cells), tuple(facts.reports)
        earlier_turn, earlier_reports = self._outcomes.get(cells, (0, ()))
        self._outcomes[cells] = (facts.turn, reports)
        if not cells or earlier_reports != reports:
            return None
        return Notice(kind=NoticeKind.REPEATED_CELLS, text=repetition(earlier_turn))

    @staticmethod
    def _repeated_queries(facts: TurnFacts) -> Notice | None:
        repeated = facts.repeated_count
        if repeated < _TELLING_REPEATS or 2 * repeated < facts.asked_count:
            return None
        text = repeated_queries(repeated, facts.asked_count)
        return Notice(kind=NoticeKind.REPEATED_QUERIES, text=text)

    def _unchanged_draft(self, facts: TurnFacts) -> Notice | None:
        if facts.draft != self._draft:
            self._draft, self._draft_turn = facts.draft, facts.turn
            return None
        turn_count = facts.turn - self._draft_turn
        if not self._draft.strip() or not turn_count or turn_count % _TELLING_TURNS:
            return None
        return Notice(kind=NoticeKind.VERIFYING, text=verifying(turn_count))
