"""The public classes: what a Python program asks questions with."""

from orchestrator.rlm.client import RLM
from orchestrator.rlm.session import AsyncSession, Session
from orchestrator.rlm.stream import AsyncRunStream, RunStream

__all__ = ["RLM", "AsyncRunStream", "AsyncSession", "RunStream", "Session"]
