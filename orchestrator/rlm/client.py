"""The public class: a prompt of any length goes in, an answer comes out.

Without it a Python program would have to read settings, open parts and run an event loop to ask one
question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.app import REAL_PARTS, OpenSession, Orchestrator, Parts, open_orchestrator
from orchestrator.domain import LanguagePolicy
from orchestrator.engine.result import RunResult
from orchestrator.engine.tools import Tool, Toolbox
from orchestrator.errors import InputError, SettingsError
from orchestrator.events import RunEvent
from orchestrator.limits import CellLimits, PoolLimits, QueryLimits, RunLimits, SandboxLimits
from orchestrator.ports import EventSink
from orchestrator.rlm.loop_thread import LoopThread
from orchestrator.rlm.prompts import Prompt, found_prompt
from orchestrator.rlm.session import AsyncSession, Session
from orchestrator.rlm.stream import AsyncRunStream, RunStream, StartRun
from orchestrator.settings import Settings, load

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def _ignore(_event: RunEvent) -> None:
    """Tells nobody."""


class RLM:
    r"""Answers questions over contexts of any length, as an LLM's client would over short ones.

    The root model writes Python against the context, which runs in a sealed container and may ask
    the sub-model about pieces of it. Every run has a sandbox of its own, destroyed when it ends.

    >>> rlm = RLM(model="scripted:capital.toml")
    >>> result = rlm.completion("Lyon\nParis\nNice\n" * 2000, "Which of these is the capital?")
    >>> print(result)
    Paris
    >>> result.finish_reason.value, result.turn_count, result.query_count
    ('answered', 1, 1)

    Used as it is, each call opens what it needs and closes it again. Inside `with` (or `async
    with`) the connections to engine and provider are kept from call to call. Calls may overlap,
    from threads as well.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, one for each thing a caller may choose
        self,
        *,
        model: str | None = None,
        sub_model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        profile: str | None = None,
        domain: str | None = None,
        policy: LanguagePolicy | str | None = None,
        runtime: str | None = None,
        run_limits: RunLimits | None = None,
        query_limits: QueryLimits | None = None,
        cell_limits: CellLimits | None = None,
        sandbox_limits: SandboxLimits | None = None,
        pool_limits: PoolLimits | None = None,
        settings: Settings | None = None,
        on_event: EventSink | None = None,
        parts: Parts = REAL_PARTS,
    ) -> None:
        """Reads the settings; nothing is opened yet.

        Args:
            model: Writes the cells: a provider's name, `local`, `scripted:FILE` or `echo`.
            sub_model: Answers the cells' queries; likewise.
            tools: Functions that cells may call: they stay here, and are sent arguments and send
                results as JSON. See `Tool` for a name, a description or a time limit of one.
            profile: How the root model is spoken to; chosen by its name if None.
            domain: What contexts are about: `documents`, `code`, `tables` or `logs`.
            policy: What of Python a cell may use: `guarded` or `open`.
            runtime: `auto`, `runc`, `gvisor`, `required`, or the engine's own name for another.
            run_limits: What one run may spend.
            query_limits: What queries may be.
            cell_limits: What one cell may use.
            sandbox_limits: What one sandbox may use.
            pool_limits: How many sandboxes wait, started already, for runs inside `with`.
            settings: What holds for all that is None above; read from the settings file and the
                environment if None.
            on_event: Told of each event of each run. Must not block and must not raise.
            parts: What runs stand on, instead of the real engine and models.

        Raises:
            SettingsError: A setting is unknown or not of its kind, or a tool cannot be one.
        """
        overrides = {
            "model": model,
            "sub_model": sub_model,
            "profile": profile,
            "domain": domain,
            "policy": policy,
            "runtime": runtime,
            "run": run_limits,
            "query": query_limits,
            "cell": cell_limits,
            "sandbox": sandbox_limits,
            "pool": pool_limits,
        }
        given = {key: value for key, value in overrides.items() if value is not None}
        self._settings = load(overrides=given) if settings is None else _replace(settings, given)
        self._tools = tuple(tools)
        Toolbox(self._tools)  # a tool that cannot be one is said now, and not with the first run
        self._sink = on_event or _ignore
        self._parts = parts
        self._open: Orchestrator | None = None
        self._async_stack: AsyncExitStack | None = None
        self._loop: LoopThread | None = None

    def completion(
        self, prompt: Prompt, question: str | None = None, *, trajectory: Path | None = None
    ) -> RunResult:
        """Answers `question` over `prompt`, and waits for it. Not for use in an event loop.

        Args:
            prompt: The context: text, a list (of documents, of messages, of anything JSON) or a
                dict; or a `Path`, or several, of files and folders to read. The root model sees its
                size, and reads it through its cells.
            question: What to find out, short. Without it the prompt says so itself: the root model
                is shown both ends of it and told to answer it.
            trajectory: A file to append the run's events to, one a line.

        Returns:
            The answer, how far it can be relied on, and what it took. A limit that was reached is
            a result, not an error.

        Raises:
            InputError: The prompt or the question cannot be used, or an event loop is running.
            SettingsError: Something configured is not usable.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        _refuse_running_loop("completion", "acompletion")
        return self._wait_for(self.acompletion(prompt, question, trajectory=trajectory))

    async def acompletion(
        self, prompt: Prompt, question: str | None = None, *, trajectory: Path | None = None
    ) -> RunResult:
        """Answers `question` over `prompt`; see `completion`. Calls may overlap.

        Cancelling the call ends the run and destroys its sandbox.
        """
        return await self._run(prompt, question, trajectory, self._sink, streams=False)

    def stream(
        self, prompt: Prompt, question: str | None = None, *, trajectory: Path | None = None
    ) -> RunStream:
        """Answers `question` over `prompt` while the caller looks on; see `completion`.

        Returns:
            An iterator over the events of the run as they happen, pieces of the root model's
            replies among them. Its `result` is there when the last event has been read. Leaving
            it early (`close`, or the end of `with`) ends the run and destroys its sandbox.

        Raises:
            InputError: An event loop is running. What else a run raises, the iterator does.
        """
        _refuse_running_loop("stream", "astream")
        loop = self._loop
        return RunStream(
            self._starter(prompt, question, trajectory),
            loop=loop or LoopThread(),
            owns_loop=loop is None,
        )

    def astream(
        self, prompt: Prompt, question: str | None = None, *, trajectory: Path | None = None
    ) -> AsyncRunStream:
        """Answers `question` over `prompt` while the caller looks on; see `stream`."""
        return AsyncRunStream(self._starter(prompt, question, trajectory))

    def session(self, *, trajectory: Path | None = None) -> Session:
        """Returns a session, to be used by `with`: runs that share one sandbox.

        Args:
            trajectory: A file to append the events of all its runs to.

        Raises:
            InputError: An event loop is running.
        """
        _refuse_running_loop("session", "asession")
        loop = self._loop
        return Session(
            self.asession(trajectory=trajectory),
            loop=loop or LoopThread(),
            owns_loop=loop is None,
        )

    def asession(self, *, trajectory: Path | None = None) -> AsyncSession:
        """Returns a session, to be used by `async with`; see `session`."""
        return AsyncSession(
            lambda: self._open_session(trajectory),
            max_context_bytes=self._settings.max_context_bytes,
        )

    @asynccontextmanager
    async def _open_session(self, trajectory: Path | None) -> AsyncIterator[OpenSession]:
        async with (
            self._opened() as opened,
            opened.session(sink=self._sink, trajectory_path=trajectory) as session,
        ):
            yield session

    def _starter(self, prompt: Prompt, question: str | None, trajectory: Path | None) -> StartRun:
        async def start(sink: EventSink) -> RunResult:
            def tell_both(event: RunEvent) -> None:
                self._sink(event)
                sink(event)

            return await self._run(prompt, question, trajectory, tell_both, streams=True)

        return start

    async def _run(
        self,
        prompt: Prompt,
        question: str | None,
        trajectory: Path | None,
        sink: EventSink,
        *,
        streams: bool,
    ) -> RunResult:
        found = await found_prompt(prompt, max_bytes=self._settings.max_context_bytes)
        async with self._opened() as opened:
            return await opened.run(
                found.context,
                question=question or "",
                domain=found.domain,
                sink=sink,
                trajectory_path=trajectory,
                streams_replies=streams,
            )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Orchestrator]:
        """Yields what is open for all calls, or opens it for one."""
        if self._open is not None:
            yield self._open
            return
        async with self._opening(self._settings.for_one_call) as opened:
            yield opened

    def _opening(self, settings: Settings) -> Any:  # noqa: ANN401 - the context manager of `open_orchestrator`
        return open_orchestrator(
            settings, report=_logger.info, parts=self._parts, tools=self._tools
        )

    def _wait_for(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is not None:
            return self._loop.run(work)
        if self._open is not None:
            work.close()
            raise InputError("This RLM was opened with `async with`; use `acompletion` in it.")
        loop = LoopThread()
        try:
            return loop.run(work)
        finally:
            loop.close()

    async def __aenter__(self) -> Self:
        """Opens what the calls inside share.

        Raises:
            SettingsError: Something configured is not usable.
            SandboxStartError: There is no engine that can be used, or no image.
        """
        if self._async_stack is not None:
            raise InputError("This RLM is open already; make another one, or use it inside.")
        async with AsyncExitStack() as stack:
            self._open = await stack.enter_async_context(self._opening(self._settings))
            self._async_stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes what `__aenter__` opened, and destroys every sandbox that is left."""
        stack, self._async_stack, self._open = self._async_stack, None, None
        if stack is not None:
            await stack.aclose()

    def __enter__(self) -> Self:
        """Opens what the calls inside share, in an event loop that lasts as long.

        Raises:
            InputError: An event loop is running; use `async with`.
            SettingsError: Something configured is not usable.
            SandboxStartError: There is no engine that can be used, or no image.
        """
        _refuse_running_loop("with", "async with")
        loop = LoopThread()
        try:
            loop.run(self.__aenter__())
        except BaseException:
            loop.close()
            raise
        self._loop = loop
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes what `__enter__` opened."""
        self.close()

    def close(self) -> None:
        """Closes what `__enter__` opened. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            loop.run(self.__aexit__(None, None, None))
        finally:
            loop.close()


def _replace(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Returns `settings` with some values replaced, and all of them checked."""
    try:
        return Settings(**{**dict(settings), **given})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: ErrorDetails) -> str:
    # What is checked in one piece says itself where in it the trouble is.
    path = (*detail["loc"], *detail.get("ctx", {}).get("path", ()))
    return f"{'.'.join(map(str, path))}: {detail['msg']}"


def _refuse_running_loop(used: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InputError(
        f"`{used}` waits, and an event loop is running here, which it would stop. "
        f"Use `{instead}` instead."
    )
