"""What a run tree may spend: reserved before anything is dispatched, settled after.

Without it concurrent queries would each see the whole remaining budget. That is how the reference
implementation spends 9 under a limit of 8 and reports 5.

Money is counted in whole billionths of a dollar, rounded up: sums of floats do not return to zero.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from orchestrator.engine.refusals import refusal
from orchestrator.errors import BudgetExhaustedError
from orchestrator.limits import ModelCap, RunLimits

NANODOLLARS_PER_USD = 1_000_000_000

#: Set aside for a last request for a best answer, of money and tokens alike.
_LAST_REQUEST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What something takes, of everything that is limited.

    Attributes:
        queries: Prompts to sub-models.
        child_runs: Runs started by a cell.
        tool_calls: Calls of the caller's functions.
        requests: Requests to a provider; limited by model only.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens received.
        nanodollars: Money.
    """

    queries: int = 0
    child_runs: int = 0
    tool_calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanodollars: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """Returns both together."""
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})

    def minus(self, other: Amounts) -> Amounts:
        """Returns what is left of this when `other` is taken away; nothing falls below zero."""
        return Amounts(
            **{name: max(getattr(self, name) - getattr(other, name), 0) for name in _NAMES}
        )

    @property
    def usd(self) -> float:
        """The money, in dollars."""
        return self.nanodollars / NANODOLLARS_PER_USD


_NAMES = tuple(field.name for field in fields(Amounts))
#: How the settings call what an amount is limited by, where that is another word.
_SETTINGS_NAMES: Mapping[str, str] = {"nanodollars": "usd"}


def nanodollars_of(usd: float) -> int:
    """Returns an amount of money as a whole number of billionths, rounded up."""
    # The sum of a thousand exact prices must not be rounded up a thousand times.
    return math.ceil(round(usd * NANODOLLARS_PER_USD, 3))


@dataclass(slots=True)
class _Account:
    """Limited quantities of one owner: a run tree, or one model in it.

    Always: spent + reserved <= allowed, for every quantity whose actual amount was not above what
    had been reserved for it.
    """

    name: str
    allowed: dict[str, int]
    kept_back: dict[str, int]
    spent: dict[str, int]
    reserved: dict[str, int]

    @classmethod
    def of(cls, name: str, allowed: Mapping[str, int | None], *, share: float) -> _Account:
        limited = {key: value for key, value in allowed.items() if value is not None}
        kept = {
            key: int(value * share)
            for key, value in limited.items()
            if key in {"nanodollars", "prompt_tokens", "completion_tokens"}
        }
        zeros = dict.fromkeys(_NAMES, 0)
        return cls(
            name=name, allowed=limited, kept_back=kept, spent=dict(zeros), reserved=dict(zeros)
        )

    def left(self, key: str, *, is_last: bool) -> int | None:
        """Returns how much may still be reserved; None where there is no limit."""
        if key not in self.allowed:
            return None
        kept = 0 if is_last else self.kept_back.get(key, 0)
        return max(self.allowed[key] - self.spent[key] - self.reserved[key] - kept, 0)

    def add_reserved(self, amounts: Amounts, sign: int) -> None:
        for key in _NAMES:
            self.reserved[key] += sign * getattr(amounts, key)

    def add_spent(self, amounts: Amounts) -> None:
        for key in _NAMES:
            self.spent[key] += getattr(amounts, key)


class Reservation:
    """Amounts set aside for one piece of work; charged with what it took, the rest given back.

    `close` is the only way out, under an error and under cancellation alike; so what is reserved
    returns to zero whatever becomes of the work.
    """

    def __init__(
        self, ledger: Ledger, accounts: Sequence[_Account], amounts: Amounts, *, is_last: bool
    ) -> None:
        """Made by `Ledger.reserve` only, which has already set the amounts aside."""
        self._ledger = ledger
        self._accounts = accounts
        self._amounts = amounts
        self._held = amounts
        self._is_last = is_last

    @property
    def held(self) -> Amounts:
        """What is set aside now."""
        return self._held

    def charge(self, spent: Amounts) -> None:
        """Counts something as spent, out of what is set aside as far as that goes."""
        with self._ledger.lock:
            taken = self._held.minus(self._held.minus(spent))
            self._held = self._held.minus(taken)
            for account in self._accounts:
                account.add_reserved(taken, -1)
                account.add_spent(spent)

    def renew(self, amounts: Amounts) -> None:
        """Sets `amounts` aside instead of what is left: for another try.

        Raises:
            BudgetExhaustedError: They are not there any more. What was set aside is given back.
        """
        self.close()
        self._ledger.take(self._accounts, [amounts], is_last=self._is_last)
        self._held = amounts

    def close(self) -> None:
        """Gives back what is set aside still. Idempotent."""
        with self._ledger.lock:
            for account in self._accounts:
                account.add_reserved(self._held, -1)
            self._held = Amounts()


