"""A queue before a provider, and what has to hold of it at every step.

Without it a property of schedules could only be stated at their end, when a limit that was exceeded
for a moment is forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from orchestrator.models.admission import WINDOW_S, Admission, Ticket, TrafficLimits


@dataclass
class Schedule:
    """An admission under test, and what is known about it from outside."""

    limits: TrafficLimits
    admission: Admission = field(init=False)
    now_s: float = 0.0
    shut_until_s: float = 0.0
    waiting: dict[str, list[Ticket]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[Ticket, int] = field(default_factory=dict)
    names: dict[Ticket, str] = field(default_factory=dict)
    begun_s: dict[Ticket, float] = field(default_factory=dict)
    open: list[Ticket] = field(default_factory=list)
    #: How often each name was served while another has been waiting.
    served_before: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begins with nobody waiting, at 0."""
        self.admission = Admission(self.limits)

    @property
    def waiting_count(self) -> int:
        """How many wait, as counted from outside."""
        return sum(map(len, self.waiting.values()))

    def join(self, name: str, tokens: int) -> None:
        """One more request waits."""
        ticket = self.admission.join(on_behalf_of=name, tokens=tokens)
        bound = self.limits.tokens_per_minute
        self.tokens[ticket] = tokens if bound is None else min(tokens, bound)
        self.names[ticket] = name
        if not self.waiting[name]:
            self.served_before[name] = defaultdict(int)
        self.waiting[name].append(ticket)

    def withdraw(self, number: int) -> None:
        """One that waits is taken back, if one does."""
        tickets = [one for queue in self.waiting.values() for one in queue]
        if tickets:
            ticket = tickets[number % len(tickets)]
            self.waiting[self.names[ticket]].remove(ticket)
            self.admission.withdraw(ticket)

    def end(self, number: int, share: float) -> None:
        """One under way ends, having taken a share of what was expected."""
        if self.open:
            ticket = self.open.pop(number % len(self.open))
            # As estimated or less: what exceeds an estimate is known when it is too late.
            self.tokens[ticket] = int(self.tokens[ticket] * share)
            self.admission.settle(ticket, tokens=self.tokens[ticket])
            self.admission.leave(ticket)

    def shut(self, wait_s: float) -> None:
        """The endpoint asks to wait."""
        self.shut_until_s = max(self.shut_until_s, self.now_s + wait_s)
        self.admission.shut_until(self.now_s + wait_s)

    def admit(self) -> float | None:
        """Lets go whoever may, checks that they may, and returns when to look again."""
        admitted = self.admission.admit(now_s=self.now_s)
        for ticket in admitted.tickets:
            name = self.names[ticket]
            assert self.waiting[name].pop(0) == ticket  # in the order in which they came
            self.begun_s[ticket] = self.now_s
            self.open.append(ticket)
            self.served_before[name] = defaultdict(int)
            for other, queue in self.waiting.items():
                if queue and other != name:
                    self.served_before[other][name] += 1
                    assert self.served_before[other][name] <= 1  # turn and turn about
            self.check_limits()
        if admitted.tickets:
            assert self.now_s >= self.shut_until_s
        return admitted.look_again_s

    def check_limits(self) -> None:
        """Checks what is under way and what was begun within the last minute."""
        recent = [one for one, at_s in self.begun_s.items() if at_s + WINDOW_S > self.now_s]
        limits = self.limits
        assert limits.concurrent_requests is None or len(self.open) <= limits.concurrent_requests
        assert limits.requests_per_minute is None or len(recent) <= limits.requests_per_minute
        taken = sum(self.tokens[ticket] for ticket in recent)
        assert limits.tokens_per_minute is None or taken <= limits.tokens_per_minute
