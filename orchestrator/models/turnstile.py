"""Where requests wait until their provider may be asked.

Without it every client of one provider would count by itself, and what an account is allowed would
be exceeded by as many times as there are clients. `Admission` decides; this waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.models.admission import Admission, Ticket, TrafficLimits
from orchestrator.providers import ModelSettings, ProviderSettings

#: An endpoint that asks to wait for longer is asked again after this: whoever waits then reads its
#: own words, instead of waiting in silence.
LONGEST_SHUT_S = 60.0


class Passage:
    """One request that may be sent."""

    def __init__(self, admission: Admission, ticket: Ticket) -> None:
        """Stands for a request under way."""
        self._admission = admission
        self._ticket = ticket

    def settle(self, *, tokens: int) -> None:
        """Says what the request has taken in truth."""
        self._admission.settle(self._ticket, tokens=tokens)


class Turnstile:
    """The way to one provider; used from one event loop only."""

    def __init__(self, limits: TrafficLimits) -> None:
        """Begins with nobody waiting."""
        self._admission = Admission(limits)
        self._arrivals: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting_count(self) -> int:
        """How many requests wait."""
        return self._admission.waiting_count

    @property
    def open_count(self) -> int:
        """How many are under way."""
        return self._admission.open_count

    @asynccontextmanager
    async def passed(self, *, on_behalf_of: str, tokens: int) -> AsyncIterator[Passage]:
        """Waits for a request's turn; leaving the context ends the request.

        Cancelling whoever waits takes the request out of the queue, as if it had not been there.

        Args:
            on_behalf_of: Those who wait take turns by this.
            tokens: What the request is expected to take.
        """
        loop = asyncio.get_running_loop()
        ticket = self._admission.join(on_behalf_of=on_behalf_of, tokens=tokens)
        arrival = self._arrivals[ticket] = loop.create_future()
        was_sent = False
        try:
            self._let_through(loop)
            await arrival
            was_sent = True
            yield Passage(self._admission, ticket)
        finally:
            del self._arrivals[ticket]
            if was_sent:
                self._admission.leave(ticket)
            else:
                self._admission.withdraw(ticket)
            self._let_through(loop)

    def shut_for(self, wait_s: float) -> None:
        """Lets nobody through for a while, `LONGEST_SHUT_S` at most: the provider asks for it."""
        loop = asyncio.get_running_loop()
        self._admission.shut_until(loop.time() + min(wait_s, LONGEST_SHUT_S))

    def _let_through(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        admitted = self._admission.admit(now_s=loop.time())
        for ticket in admitted.tickets:
            arrival = self._arrivals[ticket]
            # Whoever was cancelled a moment ago gives its place back when it wakes up.
            if not arrival.done():
                arrival.set_result(None)
        if admitted.look_again_s is not None:
            self._timer = loop.call_at(admitted.look_again_s, self._let_through, loop)


class Turnstiles:
    """All turnstiles of one composition: one for each provider, one for each model with a limit."""

    def __init__(self) -> None:
        """Begins with none; each is made when it is first asked for."""
        self._of_providers: dict[tuple[str | None, str | None], Turnstile] = {}
        self._of_models: dict[str, Turnstile] = {}

    def before(
        self, model: str, *, provider_settings: ProviderSettings, settings: ModelSettings
    ) -> tuple[Turnstile, ...]:
        """Returns what a request to `model` has to pass, in this order.

        The model's own comes first: whoever waits there takes no place at the provider from others.
        """
        provider = self._of_providers.setdefault(
            (settings.provider, provider_settings.base_url),
            Turnstile(
                TrafficLimits(
                    concurrent_requests=provider_settings.concurrent_requests,
                    requests_per_minute=provider_settings.requests_per_minute,
                    tokens_per_minute=provider_settings.tokens_per_minute,
                )
            ),
        )
        if settings.concurrent_requests is None:
            return (provider,)
        limits = TrafficLimits(concurrent_requests=settings.concurrent_requests)
        return (self._of_models.setdefault(model, Turnstile(limits)), provider)
