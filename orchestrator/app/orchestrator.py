"""Runs questions and cells on parts that are open and joined.

Without it each front end would encode contexts, choose profiles and close clients by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.app.host import Report, find_weights
from orchestrator.app.parts import REAL_PARTS, Parts, Role
from orchestrator.context import encode_context
from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    Context,
    Outcome,
    VariableState,
)
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.prompts.profiles import PROFILES, Profile, profile_for
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.result import RunResult
from orchestrator.engine.root_loop import SUB_ALIAS, RootLoop
from orchestrator.errors import (
    ProtocolViolationError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
    SettingsError,
)
from orchestrator.events import RunEvent
from orchestrator.models.local.endpoint import local_endpoint
from orchestrator.ports import EventSink, ModelClient, QueryHandler, SandboxProvider
from orchestrator.settings import Settings
from orchestrator.trajectory.jsonl import open_trajectory

_LOCAL = "local"
_LOCAL_PROFILE = "small"  # the name says nothing about its size, and the one model it is has 1.5B


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCell:
    """How the cell made from one source ended.

    Attributes:
        index: Of the source among those that were given.
        result: How the cell ended; where the sandbox died with it, made up from that.
        is_sandbox_lost: Whether the sandbox died with it: the next cell has a fresh one.
    """

    index: int
    result: CellResult
    is_sandbox_lost: bool = False


class Orchestrator:
    """Parts that are open and joined. Made by `open_orchestrator`."""

    def __init__(
        self,
        *,
        settings: Settings,
        models: Mapping[Role, ModelClient],
        provider: SandboxProvider,
    ) -> None:
        """Takes open parts, which stay the caller's."""
        self._settings = settings
        self._models = models
        self._provider = provider

    async def run(
        self,
        context: Context,
        *,
        question: str,
        sink: EventSink,
        trajectory_path: Path | None = None,
    ) -> RunResult:
        """Answers `question` over `context`; see `RootLoop.run`. Calls may overlap.

        Args:
            context: What the run is about.
            question: Empty where the context is its own question.
            sink: Told of each event.
            trajectory_path: A file that each event is appended to as well.

        Raises:
            SettingsError: The profile is unknown.
            InputError: The context, the question or the trajectory's file cannot be used.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        profile = _choose_profile(self._settings, self._models["root"])
        encoded = await asyncio.to_thread(encode_context, context)
        if trajectory_path is None:
            return await self._loop(profile, sink).run(question=question, context=encoded)

        def tell_both(event: RunEvent) -> None:
            trajectory(event)
            sink(event)

        # With its texts: whoever names a file wants to read what happened.
        with open_trajectory(trajectory_path, records_text=True) as trajectory:
            result = await self._loop(profile, tell_both).run(question=question, context=encoded)
        return replace(result, trajectory_path=trajectory.written_path)

    def _loop(self, profile: Profile, sink: EventSink) -> RootLoop:
        return RootLoop(
            root_model=self._models["root"],
            sub_model=self._models["sub"],
            provider=self._provider,
            limits=self._settings.run,
            cell_limits=self._settings.cell,
            profile=profile,
            sink=sink,
        )

    async def run_cells(
        self,
        sources: Sequence[str],
        *,
        context: Context | None,
        on_ended: Callable[[EndedCell], None],
    ) -> None:
        """Runs sources as cells of one fresh sandbox, whatever becomes of the ones before.

        A sandbox that dies takes its cell with it; the next cell runs in another one. Each source
        is reported on once, in order, unless this raises before the first.

        Args:
            sources: One cell each.
            context: Bound to `context` in each sandbox, if any.
            on_ended: Called as each cell ends.

        Raises:
            InputError: The context cannot be used.
            SandboxStartError: No sandbox could be had for the first cell.
        """
        encoded = None if context is None else await asyncio.to_thread(encode_context, context)
        desk = self._open_query_desk()
        done_count = 0
        while done_count < len(sources):
            try:
                async with self._provider.open(desk) as sandbox:
                    if encoded is not None:
                        await sandbox.bind_context("context", encoded)
                    for source in sources[done_count:]:
                        result = await sandbox.run_cell(
                            source, timeout_s=self._settings.cell.wall_s
                        )
                        on_ended(EndedCell(index=done_count, result=result))
                        done_count += 1
            except (SandboxLostError, ProtocolViolationError) as error:
                if done_count < len(sources):  # else it died after all that was asked of it
                    on_ended(_bury(done_count, error))
                    done_count += 1
            except SandboxStartError as error:
                if not done_count:
                    raise
                for index in range(done_count, len(sources)):
                    on_ended(_bury(index, error))
                return

    def _open_query_desk(self) -> QueryHandler:
        limits = self._settings.run
        return QueryDesk(
            models={SUB_ALIAS: self._models["sub"]},
            ledger=Ledger(limits=limits),
            sink=lambda _event: None,
            rules=QueryRules(
                default_alias=SUB_ALIAS,
                prompt_chars=limits.query_chars,
                batch_prompt_count=limits.batch_prompts,
                max_completion_tokens=None,
                answers_repeats_once=True,
            ),
        )


@asynccontextmanager
async def open_orchestrator(
    settings: Settings,
    *,
    report: Report,
    roles: Sequence[Role] = ("root", "sub"),
    parts: Parts = REAL_PARTS,
) -> AsyncIterator[Orchestrator]:
    """Opens and joins the parts; leaving the context closes them and destroys every sandbox.

    Args:
        settings: What is configured.
        report: Told before something that takes long is started.
        roles: The models that will be asked.
        parts: What the composition stands on.

    Raises:
        SettingsError: Something configured is not usable.
        InputError: A script of a scripted model is not usable.
        SandboxStartError: There is no engine that can be used, or no image.
    """
    async with AsyncExitStack() as stack:
        specs: dict[Role, str] = {"root": settings.model, "sub": settings.answering_model}
        local_base_url = settings.provider.local_base_url
        if local_base_url is None and _LOCAL in {specs[role] for role in roles}:
            endpoint = local_endpoint(lambda: find_weights(settings), report=report)
            local_base_url = await stack.enter_async_context(endpoint)
        # Models before sandboxes: a missing key is known at once, an engine has to be asked.
        models: dict[Role, ModelClient] = {}
        for role in roles:
            model = parts.open_model(specs[role], role, settings, local_base_url=local_base_url)
            stack.push_async_callback(model.aclose)
            models[role] = model
        provider = await stack.enter_async_context(parts.open_sandboxes(settings))
        yield Orchestrator(settings=settings, models=models, provider=provider)


def _choose_profile(settings: Settings, root_model: ModelClient) -> Profile:
    if settings.profile is None:
        is_local = settings.model == _LOCAL
        return PROFILES[_LOCAL_PROFILE] if is_local else profile_for(root_model.name)
    if settings.profile not in PROFILES:
        names = ", ".join(PROFILES)
        raise SettingsError(f"profile: expected one of {names}; got {settings.profile!r}.")
    return PROFILES[settings.profile]


def _bury(index: int, error: SandboxError) -> EndedCell:
    """Returns the end of a cell that has no result of its own."""
    result = CellResult(
        cell_id=CellId(index + 1),
        outcome=Outcome.KILLED,
        state=VariableState.LOST,
        error=CellError(type_name=type(error).__name__, message=str(error)),
    )
    return EndedCell(index=index, result=result, is_sandbox_lost=True)
