"""A chain of runs that share one sandbox and its variables.

Without it a second question about the same context would send it again, and find nothing of what
the first one computed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from orchestrator.chat import Message
from orchestrator.context import encode_context
from orchestrator.domain import (
    CellId,
    EncodedContext,
    Json,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryRequest,
)
from orchestrator.engine.prompts.figures import counted
from orchestrator.engine.prompts.opening import checked_question
from orchestrator.engine.result import RunResult
from orchestrator.engine.run import Run
from orchestrator.engine.sandbox_use import Binding, SandboxUse
from orchestrator.engine.setup import RunSetup
from orchestrator.engine.trees import new_tree
from orchestrator.errors import InputError, ProtocolViolationError, SandboxLostError
from orchestrator.ports import EventSink, QueryHandler, Sandbox

#: Of a session's contexts none but the last is needed whole once there are many; each stays bound.
_MAX_CONTEXTS = 64


class SwitchedQueries:
    """A `QueryHandler` that hands on to that of the run that is going on."""

    def __init__(self) -> None:
        """Begins between two runs."""
        self.current: QueryHandler | None = None

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        if self.current is None:
            failure = QueryFailure(
                reason=QueryFailureReason.CANCELLED, message="no run is going on"
            )
            return [failure] * len(request.prompts)
        return await self.current.answer(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """One run of the session, as later ones find it.

    Attributes:
        question: What was asked.
        answer: What came out.
        messages: The chat with the root model.
    """

    question: str
    answer: str
    messages: tuple[Message, ...]


class Session:
    """Runs one after the other in one sandbox. An asynchronous context manager.

    A sandbox that is lost costs its variables: the next run has a fresh one, with every context
    bound again, and is told.
    """

    def __init__(self, *, setup: RunSetup, sink: EventSink) -> None:
        """Prepares a session; nothing is started before the first run.

        Args:
            setup: Parts and rules, for every run alike; each has a ledger of its own.
            sink: Told of each event of each run.
        """
        self._setup = setup
        self._sink = sink
        self._queries = SwitchedQueries()
        self._stack = AsyncExitStack()
        self._sandbox: Sandbox | None = None
        self._was_lost = False
        self._contexts: list[EncodedContext] = []
        self._past: list[PastRun] = []
        self._bound: set[str] = set()
        self._last_cell_id = CellId(0)
        self._is_running = self._is_ready = self._is_closed = False

    @property
    def run_count(self) -> int:
        """Runs that have come to an end."""
        return len(self._past)

    async def run(self, *, question: str, context: EncodedContext | None) -> RunResult:
        """Answers one more question. Calls must not overlap.

        Args:
            question: May be empty where a context is given: it says itself what to do then.
            context: What it is about; None for that of the run before. Bound to `context`, and for
                good to `context_0`, `context_1` and so on.

        Raises:
            InputError: The session is closed or busy, there is no context, or the question cannot
                be used.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        self._check(question, context)
        if context is not None:
            self._contexts.append(context)
            self._bound.discard("context")
        self._is_running = True
        run = Run(
            setup=self._setup,
            tree=new_tree(self._setup),
            sink=self._sink,
            question=checked_question(question),
            context=self._contexts[-1],
            use=SandboxUse(
                open=self._lend,
                bindings=self._bindings,
                last_cell_id=lambda: self._last_cell_id,
                note=self._note,
                context_name=self._numbered if len(self._contexts) > 1 else "",
                on_ready=self._note_ready,
            ),
            session_run=len(self._past) + 1,
        )
        try:
            result = await run.complete()
        finally:
            self._is_running = False
            self._last_cell_id = run.last_cell_id if self._sandbox else CellId(0)
        self._past.append(PastRun(question=question, answer=result.answer, messages=run.messages))
        return result

    async def aclose(self) -> None:
        """Destroys the session's sandbox. Idempotent."""
        self._is_closed = True
        self._sandbox = None
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        """Returns the session; nothing is started before its first run."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Destroys the session's sandbox."""
        await self.aclose()

    @property
    def _numbered(self) -> str:
        return f"context_{len(self._contexts) - 1}"

    def _check(self, question: str, context: EncodedContext | None) -> None:
        if self._is_closed:
            raise InputError("the session is closed; open another one")
        if self._is_running:
            raise InputError("a session answers one question at a time; await the one before")
        if context is None and not self._contexts:
            raise InputError("the first question of a session needs a context")
        if context is None and not question.strip():
            raise InputError("a question without text needs a context that says what to do")
        if context is not None and len(self._contexts) >= _MAX_CONTEXTS:
            raise InputError(f"a session holds at most {_MAX_CONTEXTS} contexts; open another one")

    @asynccontextmanager
    async def _lend(self, queries: QueryHandler) -> AsyncIterator[Sandbox]:
        """Yields the session's sandbox to a run; starts one where there is none."""
        if self._sandbox is None:
            self._bound.clear()
            self._last_cell_id = CellId(0)
            self._sandbox = await self._stack.enter_async_context(
                self._setup.provider.open(self._queries)
            )
        self._queries.current = queries
        self._is_ready = False
        try:
            yield self._sandbox
        except BaseException as error:
            # Cancelled in the middle of a cell: a sandbox puts that right itself. Cancelled while
            # something was bound, or lost: it is of no more use.
            is_lost = isinstance(error, SandboxLostError | ProtocolViolationError)
            if is_lost or not self._is_ready:
                await self._drop()
            raise
        finally:
            self._queries.current = None

    async def _drop(self) -> None:
        self._sandbox = None
        self._was_lost = True
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def _bindings(self) -> tuple[Binding, ...]:
        """Returns what the sandbox has not bound yet."""
        wanted = [
            Binding(
                name=f"context_{index}",
                context=context,
                aliases=("context",) if index == len(self._contexts) - 1 else (),
            )
            for index, context in enumerate(self._contexts)
        ]
        for index, past in enumerate(self._past):
            wanted.append(Binding(name=f"history_{index}", context=_chat(past.messages)))
        if self._past:
            wanted.append(Binding(name="history", context=_chat(_told(self._past))))
        # Those that change from run to run are bound in each.
        missing = [
            binding
            for binding in wanted
            if binding.name == "history" or not {binding.name, *binding.aliases} <= self._bound
        ]
        return tuple(missing)

    def _note_ready(self) -> None:
        self._is_ready = True
        self._bound = {f"context_{index}" for index in range(len(self._contexts))}
        self._bound |= {"context", *(f"history_{index}" for index in range(len(self._past)))}

    def _note(self) -> str:
        """Returns what the root model is told of earlier runs."""
        if not self._past:
            return ""
        count = counted(len(self._past), "earlier question")
        has = "has" if len(self._past) == 1 else "have"
        variables = "The variables of their blocks are still there; SHOW_VARS() lists them."
        if self._was_lost:
            variables = "The variables of their blocks are gone: the session had to begin anew."
            self._was_lost = False
        told = (
            f"{count} {has} been answered in this session: `history` holds questions and answers, "
            "`history_0` and so on the whole conversations."
        )
        lines = [told, variables]
        if len(self._contexts) > 1:
            names = ", ".join(f"`context_{index}`" for index in range(len(self._contexts) - 1))
            lines.append(f"Contexts of earlier questions: {names}.")
        return " ".join(lines)


def _told(past: Sequence[PastRun]) -> list[Message]:
    return [
        message
        for run in past
        for message in (Message("user", run.question), Message("assistant", run.answer))
    ]


def _chat(messages: Sequence[Message]) -> EncodedContext:
    # Half a surrogate pair, which cells may print, is nothing that a context may hold.
    items: list[Json] = [
        {"role": message.role, "content": message.content.encode(errors="replace").decode()}
        for message in messages
    ]
    return encode_context(items)
