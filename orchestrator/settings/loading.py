"""Reads what an operator configured: a TOML file, then the environment, then the caller's own word.

Without it each part would read the environment in its own way, a misspelt key would be a limit
that nobody enforces, and a wrong value would surface as a traceback far from where it was written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import SettingsError
from orchestrator.settings.api_keys import with_keys_found, with_one_key
from orchestrator.settings.document import Settings
from orchestrator.settings.keys import refuse_unknown_keys, refuse_unknown_variables
from orchestrator.settings.sources import (
    Source,
    default_config_file,
    read_environment,
    read_file,
    read_well_known,
)

_ENVIRONMENT, _CALLER = "from the environment", "given by the caller"
_PROVIDERS = ("provider", "providers")
_SECRETS = frozenset({"api_key", "headers", "query"})
_SECTION_TYPES = frozenset({"dataclass_type", "dict_type", "mapping_type"})


def load(
    *, config_file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Reads the configuration: file, then environment, then `overrides`, the later winning.

    The environment is every `RLM_` variable (`RLM_MODEL`, `RLM_RUN__TURNS`), `OPENAI_API_KEY`,
    `OPENAI_BASE_URL`, `DOCKER_HOST`, `XDG_RUNTIME_DIR` and `XDG_DATA_HOME` by their own names, and
    whatever variables are named as `api_key_env`.

    Args:
        config_file: A TOML file that has to exist. Without it,
            `$XDG_CONFIG_HOME/rlm-sandbox/config.toml` is read if it is there.
        overrides: Values by key, sections as nested mappings. None in it means "not given".

    Raises:
        SettingsError: The file cannot be read, a key is unknown, or a value is not of its kind.
    """
    environment = os.environ  # noqa: TID251 - the place the ban points to
    path = config_file or default_config_file(environment)
    file_values = read_file(path, must_exist=config_file is not None)
    refuse_unknown_keys(file_values, place=f"in {path}")
    refuse_unknown_variables(environment)
    own_values, given = read_environment(), _without_none(overrides or {})
    refuse_unknown_keys(own_values, place=_ENVIRONMENT)
    refuse_unknown_keys(given, place=_CALLER)
    in_file = Source(place=f"in {path}", values=file_values)
    in_variables = Source(place=_ENVIRONMENT, values=own_values, spells_environment=True)
    names_key = ("provider", "api_key_env")
    takes_key = not (in_file.holds(names_key) or in_variables.holds(names_key))
    sources = (
        Source(place=_CALLER, values=given),
        in_variables,
        Source(place=_ENVIRONMENT, values=read_well_known(environment, takes_key=takes_key)),
        in_file,
    )
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged = _merge(with_one_key(merged, source.values), source.values)
    try:
        return Settings(**with_keys_found(merged, environment))
    except ValidationError as error:
        sentences = [_explain(detail, sources) for detail in error.errors()]
        raise SettingsError("\n".join(sentences)) from None  # its text would repeat secret values


def _explain(detail: ErrorDetails, sources: Sequence[Source]) -> str:
    """Returns one sentence: which key, what was expected, what came."""
    path, context = [str(part) for part in detail["loc"]], detail.get("ctx", {})
    path += context.get("path", ())
    came = context.get("came", detail["input"])
    is_missing = detail["type"] == "missing"
    written = path[:-1] if is_missing else path  # what is missing is missing from somewhere
    origin = next((source for source in sources if source.holds(written)), None)
    name = origin.name(path) if origin else ".".join(path)
    if is_missing:
        return f"{name}: expected a value, found none."
    expected = detail["msg"].replace("Input should be", "expected").partition(", unable")[0]
    if detail["type"] in _SECTION_TYPES:
        expected = "expected a section of keys"
    if _may_be_secret(path, came):
        return f"{name}: {expected}."
    return f"{name}: {expected}, got {came!r}."


def _may_be_secret(path: Sequence[str], came: object) -> bool:
    """Whether a value is a key, or has one in it; it is one even where it is of the wrong kind."""
    if isinstance(came, Mapping | list):
        return True
    if not path or path[0] not in _PROVIDERS:
        return False
    depth = 1 if path[0] == "provider" else 2
    return len(path) <= depth or path[depth] in _SECRETS


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }
    return {key: value for key, value in kept.items() if value != {}}
