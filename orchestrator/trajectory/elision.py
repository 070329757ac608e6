"""What stands in a trajectory for a text that is not kept: its digest and its length.

Without it a trajectory could be kept only by whoever may read what tenants asked, what models
answered and what cells printed. Which texts those are is listed once, here.
"""

from __future__ import annotations

import builtins
import hashlib
import re
from collections.abc import Mapping

from orchestrator.chat import Message, ModelReply
from orchestrator.domain import CellError, Draft, Printed, QueryFailure, Variable
from orchestrator.events import (
    CellStarted,
    QueryEnded,
    QueryStarted,
    RequestFailed,
    RunEnded,
    RunStarted,
)

#: What users, models, cells, tools, providers and sandboxes wrote, and what may quote them.
#: Names that the operator chose (of models, profiles, tools) and sentences that are the engine's
#: own from end to end stay.
TEXT_FIELDS: Mapping[type, frozenset[str]] = {
    RunStarted: frozenset({"question"}),
    Message: frozenset({"content"}),
    ModelReply: frozenset({"text"}),
    CellStarted: frozenset({"source"}),
    Printed: frozenset({"head", "tail"}),
    CellError: frozenset({"type_name", "message", "traceback"}),
    Variable: frozenset({"name", "type_name"}),
    Draft: frozenset({"content"}),
    QueryStarted: frozenset({"prompt", "json_schema"}),
    QueryEnded: frozenset({"notice"}),
    QueryFailure: frozenset({"message"}),  # a tool's own words, or a key of a child run's context
    RequestFailed: frozenset({"why"}),  # providers quote prompts
    RunEnded: frozenset({"answer", "failure"}),  # the last words of a provider or a container
}

#: Class names that tell nothing: a cell may call an exception by any text of the context, and has
#: to define it for that.
_NAMES_OF_PYTHON = frozenset(dir(builtins))
_ELISION = re.compile(r"sha256:([0-9a-f]{64}) chars:(\d+)")


def elided(text: str) -> str:
    """Returns what stands for a text: `sha256:… chars:…`; empty for an empty one."""
    if not text or text in _NAMES_OF_PYTHON:
        return text
    # "surrogatepass": a cell can print half a surrogate pair.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest} chars:{len(text)}"


def described_elision(text: str) -> str | None:
    """Returns an elision in short, for a reader; None for any other text."""
    found = _ELISION.fullmatch(text)
    if found is None:
        return None
    return f"sha256:{found[1][:12]}… ({int(found[2]):,} characters)"
