"""Recursive Language Models over untrusted contexts, in sealed containers.

The public names are imported when they are first used: `rlm --help` and a program that only wants
an error's class need not wait for a container client, a provider's SDK and gRPC.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.chat import Message, ModelReply, ModelUsage
    from orchestrator.domain import (
        AnswerSource,
        Efficiency,
        FinishReason,
        LanguagePolicy,
        Timings,
    )
    from orchestrator.engine.result import RunResult
    from orchestrator.engine.tools import Tool
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
        ToolError,
    )
    from orchestrator.events import (
        CellEnded,
        CellPrinted,
        CellStarted,
        Noticed,
        QueryEnded,
        QueryRefused,
        QueryStarted,
        ReplyPiece,
        ReplyReceived,
        RequestFailed,
        RunEnded,
        RunEvent,
        RunStarted,
        SandboxReady,
        TranscriptCompacted,
        TurnStarted,
    )
    from orchestrator.limits import (
        CellLimits,
        ModelCap,
        PoolLimits,
        QueryLimits,
        RunLimits,
        SandboxLimits,
    )
    from orchestrator.rlm import (
        RLM,
        AsyncRunStream,
        AsyncSession,
        RunStream,
        Session,
    )
    from orchestrator.settings import Settings

__all__ = [
    "RLM",
    "AnswerSource",
    "AsyncRunStream",
    "AsyncSession",
    "BudgetExhaustedError",
    "CellEnded",
    "CellLimits",
    "CellPrinted",
    "CellStarted",
    "Efficiency",
    "FinishReason",
    "InputError",
    "LanguagePolicy",
    "Message",
    "ModelCap",
    "ModelError",
    "ModelRefusedError",
    "ModelReply",
    "ModelUnavailableError",
    "ModelUsage",
    "Noticed",
    "PoolLimits",
    "ProtocolViolationError",
    "QueryEnded",
    "QueryLimits",
    "QueryRefused",
    "QueryStarted",
    "ReplyPiece",
    "ReplyReceived",
    "RequestFailed",
    "RlmSandboxError",
    "RunEnded",
    "RunEvent",
    "RunLimits",
    "RunResult",
    "RunStarted",
    "RunStream",
    "SandboxError",
    "SandboxLimits",
    "SandboxLostError",
    "SandboxReady",
    "SandboxStartError",
    "Session",
    "SessionCancelledError",
    "Settings",
    "SettingsError",
    "Timings",
    "Tool",
    "ToolError",
    "TranscriptCompacted",
    "TurnStarted",
]

_HOMES = {
    "Message": "orchestrator.chat",
    "ModelReply": "orchestrator.chat",
    "ModelUsage": "orchestrator.chat",
    "AnswerSource": "orchestrator.domain",
    "Efficiency": "orchestrator.domain",
    "FinishReason": "orchestrator.domain",
    "LanguagePolicy": "orchestrator.domain",
    "Timings": "orchestrator.domain",
    "RunResult": "orchestrator.engine.result",
    "Tool": "orchestrator.engine.tools",
    "CellEnded": "orchestrator.events",
    "CellPrinted": "orchestrator.events",
    "CellStarted": "orchestrator.events",
    "Noticed": "orchestrator.events",
    "QueryEnded": "orchestrator.events",
    "QueryRefused": "orchestrator.events",
    "QueryStarted": "orchestrator.events",
    "ReplyPiece": "orchestrator.events",
    "ReplyReceived": "orchestrator.events",
    "RequestFailed": "orchestrator.events",
    "RunEnded": "orchestrator.events",
    "RunEvent": "orchestrator.events",
    "RunStarted": "orchestrator.events",
    "SandboxReady": "orchestrator.events",
    "TranscriptCompacted": "orchestrator.events",
    "TurnStarted": "orchestrator.events",
    "CellLimits": "orchestrator.limits",
    "ModelCap": "orchestrator.limits",
    "PoolLimits": "orchestrator.limits",
    "QueryLimits": "orchestrator.limits",
    "RunLimits": "orchestrator.limits",
    "SandboxLimits": "orchestrator.limits",
    "RLM": "orchestrator.rlm",
    "AsyncRunStream": "orchestrator.rlm",
    "AsyncSession": "orchestrator.rlm",
    "RunStream": "orchestrator.rlm",
    "Session": "orchestrator.rlm",
    "Settings": "orchestrator.settings",
}


if not TYPE_CHECKING:  # a type checker shall go on refusing names that are not there

    def __getattr__(name: str) -> object:
        """Imports a public name from its home (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(_HOMES.get(name, "orchestrator.errors"))
        return getattr(home, name)
