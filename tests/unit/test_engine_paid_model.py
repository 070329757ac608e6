"""Every request to a model is planned, reserved and charged, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.fake_models import FakeModel
from support.simulated_provider import Behaviour, SimulatedProvider
from support.virtual_time import run_in_virtual_time

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.domain import RunId
from orchestrator.engine.account import Account
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Amounts, Ledger
from orchestrator.engine.paid_model import PaidModel, PlannedRequest
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import BudgetExhaustedError, ModelRefusedError, ModelUnavailableError
from orchestrator.events import RequestFailed, RunEvent
from orchestrator.limits import ModelCap, RunLimits
from orchestrator.ports import ModelClient
from orchestrator.price import Price

PRICE = Price(prompt_usd=1.0, completion_usd=4.0)
QUERY = Amounts(queries=1)


def model_of(*answers: Any, is_scripted: bool = False, **facts: Any) -> FakeModel:  # noqa: ANN401 - a fake's own
    """Makes a model that a provider would bill."""
    model = FakeModel(answers or ["said"], name="m", facts=ModelFacts(**{"price": PRICE, **facts}))
    model.is_scripted = is_scripted
    return model


def down(**fields: Any) -> ModelUnavailableError:  # noqa: ANN401 - an error's own
    """Makes a failure that may pass."""
    return ModelUnavailableError("busy", model="m", **{"retry_after_s": 5.0, **fields})


class Payer:
    """A model and who pays for it.

    Attributes:
        ledger: Of the tree.
        account: Of the run.
        events: Everything that was told.
    """

    def __init__(self, client: ModelClient, *, retries: int = 0, **limits: Any) -> None:  # noqa: ANN401 - a run's own
        """Opens a ledger for a model."""
        self.ledger = Ledger(limits=RunLimits(**limits))
        self.account = Account(self.ledger)
        self.events: list[RunEvent] = []
        self.paid = PaidModel(
            client, estimator=TokenEstimator(), retry=RetryPolicy(max_retries=retries)
        )

    def plan(self, *prompts: str, bound: int | None = None, **options: Any) -> list[PlannedRequest]:  # noqa: ANN401 - of a plan
        """Plans requests that would be sent at the same time."""
        requests = [
            ModelRequest(messages=(Message("user", prompt),), max_completion_tokens=bound)
            for prompt in prompts
        ]
        return list(self.paid.plan(requests, ledger=self.ledger, **options))

    async def ask(self, prompt: str = "0 ask", *, on_text: TextSink | None = None) -> ModelReply:
        """Plans, reserves and asks, as every caller does."""
        [planned] = self.plan(prompt, extra=QUERY)
        [reservation] = self.ledger.reserve([planned.amounts], model=self.paid.name)
        try:
            self.account.charge(reservation, QUERY)
            return await self.paid.ask(
                planned,
                reservation,
                account=self.account,
                run_id=RunId("run"),
                tell=self.events.append,
                on_text=on_text,
            )
        finally:
            reservation.close()
            assert self.ledger.reserved == Amounts()

    def failures(self) -> list[RequestFailed]:
        """Returns the requests that were told to have failed."""
        return [event for event in self.events if isinstance(event, RequestFailed)]


async def test_reply_is_charged_with_what_the_provider_says_it_took() -> None:
    """Tokens and money are those of the reply; what was set aside beyond comes back."""
    reply = ModelReply(
        text="said",
        prompt_tokens=1_000,
        completion_tokens=20,
        cached_prompt_tokens=900,
        cost_usd=PRICE.cost_usd(prompt_tokens=100, completion_tokens=20),
    )
    payer = Payer(model_of(reply), usd=1.0)

    assert await payer.ask() == reply
    assert payer.ledger.spent == Amounts(
        queries=1, requests=1, prompt_tokens=1_000, completion_tokens=20, nanodollars=180_000
    )
    usage = payer.account.usage["m"]
    assert (usage.request_count, usage.cached_prompt_tokens, usage.estimated_count) == (1, 900, 0)
    assert usage.cost_usd == pytest.approx(0.000_18)
    assert payer.events == []


async def test_reply_without_figures_is_estimated_and_says_so() -> None:
    """A provider that reports no usage is not free of charge, and its figures are not passed off.

    The estimate is never below three bytes a token, so it is rather too high.
    """
    payer = Payer(model_of(ModelReply(text="é" * 300)), usd=1.0)
    reply = await payer.ask("p" * 3_000)

    assert (reply.is_estimated, reply.completion_tokens) == (True, 200)
    assert 1_000 <= reply.prompt_tokens <= 1_100
    assert reply.cost_usd == PRICE.cost_usd(
        prompt_tokens=reply.prompt_tokens, completion_tokens=200
    )
    assert payer.account.usage["m"].estimated_count == 1
    assert payer.ledger.spent.completion_tokens == 200


async def test_script_costs_nothing() -> None:
    """The control: where no provider is asked there is nothing to be estimated."""
    payer = Payer(model_of(ModelReply(text="é" * 300), is_scripted=True), usd=1.0)

    assert (await payer.ask("p" * 3_000)).is_estimated is False
    assert payer.ledger.spent == Amounts(queries=1, requests=1)


@pytest.mark.parametrize("may_be_billed", [False, True])
async def test_refused_request_is_final(*, may_be_billed: bool) -> None:
    """Asking again would not help; it is charged only where the provider has done the work."""
    model = model_of(ModelRefusedError("no", model="m", may_be_billed=may_be_billed))
    payer = Payer(model, usd=1.0, retries=3)
    with pytest.raises(ModelRefusedError):
        await payer.ask("p" * 3_000)

    assert payer.ledger.spent.prompt_tokens == (1_024 if may_be_billed else 0)
    assert (len(model.requests), payer.events) == (1, [])


def test_failed_request_is_asked_again_and_told_of() -> None:
    """The event says who failed, how, and when it is asked again; that wait is kept."""

    async def run() -> float:
        assert (await payer.ask()).text == "said"
        return asyncio.get_running_loop().time()

    payer = Payer(model_of(down(retry_after_s=40.0), down(), "said"), retries=2)

    assert run_in_virtual_time(run()) == 45.0
    assert payer.failures() == [
        RequestFailed(run_id=RunId("run"), model="m", why="busy", wait_s=wait_s, charged_usd=0.0)
        for wait_s in (40.0, 5.0)
    ]
    assert payer.account.usage["m"].request_count == 1


def test_model_that_never_answers_is_given_up() -> None:
    """The last failure is told of as one that is not tried again; the error counts the tries."""
    model = model_of(down())
    payer = Payer(model, retries=2)
    with pytest.raises(ModelUnavailableError, match=r"^busy \(after 3 tries\)$") as caught:
        run_in_virtual_time(payer.ask())

    assert len(model.requests) == 3
    assert [event.wait_s for event in payer.failures()] == [5.0, 5.0, None]
    assert (caught.value.model, caught.value.retry_after_s) == ("m", 5.0)


@pytest.mark.parametrize(
    ("fields", "tokens", "unanswered_count"),
    [
        ({}, (0, 0), 0),
        ({"may_be_billed": True}, (1_024, 0), 1),
        ({"may_be_billed": True, "received_text": "r" * 300}, (1_024, 100), 1),
    ],
    ids=["turned away", "timed out", "broken off"],
)
def test_failure_costs_what_may_be_billed(
    fields: dict[str, Any], tokens: tuple[int, int], unanswered_count: int
) -> None:
    """A request that was turned away costs nothing; one that broke off costs what had come."""
    payer = Payer(model_of(down(**fields)), usd=1.0)
    with pytest.raises(ModelUnavailableError, match=r"^busy$"):
        run_in_virtual_time(payer.ask("p" * 3_000))
    usd = PRICE.cost_usd(prompt_tokens=tokens[0], completion_tokens=tokens[1])

    spent = payer.ledger.spent
    assert (spent.prompt_tokens, spent.completion_tokens) == tokens
    assert spent.usd == pytest.approx(usd)
    [event] = payer.failures()
    assert event.charged_usd == pytest.approx(usd)
    usage = payer.account.usage.get("m")
    assert (usage.unanswered_count if usage else 0) == unanswered_count
    assert usage is None or usage.unanswered_usd == pytest.approx(usd)


def test_another_try_is_set_aside_anew() -> None:
    """What the first try is billed is spent, and the second one has all of its own."""
    seen: list[tuple[Amounts, Amounts]] = []

    def fail_then_say(_messages: Sequence[Message]) -> Any:  # noqa: ANN401 - an answer
        seen.append((payer.ledger.reserved, payer.ledger.spent))
        return "said" if len(seen) == 2 else down(may_be_billed=True, received_text="r" * 300)

    payer = Payer(model_of(fail_then_say), retries=1, usd=1.0, queries=1)
    run_in_virtual_time(payer.ask("p" * 3_000))
    (first, _), (second, spent) = seen

    assert first == second
    assert (second.requests, second.prompt_tokens, second.queries) == (1, 1_024, 0)
    assert (spent.requests, spent.completion_tokens) == (1, 100)
    assert payer.ledger.spent.queries == 1  # however often it is tried


def test_try_that_cannot_be_afforded_is_not_made() -> None:
    """The error says that and why; the provider is not asked again."""
    model = model_of(down(may_be_billed=True))
    payer = Payer(model, retries=3, prompt_tokens=2_000)
    with pytest.raises(ModelUnavailableError, match=r"busy; not tried again: 1 prompt could take"):
        run_in_virtual_time(payer.ask("p" * 3_000))

    assert len(model.requests) == 1
    assert payer.ledger.spent.prompt_tokens == 1_024


def test_try_beyond_a_models_own_requests_is_not_made() -> None:
    """A cap of requests counts each that a provider may bill, tries included."""
    model = model_of(down(may_be_billed=True))
    payer = Payer(model, retries=5, models={"m": ModelCap(requests=2)})
    with pytest.raises(ModelUnavailableError, match=r"after 2 tries\); not tried again: 1 request"):
        run_in_virtual_time(payer.ask())

    assert len(model.requests) == 2


def test_request_that_is_cancelled_costs_what_had_come() -> None:
    """A provider bills what it has made; nobody saw more than what was streamed."""

    async def run() -> None:
        task = asyncio.ensure_future(payer.ask("0 " + "p" * 400))
        await asyncio.sleep(1.05)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    provider = SimulatedProvider(behaviours=[Behaviour(token_count=100, token_s=0.1)])
    payer = Payer(provider, usd=1.0)
    run_in_virtual_time(run())
    spent, usage = payer.ledger.spent, payer.account.usage["simulated"]

    assert (provider.open_count, provider.billed_completion_tokens) == (0, 10)
    assert 10 <= spent.completion_tokens <= 20
    assert spent.prompt_tokens >= provider.billed_prompt_tokens > 0
    assert (usage.request_count, usage.unanswered_count) == (0, 1)
    assert usage.unanswered_usd == pytest.approx(spent.usd)
    assert spent.usd >= provider.billed_usd


class Endless:
    """A provider that keeps to no bound, and ends only when it is told to."""

    name, is_scripted, facts = "m", False, ModelFacts(price=PRICE)

    def __init__(self) -> None:
        """Has sent nothing yet."""
        self.sent_bytes = 0
        self.bound: int | None = None

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Sends until it is stopped; for a caller that does not listen, a long reply."""
        self.bound = request.max_completion_tokens
        piece = "wörd" * 10
        while self.sent_bytes < 10**6:
            self.sent_bytes += len(piece.encode())
            if on_text is not None and not on_text(piece):
                return ModelReply(text="wörd" * (self.sent_bytes // 5), was_cut=True)
        return ModelReply(text="whole", prompt_tokens=10, completion_tokens=250_000, cost_usd=1.0)

    async def aclose(self) -> None:
        """Holds nothing."""


async def test_provider_that_ignores_its_bound_is_cut_off() -> None:
    """At about what was set aside, so that no reply can eat up the run; and that is paid."""
    model = Endless()
    payer = Payer(model, completion_tokens=10_000)
    reply = await payer.ask()

    assert reply.was_cut
    assert model.bound is not None
    assert 4 * model.bound < model.sent_bytes <= 4 * model.bound + 50
    assert payer.ledger.spent.completion_tokens == reply.completion_tokens >= model.bound


async def test_provider_is_not_cut_off_where_nothing_is_limited() -> None:
    """The control: a long reply is nobody's business where it breaks no limit."""
    model = Endless()
    reply = await Payer(model).ask()

    assert (reply.text, reply.was_cut, model.bound) == ("whole", False, None)


async def test_listener_can_end_a_reply() -> None:
    """Whoever is told of each piece may have had enough, limit or not."""
    model = Endless()
    reply = await Payer(model).ask(on_text=lambda _piece: model.sent_bytes < 1_000)

    assert reply.was_cut
    assert model.sent_bytes == 1_000


async def test_request_that_the_ledger_refuses_is_not_sent() -> None:
    """What a reply needs at least is asked for, and not to be had; so nothing goes out."""
    model = model_of()
    payer = Payer(model, completion_tokens=255)
    with pytest.raises(BudgetExhaustedError, match="could take up to 256 completion tokens"):
        await payer.ask()

    assert model.requests == []
