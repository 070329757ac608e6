"""Everything that can be configured, with its defaults and what has to hold between its parts.

Without it a default would stand where it is used, and a model at a provider that nobody described
would be found out in mid-run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy
from orchestrator.limits import CellLimits, PoolLimits, QueryLimits, RunLimits, SandboxLimits
from orchestrator.providers import ModelSettings, ProviderSettings
from orchestrator.settings.figures import check_figures, read_sizes, unusable

#: Begins each of this program's environment variables, and joins the parts of a key in them.
PREFIX, NESTED = "RLM_", "__"

#: The alias under which cells always find the sub-model.
_SUB_ALIAS = "sub"
_LOCAL = "local"
#: A context larger than this many times the sandbox's memory fits in no encoding: Python takes one
#: byte for a character of Latin-1, of which UTF-8 takes two.
_BYTES_PER_MEMORY_BYTE = 2
#: Of a sandbox's lifetime, while nobody has it: it ends because it has waited, and is replaced
#: before, not because its time is over.
_WAITING_SHARE = 0.5
_PROVIDER_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
#: What the client itself says in each request: saying it twice would break how replies are read.
_OWN_BODY_KEYS = ("model", "messages", "input", "instructions", "stream", "stream_options", "n")


def _default_runtime_directory() -> Path:
    # Short, because the path of a Unix socket holds 108 bytes at most (unix(7)).
    return Path("/run/rlm") if os.getuid() == 0 else Path(f"/tmp/rlm-{os.getuid()}")  # noqa: S108 - the broker makes it, 0700, and refuses one that is somebody else's


def _default_data_directory() -> Path:
    return Path.home() / ".local/share/rlm-sandbox"


class Settings(BaseSettings):
    """Everything that can be configured. Made by `load`, or by hand where nothing is to be read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,  # `RLM_MODEL= rlm …` means "not set" to whoever writes it
        extra="forbid",
        frozen=True,
    )

    model: str = "gpt-5"  # the pair of the document this product is made from
    sub_model: str | None = None  # `answering_model` says what answers queries then
    child_model: str | None = None  # writes the cells of child runs; the sub-model
    #: Further models that cells may name, by the names they use for them.
    sub_models: Mapping[str, str] = {}
    profile: str | None = None  # chosen by the root model's name
    policy: LanguagePolicy = LanguagePolicy.GUARDED  # the stricter one
    domain: str = ""  # what the context is about; what it shows by itself
    answers_repeats_once: bool = True  # a prompt asked again in a run has the answer it had
    compacts_history: bool = False  # shortens earlier turns where the root model's window fills up
    runtime: str = "auto"  # gVisor where the engine has it, else the engine's own
    #: Which versions of its Debian packages an image is built from; see docs/adr/0016.
    debian_packages: Literal["pinned", "newest", "pinned-or-newest"] = "pinned"
    debian_snapshots: str | None = None  # Debian's own snapshots of past states
    broker: BrokerIsolation = BrokerIsolation.OWN_PROCESS  # see docs/adr/0014 for what it costs
    docker_host: str | None = None  # the sockets of this host are tried in turn
    user_runtime_directory: Path | None = None  # where a rootless engine would listen
    runtime_directory: Path = Field(default_factory=_default_runtime_directory)
    data_directory: Path = Field(default_factory=_default_data_directory)  # the local model's files
    prices_file: Path | None = None  # prices beside, and instead of, those that come with us
    #: Where models are asked that name no other provider.
    provider: Annotated[ProviderSettings, AfterValidator(check_figures)] = ProviderSettings()
    #: Further providers, by the names that `[models]` uses for them.
    providers: Mapping[str, Annotated[ProviderSettings, AfterValidator(check_figures)]] = {}
    #: What is known of single models, by the names that they are asked for by.
    models: Mapping[str, Annotated[ModelSettings, AfterValidator(check_figures)]] = {}
    run: Annotated[RunLimits, AfterValidator(check_figures)] = RunLimits()
    query: Annotated[QueryLimits, BeforeValidator(read_sizes), AfterValidator(check_figures)] = (
        QueryLimits()
    )
    cell: Annotated[CellLimits, BeforeValidator(read_sizes), AfterValidator(check_figures)] = (
        CellLimits()
    )
    sandbox: Annotated[
        SandboxLimits, BeforeValidator(read_sizes), AfterValidator(check_figures)
    ] = SandboxLimits()
    pool: Annotated[PoolLimits, AfterValidator(check_figures)] = PoolLimits()

    @property
    def max_context_bytes(self) -> int:
        """The size of a text above which none fits the sandbox, whatever is in it."""
        return _BYTES_PER_MEMORY_BYTE * self.sandbox.memory_bytes

    @property
    def answering_model(self) -> str:
        """The model that answers queries: the default's partner, else the root model itself.

        A user who names one model, local or scripted, does not mean a second, paid one beside it.
        """
        default = type(self).model_fields["model"].default
        return self.sub_model or ("gpt-5-mini" if self.model == default else self.model)

    @property
    def for_one_call(self) -> Self:
        """These without a pool: for whoever closes after one call what they open for it."""
        return self.model_copy(update={"pool": PoolLimits()})

    def settings_of(self, model: str) -> ModelSettings:
        """Returns what is configured for the model that is asked for by the name `model`."""
        return self.models.get(model) or ModelSettings()

    def provider_of(self, model: str) -> ProviderSettings:
        """Returns the provider at which `model` is asked."""
        name = self.settings_of(model).provider
        return self.provider if name is None else self.providers[name]

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        for name in self.providers:
            _check_provider_name(name)
            if self.providers[name].local_base_url is not None:
                raise unusable(
                    ("providers", name, "local_base_url"),
                    "expected it in [provider], which the local model belongs to",
                    came=self.providers[name].local_base_url,
                )
        for name, chosen in self.models.items():
            self._check_model(name, chosen)
        for alias in self.sub_models:
            if not alias.isidentifier() or alias == _SUB_ALIAS:
                expected = f"expected an identifier other than {_SUB_ALIAS!r}, for cells to write"
                raise unusable(("sub_models", alias), expected, came=alias)
        longest_s = self.sandbox.lifetime_s * _WAITING_SHARE
        if self.pool.size and self.pool.max_wait_age_s > longest_s:
            expected = f"expected at most {longest_s:g}, half of sandbox.lifetime_s"
            raise unusable(("pool", "max_wait_age_s"), expected, came=self.pool.max_wait_age_s)
        return self

    def _check_model(self, name: str, chosen: ModelSettings) -> None:
        if chosen.provider is not None and name == _LOCAL:
            expected = "expected none: the local model is served on this machine"
            raise unusable(("models", name, "provider"), expected, came=chosen.provider)
        if chosen.provider is not None and chosen.provider not in self.providers:
            known = ", ".join(self.providers) or "there are none"
            expected = (
                f"expected the name of one of [providers] ({known}); "
                f"add a section [providers.{chosen.provider}] with its base_url, or leave it out"
            )
            raise unusable(("models", name, "provider"), expected, came=chosen.provider)
        for key in _OWN_BODY_KEYS:
            if key in chosen.extra_body:
                path = ("models", name, "extra_body", key)
                raise unusable(path, "expected none: each request says it itself", came=key)

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


def _check_provider_name(name: str) -> None:
    if not _PROVIDER_NAME.fullmatch(name):
        expected = "expected a name of letters, digits, hyphens and underscores"
        raise unusable(("providers", name), expected, came=name)
