"""Which keys there are, and what to say of one that is not.

Without it a misspelt key would be a limit that nobody enforces. The keys are read from the types of
the settings themselves, to any depth, so that a new one cannot be forgotten here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from orchestrator.errors import SettingsError
from orchestrator.settings.document import NESTED, PREFIX, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of one section.

    Attributes:
        fixed: Each key with the keys below it; None below a plain value.
        has_names: Whether the operator chooses the keys: names of providers, of models.
        below_names: What is below each of those; None below a plain value.
    """

    fixed: Mapping[str, Keys | None] = field(default_factory=dict)
    has_names: bool = False
    below_names: Keys | None = None

    def holds(self, key: str) -> bool:
        """Whether the section may have such a key."""
        return self.has_names or key in self.fixed

    def below(self, key: str) -> Keys | None:
        """Returns the keys below `key`, None where a plain value stands there."""
        return self.below_names if self.has_names else self.fixed.get(key)

    def variables(self, path: tuple[str, ...] = ()) -> Iterator[str]:
        """Yields the environment variables of all keys from here, chosen names as `NAME`."""
        if self.has_names:
            yield _variable((*path, "name"))
            if self.below_names is not None:
                yield from self.below_names.variables((*path, "name"))
        for key, below in self.fixed.items():
            yield _variable((*path, key))
            if below is not None:
                yield from below.variables((*path, key))


def known_keys() -> Keys:
    """Returns all keys there are."""
    kinds = get_type_hints(Settings)
    return Keys(fixed={name: _keys_below(kinds[name]) for name in Settings.model_fields})


def refuse_unknown_keys(values: Mapping[str, Any], *, place: str) -> None:
    """Raises `SettingsError` for a key that is none, naming the nearest that is.

    Args:
        values: What one source says, sections as mappings.
        place: The source, as a message names it.
    """
    _refuse_below(values, known_keys(), (), place)


def refuse_unknown_variables(names: Iterable[str]) -> None:
    """Raises `SettingsError` for an environment variable of this program's that sets nothing."""
    keys = known_keys()
    for name in names:
        if name.startswith(PREFIX) and not _is_variable(name, keys):
            known = sorted(keys.variables())
            raise SettingsError(_unknown(name, known, place="from the environment"))


def _is_variable(name: str, keys: Keys) -> bool:
    here: Keys | None = keys
    for part in name.removeprefix(PREFIX).split(NESTED):
        if here is None or not part or part != part.upper() or not here.holds(part.lower()):
            return False
        here = here.below(part.lower())
    return True


def _refuse_below(values: Mapping[str, Any], keys: Keys, path: tuple[str, ...], place: str) -> None:
    for key, value in values.items():
        here = (*path, str(key))
        if not keys.holds(key):
            known = [".".join((*path, name)) for name in sorted(keys.fixed)]
            raise SettingsError(_unknown(".".join(here), known, place=place))
        below = keys.below(key)
        if below is not None and isinstance(value, Mapping):
            _refuse_below(value, below, here, place)


def _unknown(key: str, known: list[str], *, place: str) -> str:
    near = _elsewhere(key) or difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}."
    return f"{key} ({place}) is not a setting; {hint}"


def _elsewhere(key: str) -> list[str]:
    """Returns the keys of the same name in other sections: a limit that somebody misplaced."""
    name = key.rpartition(".")[2]
    sections = known_keys().fixed.items()
    return [
        f"{section}.{name}"
        for section, below in sections
        if below is not None and not below.has_names and name in below.fixed
    ]


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + NESTED.join(path).upper()


def _keys_below(kind: object) -> Keys | None:
    """Returns the keys of a section, from the type of its value as `get_type_hints` has it."""
    origin = get_origin(kind)
    if origin in {Union, UnionType}:
        [inner] = [one for one in get_args(kind) if one is not NoneType][:1]
        return _keys_below(inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Keys(has_names=True, below_names=_keys_below(get_args(kind)[1]))
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        return Keys(fixed={item.name: _keys_below(kinds[item.name]) for item in fields(kind)})
    return None
