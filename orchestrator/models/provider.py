"""One provider as its clients see it: address, key, and how long a request may take.

Without it a key that cannot be sent would be found out with the first request, in an error that
repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from orchestrator.errors import SettingsError
from orchestrator.models.address import Address, address_of
from orchestrator.models.setting_names import SettingNames
from orchestrator.providers import ProviderSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An endpoint and what it is sent with every request.

    Attributes:
        address: Where it is.
        request_timeout_s: Wall-clock seconds one request may take.
        api_key: Its key; None where it needs none.
        headers: Further headers, which may be keys.
        query: Added to every address, likewise.
    """

    address: Address
    request_timeout_s: float
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> frozenset[str]:
        """What must not be shown, whoever repeats it."""
        all_values = {self.api_key or "", *self.headers.values(), *self.query.values()}
        return frozenset(all_values - {""})


def provider_from(settings: ProviderSettings, *, names: SettingNames) -> Provider:
    """Returns the provider that `settings` describe.

    Args:
        settings: As configured.
        names: What the operator calls the settings that a message is about.

    Raises:
        SettingsError: There is no key for OpenAI or for one that a key is named for, or key,
            headers or address cannot be used.
    """
    address = address_of(settings.base_url, names=names)
    headers = {name: _revealed(value) for name, value in settings.headers.items()}
    for name, value in headers.items():
        _check_header(value, where=f"the header {name!r}")
    return Provider(
        address=address,
        request_timeout_s=settings.request_timeout_s,
        api_key=_checked_key(settings, address, names),
        headers=headers,
        query={name: _revealed(value) for name, value in settings.query.items()},
    )


def _checked_key(settings: ProviderSettings, address: Address, names: SettingNames) -> str | None:
    """Returns the key, or None where none is needed."""
    api_key = _revealed(settings.api_key) if settings.api_key else ""
    if not api_key:
        if settings.api_key_env:
            message = (
                f"no key for {address.host}: api_key_env names the variable "
                f"{settings.api_key_env}, which was not set when the settings were read"
            )
            raise SettingsError(message)
        if address.is_openai:
            message = (
                f"no key for {address.hostname}: set {names.api_key}, or {names.base_url} to an "
                "endpoint that needs none, or run with --model local"
            )
            raise SettingsError(message)
        return None
    if " " in api_key:
        _refuse(names.api_key)
    _check_header(api_key, where=names.api_key)
    return api_key


def _check_header(value: str, *, where: str) -> None:
    # A line break left over from a file would fail with the value in the error's text.
    if not value.isascii() or not value.isprintable():
        _refuse(where)


def _refuse(where: str) -> None:
    message = (
        f"{where} holds a space, a line break or a character that is not ASCII; "
        "set it again, the key alone"
    )
    raise SettingsError(message)


def _revealed(value: SecretStr) -> str:
    return value.get_secret_value()
