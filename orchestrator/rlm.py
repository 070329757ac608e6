"""The public class: a prompt of any length goes in, an answer comes out.

Without it a Python program would have to read settings, open parts and run an event loop to ask one
question.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from orchestrator.app import REAL_PARTS, Orchestrator, Parts, open_orchestrator
from orchestrator.domain import CellLimits, Context, LanguagePolicy, RunLimits, SandboxLimits
from orchestrator.engine.result import RunResult
from orchestrator.errors import InputError, SettingsError
from orchestrator.events import RunEvent
from orchestrator.ports import EventSink
from orchestrator.settings import Settings, load

_logger = logging.getLogger(__name__)


def _ignore(_event: RunEvent) -> None:
    """Tells nobody."""


class RLM:
    r"""Answers questions over contexts of any length, as an LLM's client would over short ones.

    The root model writes Python against the context, which runs in a sealed container and may ask
    the sub-model about pieces of it. Every run has a sandbox of its own, destroyed when it ends.

    >>> rlm = RLM(model="scripted:capital.toml")
    >>> result = rlm.completion("Lyon\nParis\nNice\n" * 1000, "Which of these is the capital?")
    >>> print(result)
    Paris
    >>> result.finish_reason.value, result.turn_count, result.query_count
    ('answered', 1, 1)

    Used as it is, each call opens what it needs and closes it again. Inside `with` (or `async
    with`) the connections to engine and provider are kept from call to call.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, one for each thing a caller may choose
        self,
        *,
        model: str | None = None,
        sub_model: str | None = None,
        profile: str | None = None,
        policy: LanguagePolicy | str | None = None,
        runtime: str | None = None,
        run_limits: RunLimits | None = None,
        cell_limits: CellLimits | None = None,
        sandbox_limits: SandboxLimits | None = None,
        settings: Settings | None = None,
        on_event: EventSink | None = None,
        parts: Parts = REAL_PARTS,
    ) -> None:
        """Reads the settings; nothing is opened yet.

        Args:
            model: Writes the cells: a provider's name, `local`, `scripted:FILE` or `echo`.
            sub_model: Answers the cells' queries; likewise.
            profile: How the root model is spoken to; chosen by its name if None.
            policy: What of Python a cell may use: `guarded` or `open`.
            runtime: `auto`, `runc`, `gvisor`, `required`, or the engine's own name for another.
            run_limits: What one run may spend.
            cell_limits: What one cell may use.
            sandbox_limits: What one sandbox may use.
            settings: What holds for all that is None above; read from the settings file and the
                environment if None.
            on_event: Told of each event of each run. Must not block and must not raise.
            parts: What runs stand on, instead of the real engine and models.

        Raises:
            SettingsError: A setting is unknown or not of its kind.
        """
        overrides = {
            "model": model,
            "sub_model": sub_model,
            "profile": profile,
            "policy": policy,
            "runtime": runtime,
            "run": run_limits,
            "cell": cell_limits,
            "sandbox": sandbox_limits,
        }
        given = {key: value for key, value in overrides.items() if value is not None}
        self._settings = load(overrides=given) if settings is None else _replace(settings, given)
        self._sink = on_event or _ignore
        self._parts = parts
        self._open: Orchestrator | None = None
        self._async_stack: AsyncExitStack | None = None
        self._runner: asyncio.Runner | None = None
        self._runner_lock = threading.Lock()

    def completion(
        self, prompt: Context, question: str | None = None, *, trajectory: Path | None = None
    ) -> RunResult:
        """Answers `question` over `prompt`, and waits for it. Not for use in an event loop.

        Args:
            prompt: The context: text, a list (of documents, of messages, of anything JSON) or a
                dict. The root model sees its size, and reads it through its cells.
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
        with self._runner_lock:
            if self._runner is not None:
                return self._runner.run(self.acompletion(prompt, question, trajectory=trajectory))
        if self._open is not None:
            raise InputError("This RLM was opened with `async with`; use `acompletion` in it.")
        return asyncio.run(self.acompletion(prompt, question, trajectory=trajectory))

    async def acompletion(
        self, prompt: Context, question: str | None = None, *, trajectory: Path | None = None
    ) -> RunResult:
        """Answers `question` over `prompt`; see `completion`. Calls may overlap.

        Cancelling the call ends the run and destroys its sandbox.
        """
        if self._open is not None:
            return await self._run(self._open, prompt, question, trajectory)
        async with open_orchestrator(
            self._settings, report=_logger.info, parts=self._parts
        ) as opened:
            return await self._run(opened, prompt, question, trajectory)

    async def _run(
        self,
        opened: Orchestrator,
        prompt: Context,
        question: str | None,
        trajectory: Path | None,
    ) -> RunResult:
        return await opened.run(
            prompt, question=question or "", sink=self._sink, trajectory_path=trajectory
        )

    async def __aenter__(self) -> Self:
        """Opens what the calls inside share.

        Raises:
            SettingsError: Something configured is not usable.
            SandboxStartError: There is no engine that can be used, or no image.
        """
        if self._async_stack is not None:
            raise InputError("This RLM is open already; make another one, or use it inside.")
        async with AsyncExitStack() as stack:
            self._open = await stack.enter_async_context(
                open_orchestrator(self._settings, report=_logger.info, parts=self._parts)
            )
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
        runner = asyncio.Runner()
        try:
            runner.run(self.__aenter__())
        except BaseException:
            runner.close()
            raise
        self._runner = runner
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
        with self._runner_lock:
            runner, self._runner = self._runner, None
        if runner is None:
            return
        try:
            runner.run(self.__aexit__(None, None, None))
        finally:
            runner.close()


def _replace(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Returns `settings` with some values replaced, and all of them checked."""
    try:
        return Settings(**{**dict(settings), **given})
    except ValidationError as error:
        sentences = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError("\n".join(sentences)) from None


def _refuse_running_loop(used: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InputError(
        f"`{used}` waits, and an event loop is running here, which it would stop. "
        f"Use `{instead}` instead."
    )
