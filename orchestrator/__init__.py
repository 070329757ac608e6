"""Recursive Language Models over untrusted contexts, in sealed containers.

The public names are imported when they are first used: `rlm --help` and a program that only wants
an error's class need not wait for a container client, a provider's SDK and gRPC.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.domain import (
        AnswerSource,
        CellLimits,
        FinishReason,
        LanguagePolicy,
        RunLimits,
        SandboxLimits,
    )
    from orchestrator.errors import (
        BudgetExhaustedError,
        InputError,
        ModelError,
        ModelRefusedError,
        ModelUnavailableError,
        ProtocolViolationError,
        RlmSandboxError,
        SandboxError,
        SandboxLostError,
        SandboxStartError,
        SessionCancelledError,
        SettingsError,
    )
    from orchestrator.rlm import RLM
    from orchestrator.settings import Settings

__all__ = [
    "RLM",
    "AnswerSource",
    "BudgetExhaustedError",
    "CellLimits",
    "FinishReason",
    "InputError",
    "LanguagePolicy",
    "ModelError",
    "ModelRefusedError",
    "ModelUnavailableError",
    "ProtocolViolationError",
    "RlmSandboxError",
    "RunLimits",
    "SandboxError",
    "SandboxLimits",
    "SandboxLostError",
    "SandboxStartError",
    "SessionCancelledError",
    "Settings",
    "SettingsError",
]

_HOMES = {
    "RLM": "orchestrator.rlm",
    "Settings": "orchestrator.settings",
    "AnswerSource": "orchestrator.domain",
    "CellLimits": "orchestrator.domain",
    "FinishReason": "orchestrator.domain",
    "LanguagePolicy": "orchestrator.domain",
    "RunLimits": "orchestrator.domain",
    "SandboxLimits": "orchestrator.domain",
}


if not TYPE_CHECKING:  # a type checker shall go on refusing names that are not there

    def __getattr__(name: str) -> object:
        """Imports a public name from its home (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(_HOMES.get(name, "orchestrator.errors"))
        return getattr(home, name)
