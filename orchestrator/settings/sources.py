"""The places that settings come from, and what each of them says.

Without it a message about a wrong value could not say where it was written, or would spell a
variable as if it were a key of a file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import EnvSettingsSource

from orchestrator.errors import SettingsError
from orchestrator.settings.document import NESTED, PREFIX, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Values from one place, and how that place spells a key."""

    place: str
    values: Mapping[str, Any]
    spells_environment: bool = False

    def holds(self, path: Sequence[str]) -> bool:
        """Whether this place sets the key at `path`."""
        found: object = self.values
        for part in path:
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        return True

    def name(self, path: Sequence[str]) -> str:
        """Returns the key at `path` as this place spells it, and the place."""
        spelt = PREFIX + NESTED.join(path).upper() if self.spells_environment else ".".join(path)
        return f"{spelt} ({self.place})"


def default_config_file(environment: Mapping[str, str]) -> Path:
    """Returns where the settings file is looked for if none is named."""
    folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "rlm-sandbox/config.toml"


def read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """Returns what a settings file says; nothing where it may be absent and is.

    Raises:
        SettingsError: It cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        if not must_exist:
            return {}
        message = f"The settings file {path} does not exist. Correct --config, or leave it out."
        raise SettingsError(message) from None
    except OSError as error:
        message = f"The settings file {path} cannot be read: {error.strerror}."
        raise SettingsError(message) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        message = f"The settings file {path} is not TOML: {error}."
        raise SettingsError(message) from error


def read_environment() -> dict[str, Any]:
    """Returns what this program's own variables say.

    Raises:
        SettingsError: A section is given as text that is not JSON.
    """
    try:
        return dict(EnvSettingsSource(Settings)())
    except ValueError as error:
        message = f"{error}. Set single keys instead: {PREFIX}RUN{NESTED}TURNS=10."
        # Its cause is the parser's error, which holds the text, and with it perhaps a key.
        raise SettingsError(message) from None


def read_well_known(environment: Mapping[str, str], *, takes_key: bool) -> dict[str, Any]:
    """Returns what other programs' variables say, in this program's keys.

    Args:
        environment: All variables.
        takes_key: Whether the key of OpenAI's SDK is the provider's: not where the operator names
            another variable for it.
    """
    provider = {
        "api_key": environment.get("OPENAI_API_KEY") if takes_key else None,
        "base_url": environment.get("OPENAI_BASE_URL"),
    }
    values: dict[str, Any] = {
        "provider": {key: value for key, value in provider.items() if value},
        "docker_host": environment.get("DOCKER_HOST"),
    }
    user_directory = environment.get("XDG_RUNTIME_DIR")
    if user_directory:
        values["user_runtime_directory"] = user_directory
        if os.getuid() != 0:
            values["runtime_directory"] = f"{user_directory}/rlm"
    if data_home := environment.get("XDG_DATA_HOME"):
        values["data_directory"] = f"{data_home}/rlm-sandbox"
    return {key: value for key, value in values.items() if value}
