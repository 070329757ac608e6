from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from pydantic import SecretStr

from orchestrator.chat import Message, ModelFacts, ModelRequest
from orchestrator.errors import InputError, SettingsError
from orchestrator.models.pricing import PriceList, openai_prices
from orchestrator.models.registry import model_for
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient
from orchestrator.price import Price
from orchestrator.providers import ModelSettings, ProviderSettings

MakeModel = Callable[..., ModelClient]

KEY = SecretStr("sk-some-key-of-openai")
AT_OPENAI = ProviderSettings(api_key=KEY)
ELSEWHERE = ProviderSettings(base_url="http://127.0.0.1:9/v1")
HI = ModelRequest(messages=(Message("user", "hi"),))
CHEAP = Price(prompt_usd=0.5, completion_usd=1.0)
DEAR = Price(prompt_usd=50.0, completion_usd=100.0)


@pytest_asyncio.fixture
async def make_model() -> AsyncIterator[MakeModel]:
    """Makes models as the composition root does, and closes them."""
    models: list[ModelClient] = []

    def make(spec: str, **changes: Any) -> ModelClient:  # noqa: ANN401 -- arguments of `model_for`
        arguments: dict[str, Any] = {
            "role": "root",
            "provider": AT_OPENAI,
            "settings": ModelSettings(),
            "local_base_url": None,
            "turnstiles": Turnstiles(),
            "prices": PriceList(),
        }
        model = model_for(spec, **arguments | changes)
        models.append(model)
        return model

    yield make
    for model in models:
        await model.aclose()


@pytest.mark.parametrize("name", ["gpt-5", "qwen2.5-coder:1.5b", "openai/gpt-5", "models/a.gguf"])
async def test_a_name_is_a_model_at_the_endpoint(make_model: MakeModel, name: str) -> None:
    """Whatever is not special is passed to the endpoint as it is."""
    model = make_model(name)

    assert (model.name, model.is_scripted) == (name, False)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "[::1]:9", "gpu.example"])
async def test_any_endpoint_can_be_named(make_model: MakeModel, scheme: str, host: str) -> None:
    """On this machine or another, with a certificate or without, a client can be made."""
    provider = ProviderSettings(base_url=f"{scheme}://{host}/v1")

    assert make_model("m", provider=provider).name == "m"


async def test_echo_is_the_echo(make_model: MakeModel) -> None:
    """`echo` asks nobody, so that it needs no key."""
    model = make_model("echo", provider=ProviderSettings())

    assert (await model.complete(HI)).text == "hi"


@pytest.mark.parametrize(("role", "text"), [("root", "from root"), ("sub", "from sub")])
async def test_one_script_serves_both_roles(
    make_model: MakeModel, tmp_path: Path, role: Literal["root", "sub"], text: str
) -> None:
    """The same script file gives the root model its replies and the sub-model its own."""
    path = tmp_path / "a.toml"
    path.write_text("[[root]]\ntext = 'from root'\n[[sub]]\ntext = 'from sub'\n")

    model = make_model(f"scripted:{path}", role=role, provider=ProviderSettings())

    assert (await model.complete(HI)).text == text
    assert (model.name, model.is_scripted) == ("scripted:a.toml", True)


async def test_local_model_is_asked_at_its_own_address(make_model: MakeModel) -> None:
    """`local` needs no key and costs nothing; without a server it says how to get one."""
    model = make_model("local", local_base_url="http://127.0.0.1:8091/v1")

    assert (model.name, model.is_scripted) == ("local", False)
    assert model.facts.price == Price(prompt_usd=0.0, completion_usd=0.0)
    assert model.facts.window_tokens == 16_384
    with pytest.raises(SettingsError, match="rlm model serve"):
        make_model("local")


