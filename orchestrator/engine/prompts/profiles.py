"""What is said to a model of which family, and what of its habits is put up with.

Without it one prompt would have to fit all models, which the paper lists among what failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.chat import Message
from orchestrator.engine.prompts import small
from orchestrator.engine.prompts.system import (
    DEFAULT_SYSTEM,
    GPT_5_SYSTEM,
    QWEN_CODER_SYSTEM,
)
from orchestrator.errors import SettingsError

#: Goes up with every change to what a model is sent; snapshot tests hold it to the bytes.
PROMPT_VERSION = 2

_LOCAL = "local"  # the name says nothing about its size, and the one model it is has 1.5B
_SMALL_PARAMETERS_BILLION = 9.0  # the paper's Qwen3-8B fails as a root under the large prompts
# The number of parameters in a model's name; "a3b" counts the active ones of a mixture only.
_PARAMETERS = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the engine speaks with a family of root models.

    Attributes:
        name: As given in the settings.
        system: The system message of a run that may start child runs.
        childless_system: That of one that may not.
        few_shot: Turns shown as if they had happened, between the system message and the question.
        probe_opening: The first message where a probe follows it; the question then follows the
            probe. Small models forget a question that stands before a long output.
        probe_source: A cell the engine runs as turn 0, as if the model had written it; or empty.
        output_chars: How much of what the cells of one reply printed the model is shown.
        accepts_bare_code: Whether a reply that is Python without a fence is a cell.
        is_brief: Whether what the model is told leaves out advice, limits, frames and variables.
        max_completion_tokens: Bound of one reply; None leaves it to the provider.
        query_max_completion_tokens: Bound of one answer to a query, likewise.
        query_chars: What a prompt of a query may have, where less than `RunLimits.query_chars`.
    """

    name: str
    system: str
    childless_system: str
    few_shot: tuple[Message, ...] = ()
    probe_opening: str = ""
    probe_source: str = ""
    output_chars: int = 20_000  # the reference implementation's bound
    accepts_bare_code: bool = False
    is_brief: bool = False
    max_completion_tokens: int | None = None
    query_max_completion_tokens: int | None = None
    query_chars: int | None = None

    def system_text(self, *, has_child_runs: bool) -> str:
        """Returns the system message of a run."""
        return self.system if has_child_runs else self.childless_system


def _large(name: str, systems: tuple[str, str]) -> Profile:
    return Profile(name=name, system=systems[0], childless_system=systems[1])


_ALL = (
    _large("default", DEFAULT_SYSTEM),
    _large("gpt-5", GPT_5_SYSTEM),
    _large("qwen-coder", QWEN_CODER_SYSTEM),
    Profile(
        name="small",
        # It cannot plan a child run, and a name it is told of is a name it uses.
        system=small.SYSTEM,
        childless_system=small.SYSTEM,
        few_shot=small.FEW_SHOT,
        probe_opening=small.OPENING,
        probe_source=small.PROBE_SOURCE,
        output_chars=4_000,  # 1,000 tokens: ten turns of it fit a window of 32K with room to spare
        accepts_bare_code=True,
        is_brief=True,
        max_completion_tokens=512,  # half a minute at 15 tokens a second; its cells take under 100
        query_max_completion_tokens=512,
        query_chars=15_000,  # the upper end of what the paper advises for an 8B sub-model
    ),
)

#: Every profile by its name.
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})


def profile_named(name: str | None, *, model_name: str) -> Profile:
    """Returns the profile of a name, or the one that goes with a model where there is no name.

    Raises:
        SettingsError: There is no profile of that name.
    """
    if name is None:
        return profile_for(model_name)
    if name not in PROFILES:
        raise SettingsError(f"profile: expected one of {', '.join(PROFILES)}; got {name!r}.")
    return PROFILES[name]


def profile_for(model_name: str) -> Profile:
    """Returns the profile for a provider's name of a model; `default` where none is known."""
    name = model_name.lower()
    if name == _LOCAL:
        return PROFILES["small"]
    parameters = [float(count) for count in _PARAMETERS.findall(name)]
    if parameters and max(parameters) <= _SMALL_PARAMETERS_BILLION:
        return PROFILES["small"]
    if "gpt-5" in name:
        return PROFILES["gpt-5"]
    if "qwen" in name and "coder" in name:
        return PROFILES["qwen-coder"]
    return PROFILES["default"]
