"""What it takes to answer one prompt of a cell, whoever answers it.

Without it the desk that checks, pays and remembers would have to know models, child runs and tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from orchestrator.chat import ModelReply
from orchestrator.domain import (
    NotedAnswer,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryRequest,
)
from orchestrator.engine.ledger import Amounts, Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one prompt: a reply or a failure, and what the cell is told beside it."""

    reply: ModelReply | None = None
    failure: QueryFailure | None = None
    notice: str = ""

    @classmethod
    def failed(cls, reason: QueryFailureReason, message: str) -> Outcome:
        """Returns a failure."""
        return cls(failure=QueryFailure(reason=reason, message=message))

    @property
    def answer(self) -> QueryAnswer:
        """The outcome as it goes to the cell."""
        if self.reply is None:
            return self.failure or CANCELLED
        if self.notice:
            return NotedAnswer(text=self.reply.text, notice=self.notice)
        return self.reply.text


#: What a cell would read that no longer runs.
CANCELLED = QueryFailure(
    reason=QueryFailureReason.CANCELLED, message="the cell ended before the answer came"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """The work of answering one prompt.

    Attributes:
        amounts: What it takes at most; reserved before.
        counts: What is spent of that when it is dispatched, whatever comes of it.
        slot: Waits for its turn.
        run: Does it, within what is reserved, and charges what it took beside `counts`. Never
            raises but for cancellation.
    """

    amounts: Amounts
    counts: Amounts
    slot: Callable[[], AbstractAsyncContextManager[None]]
    run: Callable[[Reservation], Awaitable[Outcome]]


class Answerer(Protocol):
    """One sort of answer."""

    @property
    def remembers(self) -> bool:
        """Whether the same prompt gets the same answer."""
        ...

    def model_name(self, request: QueryRequest) -> str:
        """Returns who answers, as usage and caps have it; empty where it is no model."""
        ...

    def key(self, request: QueryRequest, prompt: str) -> tuple[str, ...]:
        """Returns what two prompts have in common that get the same answer."""
        ...

    def errands(self, request: QueryRequest, prompts: Sequence[tuple[int, str]]) -> list[Errand]:
        """Returns the work for each of some prompts of a request, given with their indexes."""
        ...
