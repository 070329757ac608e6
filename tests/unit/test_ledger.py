"""What a run tree may spend is set aside before and settled after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.chat import ModelReply
from orchestrator.engine.account import Account
from orchestrator.engine.ledger import Amounts, Ledger, nanodollars_of
from orchestrator.errors import BudgetExhaustedError
from orchestrator.limits import ModelCap, RunLimits

QUERY = Amounts(queries=1)


def test_what_is_reserved_is_not_left() -> None:
    """Reserving counts at once, before anything is spent."""
    ledger = Ledger(limits=RunLimits(queries=10))
    ledger.reserve([QUERY] * 4)

    assert (ledger.left("queries"), ledger.spent.queries) == (6, 0)


def test_what_was_not_spent_comes_back() -> None:
    """Closing a reservation gives back what is left of it, once."""
    ledger = Ledger(limits=RunLimits(queries=2, usd=1.0))
    [reservation] = ledger.reserve([Amounts(queries=2, nanodollars=500)])
    reservation.charge(Amounts(queries=1, nanodollars=200))
    reservation.close()
    reservation.close()

    assert (ledger.left("queries"), ledger.spent.nanodollars) == (1, 200)
    assert ledger.reserved == Amounts()


def test_more_than_was_reserved_is_counted_all_the_same() -> None:
    """A provider that takes more than was thought possible is not paid with nothing."""
    ledger = Ledger(limits=RunLimits(prompt_tokens=100))
    [reservation] = ledger.reserve([Amounts(prompt_tokens=50)])
    reservation.charge(Amounts(prompt_tokens=80))
    reservation.close()

    assert ledger.spent.prompt_tokens == 80
    assert ledger.reserved == Amounts()


def test_a_batch_is_refused_whole_with_a_sentence_that_teaches() -> None:
    """Nothing of a batch that is too dear is set aside, and the model learns what to do."""
    ledger = Ledger(limits=RunLimits(queries=41))

    with pytest.raises(BudgetExhaustedError) as caught:
        ledger.reserve([QUERY] * 60)

    assert str(caught.value) == "60 prompts asked, 41 queries left; send fewer, longer prompts"
    assert (caught.value.limit, caught.value.used, caught.value.allowed) == ("queries", 0, 41)
    assert (ledger.left("queries"), ledger.is_used_up("queries")) == (41, False)


@pytest.mark.parametrize(
    ("limits", "amounts", "limit", "sentence"),
    [
        (
            RunLimits(usd=0.01),
            Amounts(queries=1, nanodollars=6_000_000),
            "usd",
            "2 prompts could cost up to $0.0120, $0.0090 is left; send fewer or shorter prompts",
        ),
        (
            RunLimits(prompt_tokens=1_000),
            Amounts(prompt_tokens=600),
            "prompt_tokens",
            "2 prompts could take up to 1,200 prompt tokens, 900 are left; send fewer or shorter",
        ),
        (
            RunLimits(completion_tokens=1_000),
            Amounts(completion_tokens=600),
            "completion_tokens",
            "2 prompts could take up to 1,200 completion tokens, 900 are left",
        ),
        (
            RunLimits(child_runs=1),
            Amounts(child_runs=1),
            "child_runs",
            "2 child runs asked, 1 left; start fewer, or use llm_query",
        ),
        (
            RunLimits(tool_calls=1),
            Amounts(tool_calls=1),
            "tool_calls",
            "2 tool calls asked, 1 left; finish with what you have",
        ),
        (
            RunLimits(models={"m": ModelCap(requests=1)}),
            Amounts(requests=1),
            "models.m.requests",
            "2 requests to this model asked, 1 left; ask another model",
        ),
        (
            RunLimits(models={"m": ModelCap(usd=0.001)}),
            Amounts(nanodollars=900_000),
            "models.m.usd",
            "2 prompts could cost up to $0.0018, $0.0010 is left",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value[:8] else "",
)
def test_every_limit_refuses_in_words(
    limits: RunLimits, amounts: Amounts, limit: str, sentence: str
) -> None:
    """Each refusal says what was asked, what is left and what to do, and names its limit."""
    ledger = Ledger(limits=limits)
    with pytest.raises(BudgetExhaustedError) as caught:
        ledger.reserve([amounts, amounts], model="m")

    assert str(caught.value).startswith(sentence)
    assert caught.value.limit == limit
    assert ledger.reserved == Amounts()


def test_a_cap_holds_for_its_model_alone() -> None:
    """Another model is not refused for what one has used up, and the tree's limit is for both."""
    ledger = Ledger(limits=RunLimits(queries=3, models={"m": ModelCap(requests=1)}))
    each = Amounts(queries=1, requests=1)
    ledger.reserve([each], model="m")
    ledger.reserve([each], model="other")
    with pytest.raises(BudgetExhaustedError, match="ask another model"):
        ledger.reserve([each], model="m")

    assert ledger.left("queries") == 1


