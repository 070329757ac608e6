import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.limits import ModelCap
from orchestrator.models.pricing import read_prices
from orchestrator.price import Price
from orchestrator.providers import ModelSettings, ProviderSettings
from orchestrator.settings import load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    foreign = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "XDG_CONFIG_HOME")
    for name in [*foreign, *(name for name in os.environ if name.startswith("RLM_"))]:  # noqa: TID251 - what it reads is removed
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "rlm.toml"
        path.write_text(text, "utf-8")
        return path

    return write_file


PROVIDERS = """
model = "big"
sub_model = "small"
child_model = "big"
prices_file = "prices.toml"

[provider]
base_url = "http://first/v1"

[providers.gpu]
base_url = "http://gpu:8000/v1"
api_key = "hunter2"
headers = { "x-team" = "hunter3" }
query = { "api-version" = "hunter4" }
max_retries = 0
concurrent_requests = 4
requests_per_minute = 60
tokens_per_minute = 100_000

[models.big]
id = "openai/gpt-oss-120b"
provider = "gpu"
api = "responses"
window_tokens = 131_072
max_completion_tokens = 32_768
price = { prompt_usd = 0, completion_usd = 1.5, has_long_prompt_rate = true }
concurrent_requests = 2
reasoning_effort = "low"
temperature = 0
extra_body = { top_k = 20, chat_template_kwargs = { thinking = false } }
structured = "json_object"
streams = false

[sub_models]
judge = "gpt-5"

[run.models.big]
usd = 2.5
requests = 0
"""


def test_models_and_their_providers_are_read(write: Callable[[str], Path]) -> None:
    """Everything that can be said of a model and of a provider is read as it stands."""
    found = load(config_file=write(PROVIDERS))

    assert found.models["big"] == ModelSettings(
        id="openai/gpt-oss-120b",
        provider="gpu",
        api="responses",
        window_tokens=131_072,
        max_completion_tokens=32_768,
        price=Price(prompt_usd=0, completion_usd=1.5, has_long_prompt_rate=True),
        concurrent_requests=2,
        reasoning_effort="low",
        temperature=0,
        extra_body={"top_k": 20, "chat_template_kwargs": {"thinking": False}},
        structured="json_object",
        streams=False,
    )
    gpu = found.provider_of("big")
    assert (gpu.base_url, gpu.max_retries) == ("http://gpu:8000/v1", 0)
    assert (gpu.concurrent_requests, gpu.requests_per_minute) == (4, 60)
    assert gpu.tokens_per_minute == 100_000
    assert gpu.headers["x-team"].get_secret_value() == "hunter3"
    assert gpu.query["api-version"].get_secret_value() == "hunter4"
    assert found.provider_of("small").base_url == "http://first/v1"
    assert found.settings_of("small") == ModelSettings()
    assert (found.child_model, dict(found.sub_models)) == ("big", {"judge": "gpt-5"})
    assert found.run.models == {"big": ModelCap(usd=2.5, requests=0)}
    assert found.prices_file == Path("prices.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[models.m]\nprovider = 'gpu'",
            (
                "models.m.provider ({path}): expected the name of one of [providers] "
                "(there are none); add a section [providers.gpu] with its base_url, or leave it "
                "out, got 'gpu'."
            ),
        ),
        (
            "[providers.one]\n[models.m]\nprovider = 'gpu'",
            (
                "models.m.provider ({path}): expected the name of one of [providers] (one); "
                "add a section [providers.gpu] with its base_url, or leave it out, got 'gpu'."
            ),
        ),
        (
            "[providers.one]\n[models.local]\nprovider = 'one'",
            (
                "models.local.provider ({path}): expected none: the local model is served on this "
                "machine, got 'one'."
            ),
        ),
        (
            "[providers.one]\nlocal_base_url = 'http://x/v1'",
            "providers.one.local_base_url ({path}): expected it in [provider]",
        ),
        ("[providers.'a b']", "providers.a b ({path}): expected a name of letters"),
        ("sub_models.sub = 'm'", "sub_models.sub ({path}): expected an identifier other than"),
        ("sub_models.'a-b' = 'm'", "sub_models.a-b ({path}): expected an identifier other than"),
        (
            "[models.m.extra_body]\nstream = true",
            "models.m.extra_body.stream ({path}): expected none: each request says it itself",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    write: Callable[[str], Path], text: str, sentence: str
) -> None:
    """What one section says of another is checked when it is read, not in mid-run."""
    path = write(text)

    with pytest.raises(SettingsError) as caught:
        load(config_file=path)

    assert str(caught.value).startswith(sentence.format(path=f"in {path}"))


