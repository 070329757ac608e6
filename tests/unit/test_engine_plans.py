"""How long a reply may be is decided before it is asked for, by what there is to spend."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_models import FakeModel

from orchestrator.chat import Message, ModelFacts, ModelRequest
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Amounts, Ledger
from orchestrator.engine.paid_model import PaidModel, PlannedRequest
from orchestrator.engine.retry import RetryPolicy
from orchestrator.errors import BudgetExhaustedError
from orchestrator.limits import ModelCap, RunLimits
from orchestrator.price import Price

PRICE = Price(prompt_usd=1.0, completion_usd=4.0)
LONGEST = 16_384


def planned(
    *prompts: str,
    ledger: Ledger,
    bound: int | None = None,
    facts: ModelFacts = ModelFacts(price=PRICE),  # noqa: B008 - a frozen value
    **options: Any,  # noqa: ANN401 - of a plan
) -> list[PlannedRequest]:
    """Plans prompts that would be sent at the same time."""
    model = PaidModel(
        FakeModel([], name="m", facts=facts), estimator=TokenEstimator(), retry=RetryPolicy()
    )
    requests = [
        ModelRequest(messages=(Message("user", prompt),), max_completion_tokens=bound)
        for prompt in prompts
    ]
    return list(model.plan(requests, ledger=ledger, **options))


def bounds(*prompts: str, **options: Any) -> list[int | None]:  # noqa: ANN401 - of a plan
    """Returns the bounds that are sent to the provider."""
    return [each.request.max_completion_tokens for each in planned(*prompts, **options)]


def ledger_of(**limits: Any) -> Ledger:  # noqa: ANN401 - a run's own
    """Opens a ledger."""
    return Ledger(limits=RunLimits(**limits))


@pytest.mark.parametrize("limits", [{}, {"queries": 1}, {"prompt_tokens": 10_000}])
def test_nothing_is_bounded_where_a_longer_reply_breaks_no_limit(limits: dict[str, int]) -> None:
    """A provider's own longest is the bound then, or the caller's."""
    ledger = ledger_of(**limits)

    assert bounds("p", ledger=ledger) == [None]
    assert bounds("p", ledger=ledger, bound=7) == [7]


def test_bound_of_a_caller_is_set_aside_where_nothing_else_is_known() -> None:
    """What a reply may take is known then, and is reserved like anything else."""
    [each] = planned("p" * 300, ledger=ledger_of(), bound=7, extra=Amounts(queries=1))

    assert each.amounts == Amounts(
        queries=1, requests=1, prompt_tokens=124, completion_tokens=7, nanodollars=124_000 + 28_000
    )


@pytest.mark.parametrize(
    ("facts", "bound", "expected"),
    [
        ({}, None, LONGEST),
        ({"max_completion_tokens": 1_000}, None, 1_000),
        ({}, 500, 500),
        ({"max_completion_tokens": 1_000}, 500, 500),
    ],
)
def test_longest_useful_reply_is_the_bound_where_there_is_plenty(
    facts: dict[str, Any], bound: int | None, expected: int
) -> None:
    """A limit that is far away shortens nothing that the model or the caller would not."""
    found = bounds(
        "p", ledger=ledger_of(usd=100.0), bound=bound, facts=ModelFacts(price=PRICE, **facts)
    )

    assert found == [expected]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_call_takes_half_of_what_is_left(count: int) -> None:
    """Prompts of one call share evenly, and the rest is for whoever asks next."""
    found = bounds(*["p"] * count, ledger=ledger_of(completion_tokens=20_000))

    # A tenth is kept back for the last request.
    assert found == [18_000 // 2 // count] * count


def test_last_bit_may_be_used_whole() -> None:
    """Half of little is too little to answer with: a reply gets what there is, up to a page."""
    ledger = ledger_of(completion_tokens=1_000)
    left = ledger.left("completion_tokens")

    assert bounds("p", ledger=ledger) == [left] == [900]
    assert bounds("p", "q", ledger=ledger) == [450, 450]
    assert bounds("p", ledger=ledger_of(completion_tokens=2_000)) == [1_024]


@pytest.mark.parametrize("limits", [{"completion_tokens": 200}, {"usd": 0.001}])
def test_too_little_is_asked_for_all_the_same_so_that_the_ledger_refuses(
    limits: dict[str, Any],
) -> None:
    """A reply cut after ten tokens costs money and answers nothing."""
    ledger = ledger_of(**limits)
    [each] = planned("p", ledger=ledger)

    assert each.request.max_completion_tokens == 256
    with pytest.raises(BudgetExhaustedError):
        ledger.reserve([each.amounts])


def test_money_bounds_by_what_is_left_of_it_after_the_prompts() -> None:
    """A long prompt leaves less for its reply."""
    short, long = (bounds(prompt, ledger=ledger_of(usd=0.05)) for prompt in ("p", "p" * 60_000))
    # 0.045 dollars are to be had. The long prompt takes 20,000 tokens, 0.02 of them.
    assert short == [pytest.approx(0.045 / 4e-6 / 2, abs=10)]
    assert long == [pytest.approx(0.025 / 4e-6 / 2, abs=10)]


def test_last_request_may_use_what_was_kept_for_it() -> None:
    """Where cells have spent all they may, there is a tenth for a best answer."""
    ledger = ledger_of(completion_tokens=10_000)
    [spent] = ledger.reserve([Amounts(completion_tokens=9_000)])
    [each] = planned("p", ledger=ledger, is_last=True)

    assert each.request.max_completion_tokens == 1_000
    assert ledger.reserve([each.amounts], is_last=True)
    assert spent.held.completion_tokens == 9_000


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"m": ModelCap(completion_tokens=4_000)}, 2_000),
        ({"m": ModelCap(usd=0.016)}, pytest.approx(2_000, abs=10)),
        ({"other": ModelCap(completion_tokens=4_000, usd=0.016)}, None),
        ({"m": ModelCap(requests=4, prompt_tokens=4_000)}, None),
    ],
)
def test_cap_of_a_model_bounds_that_model(models: dict[str, ModelCap], expected: object) -> None:
    """What one model may spend is no other model's to save."""
    assert bounds("p", ledger=ledger_of(models=models)) == [expected]


