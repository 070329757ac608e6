"""Opens the parts a run stands on, as the settings say.

Without it nobody could put a fake under a front end, and the order in which a lease, a backend and
a sweep are opened and closed would be written more than once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from orchestrator.app.brokers import open_brokers
from orchestrator.app.host import find_host_engine
from orchestrator.models.registry import model_for
from orchestrator.ports import ModelClient, SandboxProvider
from orchestrator.sandbox.docker_backend import open_docker_backend
from orchestrator.sandbox.image import find_image
from orchestrator.sandbox.launcher import SandboxLauncher
from orchestrator.sandbox.lease import hold_lease
from orchestrator.sandbox.reaper import keep_swept
from orchestrator.settings import Settings

Role: TypeAlias = Literal["root", "sub"]

_SWEEP_INTERVAL_S = 60.0  # what a killed orchestrator left is gone a minute later at the latest


class OpenModel(Protocol):
    """Makes the client for a model's name."""

    def __call__(
        self, spec: str, role: Role, settings: Settings, *, local_base_url: str | None
    ) -> ModelClient:
        """See `orchestrator.models.registry.model_for`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a composition stands on. A front end takes `REAL_PARTS`; a test puts fakes in.

    Attributes:
        open_model: Makes model clients.
        open_sandboxes: Where sandboxes come from, for as long as its context is entered.
    """

    open_model: OpenModel
    open_sandboxes: Callable[[Settings], AbstractAsyncContextManager[SandboxProvider]]


def open_registered_model(
    spec: str, role: Role, settings: Settings, *, local_base_url: str | None
) -> ModelClient:
    """Makes the client that the registry has for `spec`."""
    provider = settings.provider
    return model_for(
        spec,
        role=role,
        api_key=provider.api_key.get_secret_value() if provider.api_key else None,
        base_url=provider.base_url,
        local_base_url=local_base_url,
        request_timeout_s=provider.request_timeout_s,
        max_retries=provider.max_retries,
        temperature=provider.temperature,
        max_concurrent_requests=settings.run.concurrent_queries,
    )


@asynccontextmanager
async def open_docker_sandboxes(settings: Settings) -> AsyncIterator[SandboxProvider]:
    """Yields sandboxes of this host's Docker engine; leaving the context destroys every one.

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
            )
        )
        sweeping = asyncio.create_task(keep_swept(backend, interval_s=_SWEEP_INTERVAL_S))
        try:
            yield SandboxLauncher(
                backend=backend, broker=make_broker(lease.socket_root), limits=settings.sandbox
            )
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping


REAL_PARTS = Parts(open_model=open_registered_model, open_sandboxes=open_docker_sandboxes)