@pytest.mark.parametrize(
    ("text", "variables", "key"),
    [
        pytest.param("api_key = 'of-file'", {}, "of-file", id="in-the-file"),
        pytest.param("api_key_env = 'GPU_KEY'", {"GPU_KEY": "named"}, "named", id="named"),
        pytest.param("api_key_env = 'GPU_KEY'", {}, None, id="named-and-not-set"),
        pytest.param(
            "api_key = 'of-file'",
            {"RLM_PROVIDERS__GPU__API_KEY": "own-variable"},
            "own-variable",
            id="own-variable-beats-the-file",
        ),
        pytest.param(
            "api_key_env = 'GPU_KEY'",
            {"GPU_KEY": "named", "RLM_PROVIDERS__GPU__API_KEY": "own-variable"},
            "own-variable",
            id="own-variable-beats-a-named-one",
        ),
        pytest.param(
            "api_key = 'of-file'",
            {"GPU_KEY": "named", "RLM_PROVIDERS__GPU__API_KEY_ENV": "GPU_KEY"},
            "named",
            id="later-name-beats-an-earlier-key",
        ),
        pytest.param("", {"OPENAI_API_KEY": "of-openai"}, None, id="openais-is-no-others"),
    ],
)
def test_key_of_a_provider_is_found_where_it_was_put(
    write: Callable[[str], Path],
    clean_environment: pytest.MonkeyPatch,
    text: str,
    variables: dict[str, str],
    key: str | None,
) -> None:
    """In the file or in a variable, the later word counting, and never another provider's."""
    for name, value in variables.items():
        clean_environment.setenv(name, value)
    provider = load(config_file=write(f"[providers.gpu]\n{text}")).providers["gpu"]

    assert (provider.api_key and provider.api_key.get_secret_value()) == key


def test_named_variable_beats_openais_for_the_first_provider(
    write: Callable[[str], Path], clean_environment: pytest.MonkeyPatch
) -> None:
    """Whoever names a variable for the key does not mean the one that other programs read."""
    clean_environment.setenv("OPENAI_API_KEY", "of-openai")
    clean_environment.setenv("MY_KEY", "mine")
    provider = load(config_file=write("[provider]\napi_key_env = 'MY_KEY'")).provider

    assert provider.api_key is not None
    assert provider.api_key.get_secret_value() == "mine"


@pytest.mark.parametrize("section", ["provider", "providers.gpu"])
def test_key_in_two_ways_is_refused(write: Callable[[str], Path], section: str) -> None:
    """Which of the two was meant is not guessed at."""
    text = f"[{section}]\napi_key = 'hunter2'\napi_key_env = 'KEY'"

    with pytest.raises(SettingsError, match="has both api_key and api_key_env") as caught:
        load(config_file=write(text))

    assert str(caught.value).startswith(section)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "provider = 'hunter2'",
        "providers = 'hunter2'",
        "providers.gpu = 'hunter2'",
        "provider = ['hunter2']",
        "[providers.gpu]\napi_key = ['hunter2']",
        "[providers.gpu]\nheaders = 'hunter2'",
        "[providers.gpu]\nheaders = { a = ['hunter2'] }",
        "[providers.gpu]\nquery = { a = { b = 'hunter2' } }",
        "[providers.gpu.api_key]\nvalue = 'hunter2'",
    ],
)
def test_misplaced_secret_is_not_repeated(write: Callable[[str], Path], text: str) -> None:
    """A key that was written in the wrong place or form is still a key."""
    with pytest.raises(SettingsError, match="provider") as caught:
        load(config_file=write(text))

    assert "hunter2" not in str(caught.value)


