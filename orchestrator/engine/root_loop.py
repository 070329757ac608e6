"""Runs questions: the engine's front door.

Without it whoever joins the parts would have to know how a run is put together.
"""

from __future__ import annotations

from orchestrator.domain import EncodedContext
from orchestrator.engine.prompts.opening import checked_question
from orchestrator.engine.result import RunResult
from orchestrator.engine.run import Run
from orchestrator.engine.sandbox_use import once
from orchestrator.engine.session import Session
from orchestrator.engine.setup import RunSetup
from orchestrator.engine.trees import new_tree
from orchestrator.ports import EventSink


class RootLoop:
    """Runs questions; any number at the same time, each in a sandbox of its own."""

    def __init__(self, setup: RunSetup, *, sink: EventSink) -> None:
        """Joins the parts; nothing is started and nothing is owned.

        Args:
            setup: Parts and rules.
            sink: Told of each event of each run.
        """
        self._setup = setup
        self._sink = sink

    async def run(self, *, question: str, context: EncodedContext) -> RunResult:
        """Answers `question` over `context`; see `Run.complete`.

        Args:
            question: May be empty: the context then says itself what to do.
            context: Bound to `context` in the sandbox.

        Raises:
            InputError: The question is too long; pass the text as the context.
            SettingsError: Money is limited and a model's price is not known.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        run = Run(
            setup=self._setup,
            tree=new_tree(self._setup),
            sink=self._sink,
            question=checked_question(question),
            context=context,
            use=once(self._setup.provider.open, context),
        )
        return await run.complete()

    def session(self) -> Session:
        """Returns a session; its sandbox starts with its first run."""
        return Session(setup=self._setup, sink=self._sink)
