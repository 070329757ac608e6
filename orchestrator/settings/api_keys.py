"""Finds each provider's key where the operator put it.

Without it a key could be given in a file only, and a file with keys in it would have to be kept as
safe as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import SettingsError


def with_one_key(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `below` without the keys that `above` gives in another way.

    A later source that names a variable means it instead of an earlier source's key, and the other
    way round.
    """
    kept = dict(below)
    for section, name in _provider_paths(above):
        table = _table(kept, section, name)
        later = _table(above, section, name)
        for given, other in (("api_key", "api_key_env"), ("api_key_env", "api_key")):
            if given in later and other in table:
                table = {key: value for key, value in table.items() if key != other}
                kept = _replaced(kept, section, name, table)
    return kept


def with_keys_found(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns settings in which each variable that is named for a key stands beside what it holds.

    A variable that is not set is left for whoever asks the provider to complain of: a run need not
    have the keys of providers that it does not ask.

    Raises:
        SettingsError: One source gives a key in both ways.
    """
    found = dict(values)
    for section, name in _provider_paths(values):
        table = _table(values, section, name)
        variable = table.get("api_key_env")
        if not isinstance(variable, str):
            continue
        if "api_key" in table:
            where = section if name is None else f"{section}.{name}"
            message = f"{where} has both api_key and api_key_env; leave one of them out."
            raise SettingsError(message)
        if environment.get(variable):
            table = table | {"api_key": environment[variable]}
            found = _replaced(found, section, name, table)
    return found


def _provider_paths(values: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Returns where providers stand: the section, and the name below it where it has one."""
    paths: list[tuple[str, str | None]] = []
    if isinstance(values.get("provider"), Mapping):
        paths.append(("provider", None))
    providers = values.get("providers")
    if isinstance(providers, Mapping):
        paths += [("providers", name) for name in providers]
    return paths


def _table(values: Mapping[str, Any], section: str, name: str | None) -> dict[str, Any]:
    table = values.get(section)
    if name is not None:
        table = table.get(name) if isinstance(table, Mapping) else None
    return dict(table) if isinstance(table, Mapping) else {}


def _replaced(
    values: Mapping[str, Any], section: str, name: str | None, table: dict[str, Any]
) -> dict[str, Any]:
    if name is None:
        return dict(values) | {section: table}
    return dict(values) | {section: dict(values[section]) | {name: table}}
