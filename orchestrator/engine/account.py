"""One run's view of its tree's ledger: what it has used itself, its child runs included.

Without it a child run's result would report the spending of the whole tree as its own, or the
parent's would leave the child's out, as the reference implementation does.
"""

from __future__ import annotations

from orchestrator.chat import ModelReply, ModelUsage
from orchestrator.engine.ledger import Amounts, Ledger, Reservation


class Account:
    """Charges a reservation, and remembers for whom; the ledger it stands on is the tree's."""

    def __init__(self, ledger: Ledger, *, parent: Account | None = None) -> None:
        """Opens the account of a run; `parent` is told of everything that it is told of."""
        self.ledger = ledger
        self._parent = parent
        self._usage: dict[str, ModelUsage] = {}
        self._spent = Amounts()

    @property
    def usage(self) -> dict[str, ModelUsage]:
        """What each model was used for, by its name."""
        return dict(self._usage)

    @property
    def spent(self) -> Amounts:
        """What was spent."""
        return self._spent

    def charge(self, reservation: Reservation, amounts: Amounts) -> None:
        """Counts something that has no model: a query that leaves, a call of a tool."""
        reservation.charge(amounts)
        self._add(amounts)

    def charge_reply(
        self, reservation: Reservation, amounts: Amounts, *, model: str, reply: ModelReply
    ) -> None:
        """Counts an answered request."""
        reservation.charge(amounts)
        self._add(amounts)
        self._note(model, reply=reply)

    def charge_unanswered(self, reservation: Reservation, amounts: Amounts, *, model: str) -> None:
        """Counts a request that may be billed although nothing came of it."""
        reservation.charge(amounts)
        self._add(amounts)
        self._note(model, unanswered_usd=amounts.usd)

    def _add(self, amounts: Amounts) -> None:
        self._spent = self._spent.plus(amounts)
        if self._parent is not None:
            self._parent._add(amounts)  # noqa: SLF001 - of its own class

    def _note(
        self, model: str, *, reply: ModelReply | None = None, unanswered_usd: float = 0.0
    ) -> None:
        usage = self._usage.get(model, ModelUsage())
        self._usage[model] = (
            usage.plus_unanswered(usd=unanswered_usd) if reply is None else usage.plus(reply)
        )
        if self._parent is not None:
            self._parent._note(  # noqa: SLF001 - likewise
                model, reply=reply, unanswered_usd=unanswered_usd
            )
