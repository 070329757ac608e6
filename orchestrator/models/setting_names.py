"""What an operator calls the settings that a message is about.

Without it a refused key of one provider would be reported as that of another, and whoever reads the
message would change the wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingNames:
    """Names as they are written, of one provider and one model of it; `[provider]`'s by default.

    Attributes:
        api_key: Where the key is.
        base_url: Where the address is.
        request_timeout_s: Where the limit of a request's time is.
        requests_per_minute: Where the rate of requests is.
        model: Where the model's name is.
        api: Where it says how the model is asked.
    """

    api_key: str = "OPENAI_API_KEY"
    base_url: str = "OPENAI_BASE_URL"
    request_timeout_s: str = "RLM_PROVIDER__REQUEST_TIMEOUT_S"
    requests_per_minute: str = "RLM_PROVIDER__REQUESTS_PER_MINUTE"
    model: str = "--model"
    api: str = ""


def setting_names(
    *, provider: str | None, api_key_env: str | None, model: str, has_id: bool, api: str
) -> SettingNames:
    """Returns the names for a model as it is configured.

    Args:
        provider: The name of one of `[providers]`; None means `[provider]`.
        api_key_env: The variable that is named for the key, if one is.
        model: The name the model is asked for by.
        has_id: Whether its endpoint knows it by another.
        api: How it is asked.
    """
    of_provider = SettingNames()
    key, base_url = of_provider.api_key, of_provider.base_url
    timeout, rate = of_provider.request_timeout_s, of_provider.requests_per_minute
    if provider is not None:
        section = f"providers.{provider}"
        key, base_url = f"{section}.api_key", f"{section}.base_url"
        timeout, rate = f"{section}.request_timeout_s", f"{section}.requests_per_minute"
    return SettingNames(
        api_key=api_key_env or key,
        base_url=base_url,
        request_timeout_s=timeout,
        requests_per_minute=rate,
        model=f"models.{model}.id" if has_id else of_provider.model,
        api=f"models.{model}.api" if api != "chat" else "",
    )