def test_tightest_limit_counts() -> None:
    """Tokens may be plenty where money is not, and the other way round."""
    assert bounds("p", ledger=ledger_of(completion_tokens=10_000, usd=100.0)) == [4_500]
    assert bounds("p", ledger=ledger_of(completion_tokens=10**6, usd=0.04)) == [
        pytest.approx(4_500, abs=10)
    ]


def test_prompt_is_set_aside_at_its_dearest() -> None:
    """Writing to a provider's cache may cost more than reading the prompt afresh."""
    price = Price(prompt_usd=1.0, cache_write_usd=1.25, completion_usd=4.0)
    [each] = planned("p" * 300, ledger=ledger_of(), facts=ModelFacts(price=price))

    assert each.amounts.nanodollars == 124 * 1_250


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=20),
    usd=st.none() | st.floats(0.0001, 2.0),
    tokens=st.none() | st.integers(1, 100_000),
    bound=st.none() | st.integers(1, 20_000),
)
def test_what_is_planned_is_affordable_or_refused_for_being_too_little(
    sizes: list[int], usd: float | None, tokens: int | None, bound: int | None
) -> None:
    """No batch is refused whose replies could have been shorter and still of use.

    And where something is limited, each reply's bound and what is set aside for it are the same.
    """
    ledger = ledger_of(usd=usd, completion_tokens=tokens)
    each = planned(*("p" * size for size in sizes), ledger=ledger, bound=bound)
    is_limited = usd is not None or tokens is not None
    for plan in each:
        sent = plan.request.max_completion_tokens
        assert (sent or 0) == plan.amounts.completion_tokens
        assert sent is not None or not is_limited
        assert bound is None or (sent is not None and sent <= bound)
    try:
        ledger.reserve([plan.amounts for plan in each])
    except BudgetExhaustedError:
        assert is_limited
        assert all((plan.request.max_completion_tokens or 0) <= 256 for plan in each)
