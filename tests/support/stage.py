"""A root loop with fakes around it, and everything in reach of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from support.fake_models import Answer, FakeModel
from support.fake_sandbox import FakeCell, FakeProvider

from orchestrator.context import encode_context
from orchestrator.domain import Context
from orchestrator.engine.prompts.profiles import PROFILES
from orchestrator.engine.result import RunResult
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.root_loop import RootLoop
from orchestrator.engine.session import Session
from orchestrator.engine.setup import SUB_ALIAS, RunSetup
from orchestrator.events import RunEnded, RunEvent
from orchestrator.limits import CellLimits, QueryLimits, RunLimits

LOOK = "```repl\nprint(len(context))\n```"
FINISH = "```repl\nFINAL('42')\n```"

_Event = TypeVar("_Event", bound=RunEvent)


class Stage:
    """Joins fakes for runs, each with the same replies and cells."""

    def __init__(
        self,
        replies: Sequence[Answer],
        *cells: FakeCell,
        limits: RunLimits | None = None,
        query_limits: QueryLimits | None = None,
        profile: str = "default",
        provider: FakeProvider | None = None,
        sub: FakeModel | None = None,
        cell_limits: CellLimits | None = None,
        root: FakeModel | None = None,
        child: FakeModel | None = None,
        is_direct: bool = False,
        **options: Any,  # noqa: ANN401 - further parts of a setup
    ) -> None:
        """Joins the fakes; a short context is answered without a sandbox only if `is_direct`."""
        self.events: list[RunEvent] = []
        self.root = root or FakeModel(replies, name="root")
        self.sub = sub or FakeModel(["sub says"], name="sub")
        self.child = child or FakeModel([FINISH], name="child")
        self.provider = provider or FakeProvider(*cells)
        run_limits = limits or RunLimits()
        self.setup = RunSetup(
            root_model=self.root,
            sub_models={SUB_ALIAS: self.sub},
            child_model=self.child,
            provider=self.provider,
            limits=run_limits if is_direct else replace(run_limits, direct_chars=0),
            query_limits=query_limits or QueryLimits(),
            cell_limits=cell_limits or CellLimits(),
            profile=PROFILES[profile],
            child_profile=PROFILES["default"],
            **{"retry": RetryPolicy(max_retries=0), **options},
        )
        self.loop = RootLoop(self.setup, sink=self.events.append)

    async def run(self, question: str = "What?", context: Context = "some text") -> RunResult:
        """Runs once."""
        return await self.loop.run(question=question, context=encode_context(context))

    def session(self) -> Session:
        """Opens a session."""
        return self.loop.session()

    def told(self, request: int) -> str:
        """Returns the last message of a request to the root model."""
        return self.root.requests[request][-1].content

    def kinds(self) -> list[str]:
        """Returns the names of the events."""
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type[_Event]) -> list[_Event]:
        """Returns the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def ends(self) -> list[RunEnded]:
        """Returns the events that end a run."""
        return self.of(RunEnded)
