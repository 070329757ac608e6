"""Where an endpoint is.

Without it a mistyped address would surface as an SDK's error in mid-run, and an error would show a
whole address where its host is enough.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.errors import SettingsError
from orchestrator.models.setting_names import SettingNames
from orchestrator.models.shown_words import shown

_OPENAI_HOSTNAME = "api.openai.com"
#: Of OpenAI's endpoints that keep data within a region: `eu.api.openai.com`.
_OPENAI_REGION = f".{_OPENAI_HOSTNAME}"
_OPENAI_BASE_URL = f"https://{_OPENAI_HOSTNAME}/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of an OpenAI-compatible endpoint.

    Attributes:
        base_url: The whole of it.
        hostname: The host alone.
        host: The host, with its port where one is given: what errors show.
    """

    base_url: str
    hostname: str
    host: str

    @property
    def has_list_prices(self) -> bool:
        """Whether OpenAI's list of prices holds there: at its main endpoint, in no region."""
        return self.hostname == _OPENAI_HOSTNAME

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI's own endpoint, where OpenAI's keys and rules hold."""
        return self.has_list_prices or self.hostname.endswith(_OPENAI_REGION)

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ipaddress.ip_address(self.hostname).is_loopback
        except ValueError:
            return self.hostname == "localhost"


def address_of(base_url: str | None, *, names: SettingNames) -> Address:
    """Returns the address `base_url` states; None means OpenAI's own.

    Args:
        base_url: As the operator wrote it.
        names: What the operator calls the settings that a message is about.

    Raises:
        SettingsError: It is not an http or https address, or holds a password.
    """
    base_url = base_url or _OPENAI_BASE_URL
    try:
        parts = urlsplit(base_url)
        hostname, port = parts.hostname, parts.port
    except ValueError:
        parts = urlsplit("")
        hostname, port = None, None
    if parts.username or parts.password:
        message = f"{names.base_url} holds a password for {hostname}; pass it as {names.api_key}"
        raise SettingsError(message)
    if not hostname or parts.scheme not in {"http", "https"}:
        message = (
            f"expected {names.base_url} to be an address such as http://127.0.0.1:8000/v1, found "
            f"{shown(base_url, secrets=())!r}; correct or unset it"
        )
        raise SettingsError(message)
    host = hostname if port is None else f"{hostname}:{port}"
    return Address(base_url=base_url, hostname=hostname, host=host)
