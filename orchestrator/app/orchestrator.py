"""Runs questions and cells on parts that are open and joined.

Without it each front end would encode contexts, choose profiles and close clients by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.app.host import Report, find_weights
from orchestrator.app.parts import REAL_PARTS, OpenModels, Parts, Role, model_specs, open_models
from orchestrator.app.replay import REPLAY, recording_of_spec
from orchestrator.context import Encodable, encode_context
from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    Outcome,
    VariableState,
)
from orchestrator.engine.cells_desk import cells_desk
from orchestrator.engine.compaction import compaction_chars
from orchestrator.engine.prompts.domains import checked_domain
from orchestrator.engine.prompts.profiles import profile_for, profile_named
from orchestrator.engine.result import RunResult
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.root_loop import RootLoop
from orchestrator.engine.session import Session
from orchestrator.engine.setup import SUB_ALIAS, RunSetup
from orchestrator.engine.tools import Tool, Toolbox
from orchestrator.errors import (
    ProtocolViolationError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)
from orchestrator.events import RunEvent
from orchestrator.models.local.endpoint import local_endpoint
from orchestrator.models.replayed import ReplayedModel
from orchestrator.ports import EventSink, ModelClient, QueryHandler, SandboxProvider
from orchestrator.settings import Settings
from orchestrator.trajectory.jsonl import TrajectoryFile, open_trajectory

_logger = logging.getLogger(__name__)

_LOCAL = "local"


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


class OpenSession:
    """A chain of runs that share one sandbox. Made by `Orchestrator.session`."""

    def __init__(
        self,
        session: Session,
        trajectory: TrajectoryFile | None,
        *,
        on_ended: Callable[[], None],
    ) -> None:
        """Takes a session and where its events go, which stay the orchestrator's."""
        self._session = session
        self._trajectory = trajectory
        self._on_ended = on_ended

    async def run(self, question: str, context: Encodable | None) -> RunResult:
        """Answers one more question; see `Session.run`."""
        encoded = None if context is None else await asyncio.to_thread(encode_context, context)
        result = await self._session.run(question=question, context=encoded)
        self._on_ended()
        return _with_path(result, self._trajectory)


