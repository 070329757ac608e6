"""What a model costs and takes, by its name.

Without it a run could not say what it spent, and could set nothing aside for a request. The figures
are data: `prices.toml` beside this module has OpenAI's, a file of the operator's has others.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.chat import ModelFacts
from orchestrator.errors import SettingsError
from orchestrator.price import Price

# A snapshot is named by its family and the day it was cut: `gpt-4o-2024-08-06`.
_SNAPSHOT_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_PRICE_KEYS = tuple(item.name for item in fields(Price))
_COUNT_KEYS = ("window_tokens", "max_completion_tokens")
_MODEL_KEYS = (*_PRICE_KEYS, *_COUNT_KEYS, "as_of")
_TOP_KEYS = ("as_of", "source", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Models by name, with what is known of each.

    Attributes:
        as_of: The day the prices were compared with their source; empty where it does not say.
        source: Whose prices they are; likewise.
        models: What is known of each.
    """

    as_of: str = ""
    source: str = ""
    models: Mapping[str, ModelFacts] = field(default_factory=dict)

    def facts_of(self, *names: str) -> ModelFacts:
        """Returns what is known of a model that goes by any of `names`, the first that is listed.

        A dated snapshot costs what its family does unless it is listed itself. Nothing else is
        inferred: `gpt-5-anything` is not `gpt-5`.
        """
        families = [_SNAPSHOT_DATE.sub("", name) for name in names]
        listed = (self.models[name] for name in (*names, *families) if name in self.models)
        return next(listed, ModelFacts())


def first_known(*candidates: ModelFacts) -> ModelFacts:
    """Returns each fact from the first of `candidates` that has it."""
    known: dict[str, Any] = {}
    for item in fields(ModelFacts):
        values = (getattr(facts, item.name) for facts in candidates)
        known[item.name] = next((value for value in values if value is not None), None)
    return ModelFacts(**known)


@cache
def openai_prices() -> PriceList:
    """Returns what OpenAI's models cost at OpenAI, and take."""
    home = resources.files("orchestrator.models") / "prices.toml"
    return _price_list(tomllib.loads(home.read_text(encoding="utf-8")), where="prices.toml")


def read_prices(path: Path) -> PriceList:
    """Reads a list of the operator's.

    Raises:
        SettingsError: It cannot be read, is not TOML, or no list; the message says what is wrong
            where.
    """
    path = path.expanduser()
    try:
        with path.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        message = f"The prices_file {path} cannot be read: {error.strerror}."
        raise SettingsError(message) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        message = f"The prices_file {path} is not TOML: {error}."
        raise SettingsError(message) from error
    return _price_list(document, where=f"The prices_file {path}")


def _price_list(document: Mapping[str, Any], *, where: str) -> PriceList:
    _check_keys(document, _TOP_KEYS, "", where)
    models = document.get("models", {})
    if not isinstance(models, Mapping):
        raise SettingsError(f"{where}: models: expected tables, got {models!r}.")
    return PriceList(
        as_of=str(document.get("as_of", "")),
        source=str(document.get("source", "")),
        models={name: _facts(table, f"models.{name}", where) for name, table in models.items()},
    )


def _facts(table: object, path: str, where: str) -> ModelFacts:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where}: {path}: expected a table, got {table!r}.")
    _check_keys(table, _MODEL_KEYS, f"{path}.", where)
    for key in _COUNT_KEYS:
        count = table.get(key)
        if count is not None and (type(count) is not int or count <= 0):
            message = f"{where}: {path}.{key}: expected a number of tokens, got {count!r}."
            raise SettingsError(message)
    return ModelFacts(
        price=_price(table, path, where),
        window_tokens=table.get("window_tokens"),
        max_completion_tokens=table.get("max_completion_tokens"),
    )


def _price(table: Mapping[str, Any], path: str, where: str) -> Price | None:
    given = {key: table[key] for key in _PRICE_KEYS if key in table}
    if not given:
        return None
    for key, value in given.items():
        if key == "has_long_prompt_rate":
            if not isinstance(value, bool):
                raise SettingsError(
                    f"{where}: {path}.{key}: expected true or false, got {value!r}."
                )
        elif type(value) not in {int, float} or not math.isfinite(value) or value < 0:
            message = f"{where}: {path}.{key}: expected dollars, zero or more, got {value!r}."
            raise SettingsError(message)
    for key in ("prompt_usd", "completion_usd"):
        if key not in given:
            raise SettingsError(f"{where}: {path}.{key}: expected dollars, found none.")
    return Price(**given)


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], prefix: str, where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}."
            raise SettingsError(f"{where}: {prefix}{key} is not a key; {hint}")
