from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from orchestrator.domain import Message
from orchestrator.errors import InputError, SettingsError
from orchestrator.models.registry import model_for
from orchestrator.ports import ModelClient

MakeModel = Callable[..., ModelClient]


@pytest_asyncio.fixture
async def make_model() -> AsyncIterator[MakeModel]:
    """Makes models as the composition root does, and closes them."""
    models: list[ModelClient] = []

    def make(spec: str, **changes: Any) -> ModelClient:  # noqa: ANN401 -- arguments of `model_for`
        arguments: dict[str, Any] = {
            "role": "root",
            "api_key": "sk-some-key-of-openai",
            "base_url": None,
            "local_base_url": None,
            "request_timeout_s": 5.0,
            "max_retries": 0,
            "temperature": None,
            "max_concurrent_requests": 4,
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


async def test_echo_is_the_echo(make_model: MakeModel) -> None:
    """`echo` asks nobody, so that it needs no key."""
    model = make_model("echo", api_key=None)

    assert (await model.complete([Message("user", "hi")])).text == "hi"


@pytest.mark.parametrize(("role", "text"), [("root", "from root"), ("sub", "from sub")])
async def test_one_script_serves_both_roles(
    make_model: MakeModel, tmp_path: Path, role: Literal["root", "sub"], text: str
) -> None:
    """The same script file gives the root model its replies and the sub-model its own."""
    path = tmp_path / "a.toml"
    path.write_text("[[root]]\ntext = 'from root'\n[[sub]]\ntext = 'from sub'\n")

    model = make_model(f"scripted:{path}", role=role, api_key=None)

    assert (await model.complete([Message("user", "hi")])).text == text
    assert (model.name, model.is_scripted) == ("scripted:a.toml", True)


async def test_local_model_is_asked_at_its_own_address(make_model: MakeModel) -> None:
    """`local` needs no key; without a server it says how to get one."""
    model = make_model("local", api_key=None, local_base_url="http://127.0.0.1:8091/v1")

    assert (model.name, model.is_scripted) == ("local", False)
    with pytest.raises(SettingsError, match="rlm model serve"):
        make_model("local")


async def test_provider_without_a_key_is_refused(make_model: MakeModel) -> None:
    """A model of OpenAI without a key is refused before anything is started."""
    with pytest.raises(SettingsError, match="set OPENAI_API_KEY"):
        make_model("gpt-5", api_key=None)


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