def test_a_batch_that_is_just_affordable_is_taken() -> None:
    """The limit itself may be spent."""
    assert len(Ledger(limits=RunLimits(queries=60)).reserve([QUERY] * 60)) == 60


def test_something_is_kept_back_for_the_last_request() -> None:
    """A tenth of money and tokens is for the answer that is asked for when the rest is gone."""
    ledger = Ledger(limits=RunLimits(usd=1.0))
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve([Amounts(nanodollars=nanodollars_of(0.95))])

    assert ledger.reserve([Amounts(nanodollars=nanodollars_of(0.95))], is_last=True)


def test_a_reservation_can_be_renewed_for_another_try() -> None:
    """A second try is paid from what is left, and refused where that is not enough."""
    ledger = Ledger(limits=RunLimits(prompt_tokens=100))
    [reservation] = ledger.reserve([Amounts(prompt_tokens=40)])
    reservation.charge(Amounts(prompt_tokens=40))
    reservation.renew(Amounts(prompt_tokens=40))
    assert ledger.reserved.prompt_tokens == 40

    reservation.charge(Amounts(prompt_tokens=40))
    with pytest.raises(BudgetExhaustedError):
        reservation.renew(Amounts(prompt_tokens=40))
    assert ledger.reserved == Amounts()


def test_an_amount_is_used_up_only_when_more_was_asked_for() -> None:
    """A run that used its last query and needs no more has not failed at the limit."""
    ledger = Ledger(limits=RunLimits(queries=1))
    [reservation] = ledger.reserve([QUERY])
    reservation.charge(QUERY)
    before = ledger.is_used_up("queries")
    with pytest.raises(BudgetExhaustedError, match="1 prompt asked, no query left"):
        ledger.reserve([QUERY])

    assert (before, ledger.is_used_up("queries")) == (False, True)


def test_nothing_is_reserved_after_the_time() -> None:
    """Time is a limit like another."""
    clock: Iterator[float] = iter([0.0, 10.0, 10.0, 10.0])
    ledger = Ledger(limits=RunLimits(time_s=10.0), read_clock=lambda: next(clock))

    with pytest.raises(BudgetExhaustedError) as caught:
        ledger.reserve([QUERY])

    assert caught.value.limit == "time_s"


def test_money_adds_up_to_the_billionth() -> None:
    """A thousand times a tenth of a cent is a dollar, and not a dollar and a bit."""
    ledger = Ledger(limits=RunLimits(usd=1.0))
    for _ in range(1_000):
        [reservation] = ledger.reserve([Amounts(nanodollars=nanodollars_of(0.001))], is_last=True)
        reservation.charge(Amounts(nanodollars=nanodollars_of(0.001)))
        reservation.close()

    assert ledger.left("nanodollars", is_last=True) == 0
    assert ledger.spent.usd == 1.0


@pytest.mark.parametrize(
    ("usd", "nanodollars"), [(0.0, 0), (1e-9, 1), (1e-12, 1), (0.000_000_75, 750), (0.1 + 0.2, 3e8)]
)
def test_money_is_rounded_up(usd: float, nanodollars: int) -> None:
    """What costs something costs at least a billionth; the noise of floats costs nothing."""
    assert nanodollars_of(usd) == nanodollars


def test_a_child_runs_spending_is_its_parents_too() -> None:
    """A parent's usage has its child's in it, and a child's only its own."""
    ledger = Ledger(limits=RunLimits())
    parent = Account(ledger)
    child = Account(ledger, parent=parent)
    reply = ModelReply(text="", prompt_tokens=3, completion_tokens=1, cost_usd=0.5)
    for account in (parent, child, child):
        [reservation] = ledger.reserve([QUERY])
        account.charge(reservation, QUERY)
        account.charge_reply(
            reservation, Amounts(prompt_tokens=3, completion_tokens=1), model="m", reply=reply
        )

    assert (parent.usage["m"].request_count, child.usage["m"].request_count) == (3, 2)
    assert (parent.spent.queries, child.spent.queries) == (3, 2)
    assert parent.usage["m"].cost_usd == 1.5
    assert ledger.spent == parent.spent


def test_what_may_be_billed_for_nothing_is_told_apart() -> None:
    """A request that brought no answer is counted, and not as one that did."""
    ledger = Ledger(limits=RunLimits())
    account = Account(ledger)
    [reservation] = ledger.reserve([QUERY])
    account.charge_unanswered(
        reservation, Amounts(prompt_tokens=10, nanodollars=250_000_000), model="m"
    )

    usage = account.usage["m"]
    assert (usage.request_count, usage.unanswered_count, usage.unanswered_usd) == (0, 1, 0.25)
    assert ledger.spent.prompt_tokens == 10