def test_section_that_is_no_json_is_refused_without_its_text(
    clean_environment: pytest.MonkeyPatch,
) -> None:
    """Neither the message nor what it came from repeats a variable that may hold a key."""
    clean_environment.setenv("RLM_PROVIDERS", "{'gpu': 'hunter2'}")

    with pytest.raises(SettingsError, match="Set single keys instead") as caught:
        load()

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_secrets_do_not_show(write: Callable[[str], Path]) -> None:
    """Settings can be printed and logged without giving away a key, a header or a query."""
    shown = repr(load(config_file=write(PROVIDERS)))

    for secret in ("hunter2", "hunter3", "hunter4"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RLM_PROVIDERS__GPU__BASE_ULR", "x", "did you mean RLM_PROVIDERS__NAME__BASE_URL"),
        ("RLM_RUN__MODELS__BIG__USDS", "3", "did you mean RLM_RUN__MODELS__NAME__USD"),
        ("RLM_RUN__TURNS__MORE", "3", "is not a setting"),
        ("RLM_SUB_MODELS__", "3", "is not a setting"),
        ("RLM_PROVIDERS__gpu__MAX_RETRIES", "3", "is not a setting"),
        ("RLM_RUN", '{"turn": 3}', r"run\.turn \(from the environment\).*did you mean run\.turns"),
        ("RLM_PROVIDERS", '{"gpu": {"kye": 1}}', r"providers\.gpu\.kye .* is not a setting"),
    ],
)
def test_misspelt_variable_below_a_chosen_name_is_refused(
    clean_environment: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """To any depth, and in JSON too, a key that is none is an error and not a wish."""
    clean_environment.setenv(variable, value)

    with pytest.raises(SettingsError, match=message):
        load()


def test_chosen_names_may_stand_in_variables(clean_environment: pytest.MonkeyPatch) -> None:
    """Names of providers, models and aliases are read from variables in lower case."""
    clean_environment.setenv("RLM_PROVIDERS__GPU__MAX_RETRIES", "1")
    clean_environment.setenv("RLM_MODELS__BIG__PROVIDER", "gpu")
    clean_environment.setenv("RLM_MODELS__BIG__PRICE__PROMPT_USD", "1")
    clean_environment.setenv("RLM_MODELS__BIG__PRICE__COMPLETION_USD", "2")
    clean_environment.setenv("RLM_SUB_MODELS__JUDGE", "big")
    found = load()

    assert found.provider_of("big").max_retries == 1
    assert found.settings_of("big").price == Price(prompt_usd=1, completion_usd=2)
    assert found.sub_models == {"judge": "big"}


def test_sections_are_merged_key_by_key(
    write: Callable[[str], Path], clean_environment: pytest.MonkeyPatch
) -> None:
    """A variable that sets one key of a provider leaves the file's others alone."""
    clean_environment.setenv("RLM_PROVIDERS__GPU__MAX_RETRIES", "7")
    path = write(PROVIDERS)
    overrides = {"models": {"big": {"streams": True}}}
    found = load(config_file=path, overrides=overrides)

    assert found.providers["gpu"].max_retries == 7
    assert found.providers["gpu"].base_url == "http://gpu:8000/v1"
    assert (found.models["big"].streams, found.models["big"].provider) == (True, "gpu")


def test_samples_of_the_providers_page_are_read(
    tmp_path: Path, write: Callable[[str], Path], clean_environment: pytest.MonkeyPatch
) -> None:
    """Each sample of docs/providers.md is one, and a key that it shows with a default has it."""
    page = (Path(__file__).parents[2] / "docs/providers.md").read_text(encoding="utf-8")
    one, several, prices = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for name in ("MY_KEY", "GPU_KEY"):
        clean_environment.setenv(name, "hunter2")
    default = ProviderSettings()
    gpu = load(config_file=write(several)).provider_of("fast")
    path = tmp_path / "prices.toml"
    path.write_text(prices, encoding="utf-8")

    assert load(config_file=write(one)).provider.api_key is not None
    assert gpu.request_timeout_s == default.request_timeout_s
    assert gpu.max_retries == default.max_retries
    assert gpu.concurrent_requests == default.concurrent_requests
    assert list(read_prices(path).models) == ["Qwen/Qwen3-32B"]