@pytest.mark.parametrize("spec", ["echo", "scripted:a.toml"])
async def test_models_that_ask_nobody_cost_nothing(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    """A run of scripts can be given a budget, and spends none of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[[root]]\ntext = 'a'\n")
    price = make_model(spec).facts.price

    assert price is not None
    assert price.most_usd(prompt_tokens=1_000_000, completion_tokens=1_000_000) == 0


async def test_provider_without_a_key_is_refused(make_model: MakeModel) -> None:
    """A model of OpenAI without a key is refused before anything is started."""
    with pytest.raises(SettingsError, match="set OPENAI_API_KEY"):
        make_model("gpt-5", provider=ProviderSettings())


@pytest.mark.parametrize(
    ("provider", "sentence"),
    [
        (ProviderSettings(), "set providers.fast.api_key, or providers.fast.base_url to"),
        (
            ProviderSettings(base_url="http://gpu:8000/v1", api_key_env="GPU_KEY"),
            "no key for gpu:8000: api_key_env names the variable GPU_KEY, which was not set",
        ),
        (
            ProviderSettings(base_url="gpu:8000"),
            "expected providers.fast.base_url to be an address",
        ),
        (
            ProviderSettings(base_url="http://gpu:8000", api_key=SecretStr("a\nb")),
            "providers.fast.api_key holds a space, a line break",
        ),
        (
            ProviderSettings(base_url="http://gpu:8000", headers={"api-key": SecretStr("a\nb")}),
            "the header 'api-key' holds a space, a line break",
        ),
        (
            ProviderSettings(base_url="http://me:hunter2@gpu/v1", api_key_env="GPU_KEY"),
            "providers.fast.base_url holds a password for gpu; pass it as GPU_KEY",
        ),
    ],
)
async def test_message_names_the_settings_of_its_own_provider(
    make_model: MakeModel, provider: ProviderSettings, sentence: str
) -> None:
    """Whoever has several providers reads which of them is wrong, and nothing that is secret."""
    with pytest.raises(SettingsError) as caught:
        make_model("m", provider=provider, settings=ModelSettings(provider="fast"))

    assert sentence in str(caught.value)
    assert "a\nb" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_openais_list_holds_at_openai_alone(make_model: MakeModel) -> None:
    """A name from OpenAI's list says nothing about a model that somebody else serves."""
    listed = openai_prices().models["gpt-5-mini"]

    assert make_model("gpt-5-mini").facts == listed
    assert make_model("gpt-5-mini", provider=ELSEWHERE).facts == ModelFacts()


async def test_openais_prices_do_not_hold_in_its_regions(make_model: MakeModel) -> None:
    """Data kept within a region costs more: what a model takes is known there, its price is not."""
    provider = ProviderSettings(base_url="https://eu.api.openai.com/v1", api_key=KEY)
    facts = make_model("gpt-5-mini", provider=provider).facts

    assert (facts.price, facts.window_tokens) == (None, 400_000)


async def test_model_is_known_by_the_name_its_endpoint_has_for_it(make_model: MakeModel) -> None:
    """A name of the operator's own costs what the model behind it does."""
    model = make_model("fast", settings=ModelSettings(id="gpt-5-mini"))

    assert (model.name, model.facts) == ("fast", openai_prices().models["gpt-5-mini"])


@pytest.mark.parametrize("provider", [AT_OPENAI, ELSEWHERE])
async def test_operators_word_beats_his_list_and_both_beat_openais(
    make_model: MakeModel, provider: ProviderSettings
) -> None:
    """What is configured holds at any endpoint, each fact by itself."""
    of_file = PriceList(models={"gpt-5": ModelFacts(price=DEAR, window_tokens=1)})
    said = ModelSettings(price=CHEAP, max_completion_tokens=2)
    by_file = make_model("gpt-5", provider=provider, prices=of_file).facts
    by_both = make_model("gpt-5", provider=provider, prices=of_file, settings=said).facts

    assert (by_file.price, by_file.window_tokens) == (DEAR, 1)
    assert by_both == ModelFacts(price=CHEAP, window_tokens=1, max_completion_tokens=2)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "no model is named; pass --model with a model's name"),
        (" \t", "no model is named"),
        ("scripted:", "expected a file after `scripted:`"),
        ("gpt-5\n", r"found 'gpt-5\n' with odd characters"),
        ("gpt\x1b[2J", r"found 'gpt\x1b[2J' with odd characters"),
        ("gpt\u202e5", r"found 'gpt\u202e5' with odd characters"),
        ("--sub-model", "found the option '--sub-model'"),
        ("x" * 300, "found a text of 300 characters"),
    ],
)
async def test_odd_names_are_refused(make_model: MakeModel, spec: str, sentence: str) -> None:
    """What cannot be a name is refused with what could be one, shown without its effects."""
    with pytest.raises(SettingsError) as caught:
        make_model(spec)

    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


async def test_missing_script_is_the_callers_to_correct(make_model: MakeModel) -> None:
    """A script that is not there is an input error, as a missing context is."""
    with pytest.raises(InputError, match="found no file there"):
        make_model("scripted:nowhere.toml")


async def test_keys_are_in_no_repr(make_model: MakeModel) -> None:
    """A client can be printed and logged, with everything it is made of."""
    provider = ProviderSettings(
        base_url="http://gpu:8000",
        api_key=KEY,
        headers={"x": SecretStr("hunter2")},
        query={"key": SecretStr("hunter3")},
    )
    model: Any = make_model("m", provider=provider)
    shown = repr(model) + repr(vars(model)) + repr(provider)

    for secret in (KEY.get_secret_value(), "hunter2", "hunter3"):
        assert secret not in shown
