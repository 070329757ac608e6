"""Whole runs and sessions, with a model that answers at once.

Without them only the sandbox would be measured, and not what the engine, the ledger and the
conversation add.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from orchestrator.app import OpenSession, Orchestrator, Parts, Role, open_orchestrator
from orchestrator.app.parts import OpenSandboxes
from orchestrator.chat import ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.controls import BrokerIsolation
from orchestrator.limits import RunLimits
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient
from orchestrator.price import Price
from orchestrator.settings import Settings

_logger = logging.getLogger(__name__)

_FINAL_CELL = """```repl
answer["content"] = "done"
answer["ready"] = True
```"""


class InstantModel:
    """Answers at once: as root model with a cell that ends the run, else with a word."""

    name = "instant"
    is_scripted = True
    facts = ModelFacts(price=Price(prompt_usd=0.0, completion_usd=0.0))

    def __init__(self, role: Role) -> None:
        """Makes a model for one role."""
        self._text = _FINAL_CELL if role == "root" else "answered"

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Answers; costs nothing."""
        del request
        if on_text is not None:
            on_text(self._text)
        return ModelReply(text=self._text, cost_usd=0.0)

    async def aclose(self) -> None:
        """Does nothing: there is nothing to free."""


def _open_instant_model(
    spec: str,
    role: Role,
    settings: Settings,
    *,
    local_base_url: str | None,
    turnstiles: Turnstiles,
) -> ModelClient:
    del spec, settings, local_base_url, turnstiles
    return InstantModel(role)


@asynccontextmanager
async def open_instant_orchestrator(
    settings: Settings, open_sandboxes: OpenSandboxes, *, broker: BrokerIsolation
) -> AsyncIterator[Orchestrator]:
    """Yields the product, whole, but for its models."""
    # A short context would go to the sub-model without a sandbox.
    run = RunLimits(direct_chars=0, queries=10**6)
    own = settings.model_copy(update={"broker": broker, "run": run, "model": "instant"})
    parts = Parts(open_model=_open_instant_model, open_sandboxes=open_sandboxes)
    async with open_orchestrator(own, report=_logger.info, parts=parts) as orchestrator:
        yield orchestrator


@asynccontextmanager
async def open_run_sessions(
    settings: Settings, open_sandboxes: OpenSandboxes, *, broker: BrokerIsolation
) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[OpenSession]]]:
    """Yields what opens sessions, each with a run of one turn behind it."""
    async with open_instant_orchestrator(settings, open_sandboxes, broker=broker) as orchestrator:

        @asynccontextmanager
        async def open_one() -> AsyncIterator[OpenSession]:
            async with orchestrator.session(sink=lambda _event: None) as session:
                await session.run("Is it done?", "a short context")
                yield session

        yield open_one
