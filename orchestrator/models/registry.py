"""From a model's name to the client that asks it.

Without it every caller would know which names are special and how each kind of model is made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from orchestrator.chat import ModelFacts
from orchestrator.errors import SettingsError
from orchestrator.models.dialect import NEW_LIMIT, OLD_LIMIT, Dialect
from orchestrator.models.local.serve import SLOT_TOKENS
from orchestrator.models.manner import Manner
from orchestrator.models.pricing import PriceList, first_known, openai_prices
from orchestrator.models.provider import Provider, provider_from
from orchestrator.models.script_file import load_script
from orchestrator.models.scripted import EchoModel
from orchestrator.models.setting_names import setting_names
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient
from orchestrator.price import Price
from orchestrator.providers import ModelSettings, ProviderSettings

_SCRIPTED = "scripted:"
_LOCAL = "local"
_NAME_CHARS = 256  # longer than any provider's; a longer one is a pasted text
_FORMS = "a model's name, `local`, `scripted:FILE`, `replay:FILE` or `echo`"
_LOCAL_FACTS = ModelFacts(
    price=Price(prompt_usd=0.0, completion_usd=0.0), window_tokens=SLOT_TOKENS
)


def model_for(  # noqa: PLR0913 -- keyword-only, one for each thing a model is made from
    spec: str,
    *,
    role: Literal["root", "sub"],
    provider: ProviderSettings,
    settings: ModelSettings,
    local_base_url: str | None,
    turnstiles: Turnstiles,
    prices: PriceList,
) -> ModelClient:
    """Returns the model that `spec` names; the caller closes it.

    Args:
        spec: `scripted:FILE` replays a script, `echo` answers with the prompt, `local` is the
            model served on this machine; anything else is the name of a model at a provider.
        role: Which of a script's replies the model gives.
        provider: Where it is asked; `settings.provider` is its name.
        settings: What is configured for the model.
        local_base_url: Where the local model is served; None where it is not.
        turnstiles: Of the whole composition: clients of one provider wait together.
        prices: The operator's own list.

    Raises:
        SettingsError: `spec` is empty or no name, there is no key, or no local model.
        InputError: The script is missing or malformed.
    """
    _check_name(spec)
    if spec == EchoModel.name:
        return EchoModel()
    if spec.startswith(_SCRIPTED):
        script = load_script(Path(spec.removeprefix(_SCRIPTED)).expanduser())
        return script.root_model() if role == "root" else script.sub_model()
    if spec == _LOCAL:
        if local_base_url is None:
            message = "no local model is served; run `rlm model fetch` once, then `rlm model serve`"
            raise SettingsError(message)
        # The key stays out: it belongs to another endpoint.
        provider = ProviderSettings(
            base_url=local_base_url,
            request_timeout_s=provider.request_timeout_s,
            temperature=provider.temperature,
        )
    # The SDK takes most of a second to import, and scripts, echoes and `--help` do without it.
    from orchestrator.models.openai_client import HowToAsk, OpenAiModel  # noqa: PLC0415 -- above

    model_id = settings.id or spec
    names = setting_names(
        provider=settings.provider,
        api_key_env=provider.api_key_env,
        model=spec,
        has_id=settings.id is not None,
        api=settings.api,
    )
    endpoint = provider_from(provider, names=names)
    temperature = provider.temperature if settings.temperature is None else settings.temperature
    how = HowToAsk(
        api=settings.api,
        manner=Manner(
            model_id=model_id,
            temperature=temperature,
            reasoning_effort=settings.reasoning_effort,
            extra_body=settings.extra_body,
        ),
        dialect=_dialect(endpoint, settings),
        facts=_facts(spec, model_id, endpoint=endpoint, settings=settings, prices=prices),
        names=names,
    )
    return OpenAiModel(
        name=spec,
        provider=endpoint,
        how=how,
        turnstiles=turnstiles.before(spec, provider_settings=provider, settings=settings),
    )


def _dialect(endpoint: Provider, settings: ModelSettings) -> Dialect:
    """Returns what an endpoint is believed to take until it says otherwise."""
    # OpenAI deprecates the old name, and its reasoning models answer it with 400. Elsewhere the
    # new one is the risk: llama-cpp-python (#1907), llamafile (#701) and llama.cpp before
    # February 2026 (#13700) ignore it without a word, and the reply has no limit then.
    is_openai = endpoint.address.is_openai
    return Dialect(
        limit_name=NEW_LIMIT if is_openai else OLD_LIMIT,
        streams=settings.streams,
        structured=settings.structured or ("json_schema" if is_openai else "none"),
    )


def _facts(
    spec: str,
    model_id: str,
    *,
    endpoint: Provider,
    settings: ModelSettings,
    prices: PriceList,
) -> ModelFacts:
    """Returns what is known of a model: the operator's word, his list, then OpenAI's own."""
    configured = ModelFacts(
        price=settings.price,
        window_tokens=settings.window_tokens,
        max_completion_tokens=settings.max_completion_tokens,
    )
    known = [configured, prices.facts_of(spec, model_id)]
    if spec == _LOCAL:
        known.append(_LOCAL_FACTS)
    elif endpoint.address.is_openai:
        listed = openai_prices().facts_of(model_id)
        # Data kept within a region costs more, by a factor that is on no list.
        has_price = endpoint.address.has_list_prices
        known.append(listed if has_price else replace(listed, price=None))
    return first_known(*known)


def _check_name(spec: str) -> None:
    """Raises `SettingsError` for what is no model's name."""
    if not spec.strip():
        message = f"no model is named; pass --model with {_FORMS}"
    elif spec == _SCRIPTED:
        message = "expected a file after `scripted:`, found nothing; pass --model scripted:FILE"
    elif len(spec) > _NAME_CHARS and not spec.startswith(_SCRIPTED):
        message = f"expected {_FORMS} for --model, found a text of {len(spec):,} characters"
    elif spec != spec.strip() or not spec.isprintable():
        message = f"expected {_FORMS} for --model, found {spec!a} with odd characters in it"
    elif spec.startswith("-"):
        message = f"expected {_FORMS} for --model, found the option {spec!r}"
    else:
        return
    raise SettingsError(message)
