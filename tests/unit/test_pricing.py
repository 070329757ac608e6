import pytest

from orchestrator.models.pricing import Price, price_of

FLAT = Price(prompt_usd=2.0, cached_prompt_usd=0.5, cache_write_usd=2.5, completion_usd=10.0)
MILLION = 1_000_000


def test_each_kind_of_token_has_its_price() -> None:
    """Fresh, cached, written and completed tokens are paid for separately, none of them twice."""
    cost_usd = FLAT.cost_usd(
        prompt_tokens=MILLION,
        cached_prompt_tokens=MILLION // 4,
        cache_write_tokens=MILLION // 4,
        completion_tokens=MILLION,
    )

    assert cost_usd == pytest.approx(1.0 + 0.125 + 0.625 + 10.0)


def test_without_a_discount_cached_tokens_cost_what_fresh_ones_do() -> None:
    """A model whose provider states no price for cached tokens is not given one."""
    price = Price(prompt_usd=2.0, completion_usd=10.0)

    cost_usd = price.cost_usd(
        prompt_tokens=MILLION,
        cached_prompt_tokens=MILLION // 2,
        cache_write_tokens=MILLION // 2,
        completion_tokens=0,
    )

    assert cost_usd == pytest.approx(2.0)


def test_no_report_makes_a_cost_negative() -> None:
    """An endpoint that reports more cached tokens than there were cannot earn the run money."""
    cost_usd = FLAT.cost_usd(
        prompt_tokens=10, cached_prompt_tokens=99, cache_write_tokens=99, completion_tokens=0
    )

    assert cost_usd == pytest.approx(10 * 0.5 / MILLION)


@pytest.mark.parametrize(("prompt_tokens", "factor"), [(272_000, 1.0), (272_001, 2.0)])
def test_long_prompts_cost_more_where_the_provider_says_so(
    prompt_tokens: int, factor: float
) -> None:
    """Above 272,000 prompt tokens the whole request is charged at the higher rate."""
    price = Price(prompt_usd=2.0, completion_usd=10.0, has_long_prompt_rate=True)
    flat = Price(prompt_usd=2.0, completion_usd=10.0)

    cost_usd = price.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=0)

    assert cost_usd == pytest.approx(
        factor * flat.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=0)
    )


def test_snapshot_costs_what_its_family_does() -> None:
    """A name with a date is priced by the name without it."""
    assert price_of("gpt-5-mini-2025-08-07") == price_of("gpt-5-mini")
    assert price_of("gpt-5-mini") != price_of("gpt-5")


def test_snapshot_with_a_price_of_its_own_keeps_it() -> None:
    """A snapshot that is listed is not priced by its family, which became cheaper after it."""
    snapshot, family = price_of("gpt-4o-2024-05-13"), price_of("gpt-4o-2024-08-06")

    assert family == price_of("gpt-4o")
    assert snapshot is not None
    assert family is not None
    assert snapshot.prompt_usd > family.prompt_usd


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-5-turbo",
        "gpt-5-mini-fast-2025-08-07",
        "gpt-5-2025-08",
        "GPT-5",
        "openai/gpt-5",
        "ft:gpt-4o-2024-08-06:me",
        "local",
        "qwen2.5-coder:1.5b",
    ],
)
def test_unknown_model_has_no_price(name: str) -> None:
    """Nothing is inferred from a name that only looks like a known one."""
    assert price_of(name) is None