class Orchestrator:
    """Parts that are open and joined. Made by `open_orchestrator`."""

    def __init__(
        self,
        *,
        settings: Settings,
        models: OpenModels,
        provider: SandboxProvider,
        toolbox: Toolbox,
    ) -> None:
        """Takes open parts, which stay the caller's."""
        self._toolbox = toolbox
        self._settings = settings
        self._models = models
        self._provider = provider

    async def run(  # noqa: PLR0913 - keyword-only, one for each thing a front end may choose
        self,
        context: Encodable,
        *,
        question: str,
        sink: EventSink,
        domain: str = "",
        trajectory_path: Path | None = None,
        streams_replies: bool = False,
    ) -> RunResult:
        """Answers `question` over `context`; see `RootLoop.run`. Calls may overlap.

        Args:
            context: What the run is about.
            question: Empty where the context is its own question.
            sink: Told of each event.
            domain: What the context is about, where the settings do not say.
            trajectory_path: A file that each event is appended to as well.
            streams_replies: Whether the sink is told of the root model's replies piece by piece.

        Raises:
            SettingsError: The profile is unknown.
            InputError: The context, the question or the trajectory's file cannot be used.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        setup = self._setup(streams_replies=streams_replies, domain=domain)
        encoded = await asyncio.to_thread(encode_context, context)
        with _recording(trajectory_path, sink) as (tell, trajectory):
            result = await RootLoop(setup, sink=tell).run(question=question, context=encoded)
        self._say_differences()
        return _with_path(result, trajectory)

    @asynccontextmanager
    async def session(
        self,
        *,
        sink: EventSink,
        trajectory_path: Path | None = None,
        streams_replies: bool = False,
    ) -> AsyncIterator[OpenSession]:
        """Yields a session; leaving the context destroys its sandbox. See `run` for the arguments.

        Raises:
            SettingsError: The profile is unknown.
            InputError: The trajectory's file cannot be used.
        """
        setup = self._setup(streams_replies=streams_replies)
        with _recording(trajectory_path, sink) as (tell, trajectory):
            async with RootLoop(setup, sink=tell).session() as session:
                yield OpenSession(session, trajectory, on_ended=self._say_differences)

    def _setup(self, *, streams_replies: bool = False, domain: str = "") -> RunSetup:
        settings = self._settings
        root_model, sub_model = self._models.by_role["root"], self._models.by_role["sub"]
        child_model = self._models.child or sub_model
        return RunSetup(
            root_model=root_model,
            sub_models={SUB_ALIAS: sub_model, **self._models.further},
            child_model=child_model,
            provider=self._provider,
            limits=settings.run,
            query_limits=settings.query,
            cell_limits=settings.cell,
            profile=profile_named(
                settings.profile or _recorded_profile(settings.model),
                model_name=_name_of(settings, settings.model, root_model),
            ),
            child_profile=profile_for(
                _name_of(settings, settings.child_model or settings.answering_model, child_model)
            ),
            toolbox=self._toolbox,
            retries=self._retries,
            domain=checked_domain(settings.domain or domain),
            streams_replies=streams_replies,
            answers_repeats_once=settings.answers_repeats_once,
            compacts_above_chars=(
                compaction_chars(root_model.facts.window_tokens)
                if settings.compacts_history
                else None
            ),
        )

    async def run_cells(
        self,
        sources: Sequence[str],
        *,
        context: Encodable | None,
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
        settings = self._settings
        return cells_desk(
            model=self._models.by_role["sub"],
            limits=settings.run,
            query_limits=settings.query,
            retry=self._retries[self._models.by_role["sub"].name],
        )

    def _say_differences(self) -> None:
        """Says where a replayed run has gone another way than the recorded one."""
        for model in dict.fromkeys((*self._models.by_role.values(), self._models.child)):
            if isinstance(model, ReplayedModel) and model.first_difference is not None:
                _logger.warning("%s", model.first_difference)

    @property
    def _retries(self) -> Mapping[str, RetryPolicy]:
        return {
            name: RetryPolicy(max_retries=count) for name, count in self._models.max_retries.items()
        }


@asynccontextmanager
async def open_orchestrator(
    settings: Settings,
    *,
    report: Report,
    roles: Sequence[Role] = ("root", "sub"),
    parts: Parts = REAL_PARTS,
    tools: Sequence[Tool | Callable[..., Any]] = (),
) -> AsyncIterator[Orchestrator]:
    """Opens and joins the parts; leaving the context closes them and destroys every sandbox.

    Args:
        settings: What is configured.
        report: Told before something that takes long is started, and how long a run will wait
            where it has to wait in line for a sandbox.
        roles: The models that will be asked.
        parts: What the composition stands on.
        tools: Functions of the caller's that cells may call.

    Raises:
        SettingsError: Something configured is not usable.
        InputError: A script of a scripted model is not usable.
        SandboxStartError: There is no engine that can be used, or no image.
    """
    toolbox = Toolbox(tools)
    async with AsyncExitStack() as stack:
        local_base_url = settings.provider.local_base_url
        if local_base_url is None and _LOCAL in model_specs(settings, roles):
            endpoint = local_endpoint(lambda: find_weights(settings), report=report)
            local_base_url = await stack.enter_async_context(endpoint)
        # Models before sandboxes: a missing key is known at once, an engine has to be asked.
        models = await stack.enter_async_context(
            open_models(settings, roles=roles, parts=parts, local_base_url=local_base_url)
        )
        provider = await stack.enter_async_context(parts.open_sandboxes(settings, report=report))
        yield Orchestrator(settings=settings, models=models, provider=provider, toolbox=toolbox)


@contextmanager
def _recording(
    path: Path | None, sink: EventSink
) -> Iterator[tuple[EventSink, TrajectoryFile | None]]:
    """Yields a sink that tells `sink`, and writes to a file where one is named."""
    if path is None:
        yield sink, None
        return
    # With its texts: whoever names a file wants to read what happened.
    with open_trajectory(path, records_text=True) as trajectory:

        def tell_both(event: RunEvent) -> None:
            trajectory(event)
            sink(event)

        yield tell_both, trajectory


def _with_path(result: RunResult, trajectory: TrajectoryFile | None) -> RunResult:
    """Returns a result that says where its events are, if they are all there."""
    return (
        result if trajectory is None else replace(result, trajectory_path=trajectory.written_path)
    )


def _recorded_profile(spec: str) -> str | None:
    """Returns how the root model of a recorded run was spoken to; None for any other model."""
    return recording_of_spec(spec).profile if spec.startswith(REPLAY) else None


def _name_of(settings: Settings, spec: str, model: ModelClient) -> str:
    """Returns the name that a model's profile goes by."""
    return spec if spec == _LOCAL else settings.settings_of(spec).id or model.name


def _bury(index: int, error: SandboxError) -> EndedCell:
    """Returns the end of a cell that has no result of its own."""
    result = CellResult(
        cell_id=CellId(index + 1),
        outcome=Outcome.KILLED,
        state=VariableState.LOST,
        error=CellError(type_name=type(error).__name__, message=str(error)),
    )
    return EndedCell(index=index, result=result, is_sandbox_lost=True)
