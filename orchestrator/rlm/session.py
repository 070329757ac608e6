"""Questions one after the other in one sandbox.

Without it a follow-up question would send its context again, and find none of the variables that
the question before has left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self

from orchestrator.app import OpenSession
from orchestrator.engine.result import RunResult
from orchestrator.errors import InputError
from orchestrator.rlm.loop_thread import LoopThread
from orchestrator.rlm.prompts import Prompt, found_prompt

#: Opens a session; leaving the context destroys its sandbox.
OpenSessions = Callable[[], AbstractAsyncContextManager[OpenSession]]


class AsyncSession:
    """A chain of runs that share one sandbox and its variables. Used by `async with`.

    Each run has limits and a ledger of its own. A cell finds the contexts of all runs as
    `context_0`, `context_1` and so on, the last of them as `context`, and what was asked and
    answered before as `history`.
    """

    def __init__(self, open_session: OpenSessions, *, max_context_bytes: int) -> None:
        """Made by `RLM.asession`; opens nothing yet."""
        self._open_session = open_session
        self._max_context_bytes = max_context_bytes
        self._stack: AsyncExitStack | None = None
        self._open: OpenSession | None = None

    async def ask(self, question: str, prompt: Prompt | None = None) -> RunResult:
        """Answers one more question. Calls must not overlap.

        Args:
            question: What to find out.
            prompt: What it is about; that of the question before if left out.

        Raises:
            InputError: The session is not open or is busy, or has no context yet.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        if self._open is None:
            raise InputError("a session is used inside `async with`, or `with` where it waits")
        if prompt is None:
            return await self._open.run(question, None)
        found = await found_prompt(prompt, max_bytes=self._max_context_bytes)
        return await self._open.run(question, found.context)

    async def __aenter__(self) -> Self:
        """Opens what the session needs; its sandbox starts with the first question.

        Raises:
            SettingsError: Something configured is not usable.
            SandboxStartError: There is no engine that can be used, or no image.
        """
        if self._stack is not None:
            raise InputError("this session is open already")
        async with AsyncExitStack() as stack:
            self._open = await stack.enter_async_context(self._open_session())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Destroys the session's sandbox. Idempotent."""
        stack, self._stack, self._open = self._stack, None, None
        if stack is not None:
            await stack.aclose()


class Session:
    """A chain of runs that share one sandbox; see `AsyncSession`. Used by `with`."""

    def __init__(self, session: AsyncSession, *, loop: LoopThread, owns_loop: bool) -> None:
        """Made by `RLM.session`.

        Args:
            session: What does the work.
            loop: Where it does it.
            owns_loop: Whether the loop is closed with the session.
        """
        self._session = session
        self._loop = loop
        self._owns_loop = owns_loop

    def ask(self, question: str, prompt: Prompt | None = None) -> RunResult:
        """Answers one more question, and waits for it; see `AsyncSession.ask`."""
        return self._loop.run(self._session.ask(question, prompt))

    def close(self) -> None:
        """Destroys the session's sandbox. Idempotent."""
        self._loop.run(self._session.__aexit__(None, None, None))
        if self._owns_loop:
            self._loop.close()

    def __enter__(self) -> Self:
        """Opens what the session needs; see `AsyncSession.__aenter__`."""
        try:
            self._loop.run(self._session.__aenter__())
        except BaseException:
            if self._owns_loop:
                self._loop.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Destroys the session's sandbox."""
        self.close()
