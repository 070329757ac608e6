"""Opens the parts a run stands on, as the settings say.

Without it nobody could put a fake under a front end, and the order in which a lease, a backend and
a sweep are opened and closed would be written more than once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from orchestrator.app.brokers import open_brokers
from orchestrator.app.host import Report, find_host_engine
from orchestrator.app.replay import REPLAY, replayed_model
from orchestrator.models.pricing import PriceList, read_prices
from orchestrator.models.registry import model_for
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient, SandboxProvider
from orchestrator.sandbox.docker_backend import open_docker_backend
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.launcher import SandboxLauncher
from orchestrator.sandbox.lease import hold_lease
from orchestrator.sandbox.pool import open_pool
from orchestrator.sandbox.reaper import keep_swept
from orchestrator.settings import Settings

_logger = logging.getLogger(__name__)

Role: TypeAlias = Literal["root", "sub"]

_SWEEP_INTERVAL_S = 60.0  # what a killed orchestrator left is gone a minute later at the latest


class OpenModel(Protocol):
    """Makes the client for a model's name."""

    def __call__(
        self,
        spec: str,
        role: Role,
        settings: Settings,
        *,
        local_base_url: str | None,
        turnstiles: Turnstiles,
    ) -> ModelClient:
        """See `orchestrator.models.registry.model_for`."""
        ...


class OpenSandboxes(Protocol):
    """Opens where sandboxes come from, for as long as its context is entered."""

    def __call__(
        self, settings: Settings, *, report: Report
    ) -> AbstractAsyncContextManager[SandboxProvider]:
        """See `open_docker_sandboxes`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a composition stands on. A front end takes `REAL_PARTS`; a test puts fakes in.

    Attributes:
        open_model: Makes model clients.
        open_sandboxes: Opens where sandboxes come from.
    """

    open_model: OpenModel
    open_sandboxes: OpenSandboxes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModels:
    """The models of one composition, open.

    Attributes:
        by_role: The root model and the sub-model, as far as they will be asked.
        child: Writes the cells of child runs; None where no root model will be asked.
        further: Further models that cells may name, by the names they use for them.
        max_retries: How often a request is tried again, by the name of the model it is for.
    """

    by_role: Mapping[Role, ModelClient]
    child: ModelClient | None = None
    further: Mapping[str, ModelClient] = field(default_factory=dict)
    max_retries: Mapping[str, int] = field(default_factory=dict)


def model_specs(settings: Settings, roles: Sequence[Role]) -> set[str]:
    """Returns the names of all models that will be asked."""
    specs: set[str] = set()
    if "root" in roles:
        specs |= {settings.model, settings.child_model or settings.answering_model}
    if "sub" in roles:
        specs |= {settings.answering_model, *settings.sub_models.values()}
    return specs


@asynccontextmanager
async def open_models(
    settings: Settings,
    *,
    roles: Sequence[Role],
    parts: Parts,
    local_base_url: str | None,
) -> AsyncIterator[OpenModels]:
    """Yields the models that `roles` need; leaving the context closes them.

    Clients of one provider wait for their turn together, whichever model they ask.

    Raises:
        SettingsError: A model, its provider or the list of prices is not usable.
        InputError: A script of a scripted model is not usable.
    """
    turnstiles = Turnstiles()
    opened: dict[tuple[str, Role], ModelClient] = {}
    max_retries: dict[str, int] = {}
    async with AsyncExitStack() as stack:

        def open_one(spec: str, role: Role) -> ModelClient:
            if (spec, role) not in opened:
                model = parts.open_model(
                    spec, role, settings, local_base_url=local_base_url, turnstiles=turnstiles
                )
                stack.push_async_callback(model.aclose)
                opened[spec, role] = model
                # What a script or a recording does not have comes no sooner for being waited for.
                tries = 0 if model.is_scripted else settings.provider_of(spec).max_retries
                max_retries[model.name] = tries
            return opened[spec, role]

        specs: dict[Role, str] = {"root": settings.model, "sub": settings.answering_model}
        by_role = {role: open_one(specs[role], role) for role in roles}
        child = None
        if "root" in roles:
            has_own = settings.child_model is not None
            child = open_one(settings.child_model or specs["sub"], "root" if has_own else "sub")
        further = settings.sub_models if "sub" in roles else {}
        yield OpenModels(
            by_role=by_role,
            child=child,
            further={alias: open_one(spec, "sub") for alias, spec in further.items()},
            max_retries=max_retries,
        )


def open_registered_model(
    spec: str,
    role: Role,
    settings: Settings,
    *,
    local_base_url: str | None,
    turnstiles: Turnstiles,
) -> ModelClient:
    """Makes the client that the registry has for `spec`, or one that replays a recorded run."""
    if spec.startswith(REPLAY):
        return replayed_model(spec, role)
    return model_for(
        spec,
        role=role,
        provider=settings.provider_of(spec),
        settings=settings.settings_of(spec),
        local_base_url=local_base_url,
        turnstiles=turnstiles,
        prices=read_prices(settings.prices_file) if settings.prices_file else PriceList(),
    )


@asynccontextmanager
async def open_docker_sandboxes(
    settings: Settings, *, report: Report = _logger.info
) -> AsyncIterator[SandboxProvider]:
    """Yields sandboxes of this host's Docker engine; leaving the context destroys every one.

    Where the settings want a pool, it begins to fill at once; nothing waits for it.

    Args:
        settings: What is configured.
        report: Told how long it will take, each time that a caller has to wait in line.

    Raises:
        SandboxStartError: There is no engine that can be used, or no image of the installed code.
        SettingsError: The runtime, its directory or the engine's address is not usable.
    """
    async with AsyncExitStack() as stack:
        make_broker = await stack.enter_async_context(open_brokers(settings))
        engine = await asyncio.to_thread(find_host_engine, settings)
        image = await asyncio.to_thread(find_image, engine)
        lease = stack.enter_context(hold_lease(settings.runtime_directory))
        backend = await stack.enter_async_context(
            open_docker_backend(
                endpoint=engine.endpoint,
                image_id=image.image_id,
                limits=settings.sandbox,
                runtime=settings.runtime,
                lease=lease,
                longest_wait_s=_longest_wait_s(settings),
            )
        )
        sweeping = asyncio.create_task(keep_swept(backend, interval_s=_SWEEP_INTERVAL_S))
        try:
            launcher = SandboxLauncher(
                backend=backend, broker=make_broker(lease.socket_root), limits=settings.sandbox
            )
            if not settings.pool.size:
                yield launcher
                return
            async with open_pool(
                launcher, limits=settings.pool, on_wait=lambda wait: report(str(wait))
            ) as pool:
                yield pool
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping


def _longest_wait_s(settings: Settings) -> float:
    """Returns how long a container may run before a session has it."""
    if not settings.pool.size:
        return 0.0
    return settings.pool.max_wait_age_s + settings.sandbox.start_s


REAL_PARTS = Parts(open_model=open_registered_model, open_sandboxes=open_docker_sandboxes)
