"""Joins the parts: the one place that knows every one of them.

Without it the parts would have to know each other, and each front end would join them in its own
way, with one of them forgetting the sweep, the lease or a limit.
"""

from orchestrator.app.orchestrator import (
    EndedCell,
    OpenSession,
    Orchestrator,
    open_orchestrator,
)
from orchestrator.app.parts import REAL_PARTS, Parts, Role

__all__ = [
    "REAL_PARTS",
    "EndedCell",
    "OpenSession",
    "Orchestrator",
    "Parts",
    "Role",
    "open_orchestrator",
]
