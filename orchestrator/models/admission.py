"""Who may ask a provider now, and who has to wait.

Without it one run with hundreds of prompts would take all that an account is allowed, and the
single prompt of another would wait until the last of them. It reads no clock and waits for nothing:
it is told the time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NewType

#: Providers state their limits per minute.
WINDOW_S = 60.0

Ticket = NewType("Ticket", int)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficLimits:
    """What a provider takes. None: as much as comes.

    Attributes:
        concurrent_requests: Under way at once.
        requests_per_minute: Begun within any 60 seconds.
        tokens_per_minute: Of the requests begun within any 60 seconds.
    """

    concurrent_requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Who may go now, and when it is worth asking again.

    Attributes:
        tickets: In the order in which they may go.
        look_again_s: When time alone lets the next one go; None where something else has to happen.
    """

    tickets: tuple[Ticket, ...] = ()
    look_again_s: float | None = None


@dataclass(slots=True, eq=False)  # two that took as much at the same time are still two
class _Spent:
    """One request within the window."""

    at_s: float
    tokens: int
    is_in_window: bool = True


@dataclass(frozen=True, slots=True)
class _Waiting:
    ticket: Ticket
    tokens: int


class Admission:
    """The queue before one provider.

    Those on whose behalf requests wait take turns, one request each; requests of the same one go in
    the order in which they came. Whoever's turn it is and cannot go yet is waited for: a large
    request is not overtaken for ever by small ones.
    """

    def __init__(self, limits: TrafficLimits) -> None:
        """Begins with nobody waiting."""
        self._limits = limits
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._spent: deque[_Spent] = deque()  # within the window, the oldest first
        self._spent_tokens = 0
        self._open: dict[Ticket, _Spent] = {}
        self._shut_until_s = float("-inf")
        self._ticket_count = 0

    @property
    def waiting_count(self) -> int:
        """How many requests wait."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def open_count(self) -> int:
        """How many are under way."""
        return len(self._open)

    def join(self, *, on_behalf_of: str, tokens: int) -> Ticket:
        """Queues a request.

        Args:
            on_behalf_of: Whose it is.
            tokens: What it is expected to take. One that expects more than the whole limit goes
                when nothing else is in the window.
        """
        self._ticket_count += 1
        ticket = Ticket(self._ticket_count)
        self._queues.setdefault(on_behalf_of, deque()).append(_Waiting(ticket, tokens))
        return ticket

    def admit(self, *, now_s: float) -> Admitted:
        """Lets go whoever may, on any clock that does not go backwards."""
        self._forget_before(now_s)
        tickets: list[Ticket] = []
        while self._queues:
            on_behalf_of, queue = next(iter(self._queues.items()))
            first = queue[0]
            look_again_s = self._next_chance_s(first.tokens, now_s)
            if look_again_s is None or look_again_s > now_s:
                return Admitted(tickets=tuple(tickets), look_again_s=look_again_s)
            queue.popleft()
            del self._queues[on_behalf_of]
            if queue:
                self._queues[on_behalf_of] = queue  # at the end: the others' turn
            self._begin(first, now_s)
            tickets.append(first.ticket)
        return Admitted(tickets=tuple(tickets))

    def settle(self, ticket: Ticket, *, tokens: int) -> None:
        """Corrects what a request that is under way was expected to take."""
        spent = self._open.get(ticket)
        if spent is None:
            return
        if spent.is_in_window:
            self._spent_tokens += tokens - spent.tokens
        spent.tokens = tokens

    def leave(self, ticket: Ticket) -> None:
        """Ends a request; what it has taken stays counted for its minute. Idempotent."""
        if self._open.pop(ticket, None) is None:
            self._stop_waiting(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Ends a request that was never sent, so that nothing of it is counted. Idempotent."""
        spent = self._open.pop(ticket, None)
        if spent is None:
            self._stop_waiting(ticket)
        elif spent.is_in_window:
            self._spent.remove(spent)
            self._spent_tokens -= spent.tokens

    def shut_until(self, at_s: float) -> None:
        """Lets nobody go before `at_s`; an earlier time than was said before changes nothing."""
        self._shut_until_s = max(self._shut_until_s, at_s)

    def _begin(self, request: _Waiting, now_s: float) -> None:
        spent = _Spent(now_s, request.tokens)
        self._spent.append(spent)
        self._spent_tokens += spent.tokens
        self._open[request.ticket] = spent

    def _next_chance_s(self, tokens: int, now_s: float) -> float | None:
        """Returns from when on a request may go; None where one under way has to end first."""
        limits = self._limits
        if limits.concurrent_requests is not None and self.open_count >= limits.concurrent_requests:
            return None
        chance_s = max(now_s, self._shut_until_s)
        rate = limits.requests_per_minute
        if rate is not None and len(self._spent) >= rate:
            chance_s = max(chance_s, self._spent[0].at_s + WINDOW_S)
        budget = limits.tokens_per_minute
        if budget is not None:
            left_over = self._spent_tokens + tokens - budget
            for spent in self._spent:
                if left_over <= 0:
                    break
                left_over -= spent.tokens
                chance_s = max(chance_s, spent.at_s + WINDOW_S)
        return chance_s

    def _forget_before(self, now_s: float) -> None:
        while self._spent and self._spent[0].at_s + WINDOW_S <= now_s:
            spent = self._spent.popleft()
            spent.is_in_window = False
            self._spent_tokens -= spent.tokens

    def _stop_waiting(self, ticket: Ticket) -> None:
        for on_behalf_of, queue in self._queues.items():
            for waiting in queue:
                if waiting.ticket == ticket:
                    queue.remove(waiting)
                    if not queue:
                        del self._queues[on_behalf_of]
                    return
