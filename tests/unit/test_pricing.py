from pathlib import Path

import pytest

from orchestrator.chat import ModelFacts
from orchestrator.errors import SettingsError
from orchestrator.models.pricing import first_known, openai_prices, read_prices
from orchestrator.price import Price

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


def price_of(name: str) -> Price | None:
    return openai_prices().facts_of(name).price


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
    assert openai_prices().facts_of(name) == ModelFacts()


def test_list_says_of_which_day_it_is_and_whose() -> None:
    """Whoever doubts a price finds out how old it is and where to compare it."""
    assert openai_prices().as_of >= "2026-10-04"
    assert openai_prices().source.startswith("https://developers.openai.com/")


def test_every_listed_model_makes_sense() -> None:
    """A reply fits into its window, cached tokens are cheaper, written ones are not."""
    for name, facts in openai_prices().models.items():
        assert facts.window_tokens is not None, name
        assert facts.max_completion_tokens is not None, name
        assert facts.max_completion_tokens < facts.window_tokens, name
        if facts.price is not None:
            price = facts.price
            assert price.prompt_usd < price.completion_usd, name
            assert (price.cached_prompt_usd or 0.0) < price.prompt_usd, name
            assert (price.cache_write_usd or price.prompt_usd) >= price.prompt_usd, name


def test_first_of_several_names_that_is_listed_counts() -> None:
    """A model that goes by two names is looked up by the first, then by the other."""
    prices = openai_prices()

    assert prices.facts_of("mine", "gpt-5") == prices.models["gpt-5"]
    assert prices.facts_of("gpt-5-mini", "gpt-5") == prices.models["gpt-5-mini"]


def test_each_fact_comes_from_the_first_that_knows_it() -> None:
    """A list that knows a window and no price leaves the price to the next."""
    window, price = ModelFacts(window_tokens=7), ModelFacts(price=FLAT, window_tokens=9)

    assert first_known(window, price) == ModelFacts(price=FLAT, window_tokens=7)
    assert first_known() == ModelFacts()


def test_operators_list_is_read(tmp_path: Path) -> None:
    """A file of the same form gives prices, windows, or one of the two."""
    path = tmp_path / "prices.toml"
    path.write_text(
        """
        as_of = 2026-11-01
        [models."qwen/qwen3-32b"]
        prompt_usd = 1
        completion_usd = 2.5
        window_tokens = 131_072
        [models.mine-2026-01-01]
        max_completion_tokens = 8_192
        """
    )
    prices = read_prices(path)

    assert prices.as_of == "2026-11-01"
    assert prices.facts_of("qwen/qwen3-32b") == ModelFacts(
        price=Price(prompt_usd=1, completion_usd=2.5), window_tokens=131_072
    )
    assert prices.facts_of("mine-2026-01-01") == ModelFacts(max_completion_tokens=8_192)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prompt_usd = ", "is not TOML"),
        ("model = 1", "model is not a key; did you mean models?"),
        ("models = 1", "models: expected tables, got 1"),
        ("[models]\nm = 1", "models.m: expected a table, got 1"),
        ("[models.m]\nprompt = 1", "models.m.prompt is not a key; did you mean prompt_usd?"),
        ("[models.m]\nprompt_usd = 1", "models.m.completion_usd: expected dollars, found none"),
        (
            "[models.m]\nprompt_usd = -1\ncompletion_usd = 1",
            "models.m.prompt_usd: expected dollars, zero or more, got -1",
        ),
        (
            "[models.m]\nprompt_usd = '1'\ncompletion_usd = 1",
            "models.m.prompt_usd: expected dollars, zero or more, got '1'",
        ),
        (
            "[models.m]\nprompt_usd = inf\ncompletion_usd = 1",
            "models.m.prompt_usd: expected dollars, zero or more, got inf",
        ),
        (
            "[models.m]\nprompt_usd = 1\ncompletion_usd = 1\nhas_long_prompt_rate = 1",
            "models.m.has_long_prompt_rate: expected true or false, got 1",
        ),
        (
            "[models.m]\nwindow_tokens = 0",
            "models.m.window_tokens: expected a number of tokens, got 0",
        ),
        (
            "[models.m]\nwindow_tokens = 1.5",
            "models.m.window_tokens: expected a number of tokens, got 1.5",
        ),
    ],
)
def test_malformed_list_is_refused_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    """Whoever wrote a list reads which key of which model is wrong, and what belongs there."""
    path = tmp_path / "prices.toml"
    path.write_text(text)

    with pytest.raises(SettingsError) as caught:
        read_prices(path)

    assert str(caught.value).startswith(f"The prices_file {path}")
    assert sentence in str(caught.value)


def test_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A list that is named and missing is no list without prices."""
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_prices(tmp_path / "absent.toml")
