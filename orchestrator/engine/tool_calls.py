"""Answers tool calls of a cell with what the caller's functions return.

Without it a tool would be outside of the ledger: called in any number, for any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.chat import ModelReply
from orchestrator.domain import QueryFailure, QueryRequest
from orchestrator.engine.errands import Errand, Outcome
from orchestrator.engine.ledger import Amounts, Reservation
from orchestrator.engine.slots import Slots
from orchestrator.engine.tools import Toolbox

_COUNTS = Amounts(tool_calls=1)


class ToolCalls:
    """An `Answerer` that calls the caller's functions."""

    #: A function may answer otherwise the next time, or do something.
    remembers = False

    def __init__(self, *, toolbox: Toolbox, slots: Slots) -> None:
        """Joins the parts."""
        self._toolbox = toolbox
        self._slots = slots

    def model_name(self, request: QueryRequest) -> str:
        """See `Answerer.model_name`."""
        del request
        return ""

    def key(self, request: QueryRequest, prompt: str) -> tuple[str, ...]:
        """See `Answerer.key`."""
        return (request.tool_name, prompt)

    def errands(self, request: QueryRequest, prompts: Sequence[tuple[int, str]]) -> list[Errand]:
        """See `Answerer.errands`."""
        return [self._errand(request.tool_name, prompt) for _, prompt in prompts]

    def _errand(self, name: str, arguments_json: str) -> Errand:
        async def run(_reservation: Reservation) -> Outcome:
            result = await self._toolbox.call(name, arguments_json)
            if isinstance(result, QueryFailure):
                return Outcome(failure=result)
            return Outcome(reply=ModelReply(text=result, cost_usd=0.0))

        return Errand(amounts=_COUNTS, counts=_COUNTS, slot=self._slots.tool_call, run=run)
