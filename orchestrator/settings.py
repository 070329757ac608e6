"""Reads what an operator configured: a TOML file, then the environment, then the caller's own word.

Without it each part would read the environment in its own way, a misspelt key would be a limit
that nobody enforces, and a wrong value would surface as a traceback far from where it was written.
"""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from orchestrator.controls import BrokerIsolation
from orchestrator.domain import CellLimits, LanguagePolicy, RunLimits, SandboxLimits
from orchestrator.errors import SettingsError

_PREFIX = "RLM_"
_NESTED = "__"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_STEPS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
#: Limits for which zero is a choice ("no queries at all"), not a mistake.
_MAY_BE_ZERO = frozenset({"queries"})

_Limits = TypeVar("_Limits", RunLimits, CellLimits, SandboxLimits)


def parse_size(text: str) -> int:
    """Returns the bytes that `text` names: `512m`, `2g`, `1.5 GiB`, `1048576`.

    Units are powers of 1024, as the Docker command line has them.

    Raises:
        ValueError: It is not a number with such a unit.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = "expected a size such as 512m, 2g or a number of bytes"
        raise ValueError(message)
    number, unit = match.groups()
    return int(float(number) * 2 ** _SIZE_STEPS[unit.lower()])


def _read_sizes(value: object) -> object:
    """Turns `memory_bytes = "2g"` into a number before the limits are checked."""
    if not isinstance(value, Mapping):
        return value
    read = dict(value)
    for key, item in value.items():
        if str(key).endswith("_bytes") and isinstance(item, str):
            try:
                read[key] = parse_size(item)
            except ValueError as error:
                raise _limit_error(str(key), str(error), item) from None
    return read


def _check_positive(limits: _Limits) -> _Limits:
    """Refuses a limit that would stop everything, or nothing."""
    for item in fields(limits):
        value = getattr(limits, item.name)
        may_be_zero = item.name in _MAY_BE_ZERO
        if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
            expected = f"expected a number {'of zero or more' if may_be_zero else 'above zero'}"
            raise _limit_error(item.name, expected, value)
    return limits


def _limit_error(key: str, expected: str, came: object) -> PydanticCustomError:
    return PydanticCustomError(
        "limit", "{expected}", {"key": key, "expected": expected, "came": came}
    )


def _default_runtime_directory() -> Path:
    # Short, because the path of a Unix socket holds 108 bytes at most (unix(7)).
    return Path("/run/rlm") if os.getuid() == 0 else Path(f"/tmp/rlm-{os.getuid()}")  # noqa: S108 - the broker makes it, 0700, and refuses one that is somebody else's


def _default_data_directory() -> Path:
    return Path.home() / ".local/share/rlm-sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Where models that are not scripted are asked."""

    base_url: str | None = None  # the SDK's own: the API that the default models belong to
    api_key: SecretStr | None = None  # a local server needs none
    request_timeout_s: float = 600.0  # reasoning models take minutes for one reply
    max_retries: int = 4  # rides out the window of a rate limit
    temperature: float | None = None  # the provider's own; reasoning models refuse any other
    local_base_url: str | None = None  # `--model local` starts a server for the run


