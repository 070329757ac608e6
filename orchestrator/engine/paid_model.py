"""A model whose every request is paid for from a run tree's ledger.

Without it root turns, queries and retries would each reserve and settle in their own way, and one
of them would forget. Three steps: plan (what may it take at most?), reserve, ask.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.chat import ModelReply, ModelRequest, TextSink
from orchestrator.domain import RunId
from orchestrator.engine.account import Account
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Amounts, Ledger, Reservation, nanodollars_of
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import BudgetExhaustedError, ModelRefusedError, ModelUnavailableError
from orchestrator.events import RequestFailed, RunEvent
from orchestrator.ports import ModelClient

_logger = logging.getLogger(__name__)

#: The longest reply that is reserved for where a model's own longest is not known.
_USUAL_COMPLETION_TOKENS = 16_384
#: A reply that may be shorter than this is not worth asking for: reasoning alone takes as much.
_LEAST_COMPLETION_TOKENS = 256
#: Of what is left for completions, the share that one call may set aside while it can do with less:
#: the rest is for whoever asks next.
_CALL_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """A request with its bound, and what it may take at most."""

    request: ModelRequest
    amounts: Amounts


class PaidModel:
    """One model, for the runs of one tree."""

    def __init__(
        self, model: ModelClient, *, estimator: TokenEstimator, retry: RetryPolicy
    ) -> None:
        """Takes a client, which stays the caller's.

        Args:
            model: Who is asked.
            estimator: Of the tree.
            retry: When it is asked again.
        """
        self.client = model
        self._estimator = estimator
        self._retry = retry

    @property
    def name(self) -> str:
        """The model's name."""
        return self.client.name

    def plan(
        self,
        requests: Sequence[ModelRequest],
        *,
        ledger: Ledger,
        extra: Amounts = Amounts(),  # noqa: B008 - a frozen value
        is_last: bool = False,
    ) -> tuple[PlannedRequest, ...]:
        """Returns requests with a bound for each reply that the ledger can afford, if it can.

        Where money or completion tokens are limited each reply is bounded, and the bound is sent to
        the provider: what is reserved is then the most that it can take. Where they are not,
        nothing is bounded that the caller has not bounded.

        Args:
            requests: Sent at the same time.
            ledger: Pays.
            extra: What each takes beside tokens and money.
            is_last: As in `Ledger.reserve`.
        """
        prompt_tokens = [
            self._estimator.prompt_tokens(self.name, request.messages) for request in requests
        ]
        is_bounded = ledger.limits_money_or_completions(self.name)
        bound = self._affordable(sum(prompt_tokens), len(requests), ledger, is_last=is_last)
        planned = []
        for request, tokens in zip(requests, prompt_tokens, strict=True):
            completion_tokens = request.max_completion_tokens
            if is_bounded:
                wanted = completion_tokens or self._longest_reply
                completion_tokens = wanted if bound is None else min(wanted, bound)
            planned.append(
                PlannedRequest(
                    request=replace(request, max_completion_tokens=completion_tokens),
                    amounts=extra.plus(self._amounts(tokens, completion_tokens or 0)),
                )
            )
        return tuple(planned)

    async def ask(  # noqa: PLR0913 - what a request is sent with, each named at the call
        self,
        planned: PlannedRequest,
        reservation: Reservation,
        *,
        account: Account,
        run_id: RunId,
        tell: Callable[[RunEvent], None],
        on_text: TextSink | None = None,
    ) -> ModelReply:
        """Asks, as often as it takes within the policy, and charges what it took.

        Args:
            planned: What is asked.
            reservation: Pays; stays the caller's to close.
            account: Whose spending it is.
            run_id: For events.
            tell: Told of requests that failed.
            on_text: As in `ModelClient.complete`; given again from the beginning when a request is
                tried again.

        Raises:
            ModelUnavailableError: Retries are used up, or cannot be afforded.
            ModelRefusedError: Final.
        """
        retry_count, waited_s = 0, 0.0
        while True:
            received = _Received(on_text, most_bytes=self._most_bytes(planned, account.ledger))
            sink = received.take if on_text or received.is_bounded else None
            try:
                reply = await self.client.complete(planned.request, on_text=sink)
            except asyncio.CancelledError:
                self._charge_unanswered(planned, reservation, account, received.text)
                raise
            except ModelRefusedError as error:
                if error.may_be_billed:
                    self._charge_unanswered(planned, reservation, account, received.text)
                raise
            except ModelUnavailableError as error:
                charged = Amounts()
                if error.may_be_billed:
                    charged = self._charge_unanswered(
                        planned, reservation, account, error.received_text
                    )
                wait_s = self._retry.next_wait_s(
                    retry_count=retry_count,
                    waited_s=waited_s,
                    asked_for_s=error.retry_after_s,
                    jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
                )
                tell(
                    RequestFailed(
                        run_id=run_id,
                        model=self.name,
                        why=str(error),
                        wait_s=wait_s,
                        charged_usd=charged.usd,
                    )
                )
                if wait_s is None:
                    raise _after_tries(error, retry_count + 1) from error
                await asyncio.sleep(wait_s)
                try:
                    reservation.renew(planned.amounts.minus(_COUNTS_ONCE))
                except BudgetExhaustedError as refusal:
                    raise _after_tries(error, retry_count + 1, why=str(refusal)) from error
                retry_count += 1
                waited_s += wait_s
            else:
                return self._charge_reply(planned, reservation, account, reply)

    def _affordable(
        self, prompt_tokens: int, count: int, ledger: Ledger, *, is_last: bool
    ) -> int | None:
        """Returns how long each of `count` replies may be; None for as long as they like."""
        bounds = []
        left_tokens = ledger.left("completion_tokens", model=self.name, is_last=is_last)
        if left_tokens is not None:
            bounds.append(left_tokens)
        left_nanodollars = ledger.left("nanodollars", model=self.name, is_last=is_last)
        price = self.client.facts.price
        if left_nanodollars is not None and price is not None:
            prompts = nanodollars_of(
                price.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=0)
            )
            each = price.cost_usd(prompt_tokens=0, completion_tokens=1_000_000) * 1_000
            if each > 0:
                bounds.append(int(max(left_nanodollars - prompts, 0) / each))
        if not bounds:
            return None
        left = min(bounds)
        fair = int(left * _CALL_SHARE) // count
        # What a reply needs at least is reserved for whatever is left: the ledger then refuses.
        return max(fair, min(left // count, _LEAST_COMPLETION_TOKENS * 4), _LEAST_COMPLETION_TOKENS)

    @property
    def _longest_reply(self) -> int:
        return self.client.facts.max_completion_tokens or _USUAL_COMPLETION_TOKENS

    def _amounts(self, prompt_tokens: int, completion_tokens: int) -> Amounts:
        price = self.client.facts.price
        usd = 0.0
        if price is not None:
            usd = price.most_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        return Amounts(
            requests=1,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            nanodollars=nanodollars_of(usd),
        )

    def _most_bytes(self, planned: PlannedRequest, ledger: Ledger) -> int | None:
        """Returns how much may be received before a reply is cut off for want of money."""
        bound = planned.request.max_completion_tokens
        if bound is None or not ledger.limits_money_or_completions(self.name):
            return None
        # Four bytes a token, which few texts exceed: a provider that keeps to the bound it was sent
        # is never cut off; one that ignores it is, at about as much as was set aside.
        return 4 * bound

    def _charge_reply(
        self,
        planned: PlannedRequest,
        reservation: Reservation,
        account: Account,
        reply: ModelReply,
    ) -> ModelReply:
        messages = planned.request.messages
        if not reply.prompt_tokens and not self.client.is_scripted:
            # Not reported, or cut off before it was: an estimate is nearer than nothing.
            reply = replace(
                reply,
                prompt_tokens=self._estimator.prompt_tokens(self.name, messages),
                completion_tokens=self._estimator.text_tokens(self.name, reply.text),
                is_estimated=True,
            )
            price = self.client.facts.price
            if price is not None:
                usd = price.cost_usd(
                    prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens
                )
                reply = replace(reply, cost_usd=usd)
        self._estimator.learn(self.name, messages, reply)
        amounts = Amounts(
            requests=1,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            nanodollars=nanodollars_of(reply.cost_usd or 0.0),
        )
        account.charge_reply(reservation, amounts, model=self.name, reply=reply)
        return reply

    def _charge_unanswered(
        self,
        planned: PlannedRequest,
        reservation: Reservation,
        account: Account,
        received_text: str,
    ) -> Amounts:
        """Charges what a provider may bill for a request that brought nothing."""
        if self.client.is_scripted:
            return Amounts()
        amounts = self._amounts(
            self._estimator.prompt_tokens(self.name, planned.request.messages),
            self._estimator.text_tokens(self.name, received_text),
        )
        account.charge_unanswered(reservation, amounts, model=self.name)
        return amounts


#: What a request counts as however often it is tried.
_COUNTS_ONCE = Amounts(queries=1, child_runs=1, tool_calls=1)


class _Received:
    """What has come of a reply; ends one that grows beyond what was set aside for it."""

    def __init__(self, on_text: TextSink | None, *, most_bytes: int | None) -> None:
        self._on_text = on_text
        self._most_bytes = most_bytes
        self._pieces: list[str] = []
        self._size_bytes = 0

    @property
    def is_bounded(self) -> bool:
        return self._most_bytes is not None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def take(self, piece: str) -> bool:
        """Takes one more piece; returns whether there may be another."""
        self._pieces.append(piece)
        self._size_bytes += len(piece.encode(errors="replace"))
        goes_on = self._on_text is None or self._on_text(piece)
        return goes_on and (self._most_bytes is None or self._size_bytes <= self._most_bytes)


def _after_tries(
    error: ModelUnavailableError, try_count: int, *, why: str = ""
) -> ModelUnavailableError:
    tries = f" (after {try_count} tries)" if try_count > 1 else ""
    reason = f"; not tried again: {why}" if why else ""
    return ModelUnavailableError(
        f"{error}{tries}{reason}", model=error.model, retry_after_s=error.retry_after_s
    )