class Ledger:
    """The account of one run tree. Nothing a sandbox sends can raise a limit of it."""

    def __init__(
        self, *, limits: RunLimits, read_clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Opens the account; time runs from here.

        Args:
            limits: What the tree may spend.
            read_clock: Seconds of a clock that never goes back.
        """
        self._limits = limits
        self._read_clock = read_clock
        self._started_s = read_clock()
        self._tree = _Account.of(
            "",
            {
                "queries": limits.queries,
                "child_runs": limits.child_runs,
                "tool_calls": limits.tool_calls,
                "prompt_tokens": limits.prompt_tokens,
                "completion_tokens": limits.completion_tokens,
                "nanodollars": None if limits.usd is None else nanodollars_of(limits.usd),
            },
            share=_LAST_REQUEST_SHARE,
        )
        self._models = {name: _account_of(name, cap) for name, cap in limits.models.items()}
        self._was_refused: set[str] = set()
        # One event loop runs a tree, so its tasks cannot interleave between a check and the update
        # that follows. The lock makes that a property of this class rather than of its callers;
        # nothing is awaited under it.
        self.lock = threading.RLock()

    @property
    def spent(self) -> Amounts:
        """What was spent so far."""
        with self.lock:
            return Amounts(**self._tree.spent)

    @property
    def reserved(self) -> Amounts:
        """What is set aside and not yet settled."""
        with self.lock:
            return Amounts(**self._tree.reserved)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the account was opened."""
        return self._read_clock() - self._started_s

    @property
    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(self._limits.time_s - self.elapsed_s, 0.0)

    def left(self, key: str, *, model: str = "", is_last: bool = False) -> int | None:
        """Returns how much of an amount may still be reserved; None where there is no limit.

        Args:
            key: A field of `Amounts`.
            model: Whose cap counts as well; empty for no model's.
            is_last: Whether what is kept back for the last request may be used.
        """
        with self.lock:
            lefts = [account.left(key, is_last=is_last) for account in self._accounts(model)]
        limited = [left for left in lefts if left is not None]
        return min(limited, default=None)

    def is_used_up(self, key: str) -> bool:
        """Whether all of an amount was spent and more was asked for."""
        return key in self._was_refused and not self.left(key)

    def limits_money_or_completions(self, model: str) -> bool:
        """Whether a longer reply of `model` could break a limit."""
        return any(
            key in account.allowed
            for account in self._accounts(model)
            for key in ("nanodollars", "completion_tokens")
        )

    def reserve(
        self, amounts: Sequence[Amounts], *, model: str = "", is_last: bool = False
    ) -> tuple[Reservation, ...]:
        """Sets amounts aside, all of them or none.

        Args:
            amounts: Of each piece of work.
            model: Whose cap counts as well; empty for no model's.
            is_last: Whether what is kept back for the last request may be used.

        Returns:
            One reservation for each; the caller closes each.

        Raises:
            BudgetExhaustedError: They cannot be afforded whole. Nothing was set aside; the text is
                made for the root model.
        """
        accounts = self._accounts(model)
        self.take(accounts, amounts, is_last=is_last)
        return tuple(Reservation(self, accounts, each, is_last=is_last) for each in amounts)

    def take(
        self, accounts: Sequence[_Account], amounts: Sequence[Amounts], *, is_last: bool
    ) -> None:
        """Does what `reserve` does, without the reservations; called by `Reservation`."""
        total = _sum(amounts)
        with self.lock:
            if not self.left_s:
                message = "the run's time is over; nothing more is asked"
                raise BudgetExhaustedError(
                    message, limit="time_s", used=self.elapsed_s, allowed=self._limits.time_s
                )
            for account in accounts:
                self._check(account, total, count=len(amounts), is_last=is_last)
            for account in accounts:
                account.add_reserved(total, 1)

    def _check(self, account: _Account, total: Amounts, *, count: int, is_last: bool) -> None:
        for key in account.allowed:
            asked, left = getattr(total, key), account.left(key, is_last=is_last)
            if left is None or asked <= left:
                continue
            if account is self._tree:
                self._was_refused.add(key)
            used = account.spent[key] + account.reserved[key]
            is_money = key == "nanodollars"
            scale = NANODOLLARS_PER_USD if is_money else 1
            limit = _SETTINGS_NAMES.get(key, key)
            raise BudgetExhaustedError(
                refusal(limit, asked=asked / scale, left=left / scale, count=count),
                limit=f"models.{account.name}.{limit}" if account.name else limit,
                used=used / scale,
                allowed=account.allowed[key] / scale,
            )

    def _accounts(self, model: str) -> list[_Account]:
        found = self._models.get(model)
        return [self._tree] if found is None else [self._tree, found]


def _account_of(name: str, cap: ModelCap) -> _Account:
    return _Account.of(
        name,
        {
            "requests": cap.requests,
            "prompt_tokens": cap.prompt_tokens,
            "completion_tokens": cap.completion_tokens,
            "nanodollars": None if cap.usd is None else nanodollars_of(cap.usd),
        },
        share=0.0,
    )


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for each in amounts:
        total = total.plus(each)
    return total