class Settings(BaseSettings):
    """Everything that can be configured. Made by `load`, or by hand where nothing is to be read."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter=_NESTED,
        env_ignore_empty=True,  # `RLM_MODEL= rlm …` means "not set" to whoever writes it
        extra="forbid",
        frozen=True,
    )

    model: str = "gpt-5"  # the pair of the document this product is made from
    sub_model: str | None = None  # `answering_model` says what answers queries then
    profile: str | None = None  # chosen by the root model's name
    policy: LanguagePolicy = LanguagePolicy.GUARDED  # the stricter one
    runtime: str = "auto"  # gVisor where the engine has it, else the engine's own
    #: Which versions of its Debian packages an image is built from; see docs/adr/0016.
    debian_packages: Literal["pinned", "newest", "pinned-or-newest"] = "pinned"
    debian_snapshots: str | None = None  # Debian's own snapshots of past states
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS  # see docs/adr/0014 for what it costs
    docker_host: str | None = None  # the sockets of this host are tried in turn
    user_runtime_directory: Path | None = None  # where a rootless engine would listen
    runtime_directory: Path = Field(default_factory=_default_runtime_directory)
    data_directory: Path = Field(default_factory=_default_data_directory)  # the local model's files
    provider: ProviderSettings = ProviderSettings()
    run: Annotated[RunLimits, AfterValidator(_check_positive)] = RunLimits()
    cell: Annotated[CellLimits, BeforeValidator(_read_sizes), AfterValidator(_check_positive)] = (
        CellLimits()
    )
    sandbox: Annotated[
        SandboxLimits, BeforeValidator(_read_sizes), AfterValidator(_check_positive)
    ] = SandboxLimits()

    @property
    def answering_model(self) -> str:
        """The model that answers queries: the default's partner, else the root model itself.

        A user who names one model, local or scripted, does not mean a second, paid one beside it.
        """
        default = type(self).model_fields["model"].default
        return self.sub_model or ("gpt-5-mini" if self.model == default else self.model)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the base class's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Reads nothing by itself: `load` does, and remembers where each value came from."""
        return (init_settings,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
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
        spelt = _PREFIX + _NESTED.join(path).upper() if self.spells_environment else ".".join(path)
        return f"{spelt} ({self.place})"


def load(
    *, config_file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Reads the configuration: file, then environment, then `overrides`, the later winning.

    The environment is every `RLM_` variable (`RLM_MODEL`, `RLM_RUN__TURNS`), and `OPENAI_API_KEY`,
    `OPENAI_BASE_URL`, `DOCKER_HOST`, `XDG_RUNTIME_DIR` and `XDG_DATA_HOME` by their own names.

    Args:
        config_file: A TOML file that has to exist. Without it,
            `$XDG_CONFIG_HOME/rlm-sandbox/config.toml` is read if it is there.
        overrides: Values by key, sections as nested mappings. None in it means "not given".

    Raises:
        SettingsError: The file cannot be read, a key is unknown, or a value is not of its kind.
    """
    environment = os.environ  # noqa: TID251 - the place the ban points to
    path = config_file or _default_config_file(environment)
    file_values = _read_file(path, must_exist=config_file is not None)
    _refuse_unknown_keys(file_values, known=_known_keys(), place=str(path))
    _refuse_unknown_variables(environment)
    sources = (
        _Source(place="given by the caller", values=_without_none(overrides or {})),
        _Source(
            place="from the environment",
            values=_read_environment(),
            spells_environment=True,
        ),
        _Source(place="from the environment", values=_read_well_known(environment)),
        _Source(place=f"in {path}", values=file_values),
    )
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged = _merge(merged, source.values)
    try:
        return Settings(**merged)
    except ValidationError as error:
        sentences = [_explain(detail, sources) for detail in error.errors()]
        raise SettingsError("\n".join(sentences)) from None  # its text would repeat secret values


def _default_config_file(environment: Mapping[str, str]) -> Path:
    folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "rlm-sandbox/config.toml"


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
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


def _read_environment() -> dict[str, Any]:
    try:
        return dict(EnvSettingsSource(Settings)())
    except ValueError as error:  # a section given as text that is not JSON
        message = f"{error}. Set single keys instead: {_PREFIX}RUN{_NESTED}TURNS=10."
        raise SettingsError(message) from error


def _read_well_known(environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns what other programs' variables say, in this program's keys."""
    provider = {
        "api_key": environment.get("OPENAI_API_KEY"),
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


def _known_keys() -> dict[str, frozenset[str]]:
    """Returns every key, with the keys of its section where it is one."""
    known = {}
    for name, item in Settings.model_fields.items():
        kind = item.annotation
        section = [part.name for part in fields(kind)] if is_dataclass(kind) else []
        known[name] = frozenset(section)
    return known


def _refuse_unknown_keys(
    values: Mapping[str, Any], *, known: Mapping[str, frozenset[str]], place: str
) -> None:
    for key, value in values.items():
        if key not in known:
            raise SettingsError(_unknown(key, known, place=f"in {place}"))
        if not isinstance(value, Mapping):
            continue
        for part in value:
            if part not in known[key]:
                candidates = [f"{key}.{name}" for name in known[key]]
                raise SettingsError(_unknown(f"{key}.{part}", candidates, place=f"in {place}"))


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = set()
    for name, section in _known_keys().items():
        known.add(f"{_PREFIX}{name}".upper())
        known.update(f"{_PREFIX}{name}{_NESTED}{part}".upper() for part in section)
    for name in environment:
        if name.startswith(_PREFIX) and name not in known:
            raise SettingsError(_unknown(name, known, place="in the environment"))


def _unknown(key: str, known: Mapping[str, Any] | Sequence[str] | set[str], *, place: str) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(known))}."
    return f"{key} ({place}) is not a setting; {hint}"


def _explain(detail: ErrorDetails, sources: Sequence[_Source]) -> str:
    """Returns one sentence: which key, what was expected, what came."""
    path, context = [str(part) for part in detail["loc"]], detail.get("ctx", {})
    path += [context["key"]] if detail["type"] == "limit" else []
    came = context.get("came", detail["input"])
    origin = next((source for source in sources if source.holds(path)), None)
    name = origin.name(path) if origin else ".".join(path)
    expected = detail["msg"].replace("Input should be", "expected").partition(", unable")[0]
    if detail["type"] == "dataclass_type":
        expected = "expected a section of keys"
    # A key is a secret even where it is of the wrong kind.
    return f"{name}: {expected}." if "api_key" in path else f"{name}: {expected}, got {came!r}."


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
