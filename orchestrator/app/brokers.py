"""Chooses where the code runs that parses what sandboxes send.

Without it everything that needs a broker would have to know how each kind is opened.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from orchestrator.broker_process.nursery_handle import open_nursery
from orchestrator.broker_process.process_broker import ProcessBroker
from orchestrator.controls import BrokerIsolation
from orchestrator.ports import Broker
from orchestrator.settings import Settings

#: Makes a broker whose sockets lie below a directory.
MakeBroker: TypeAlias = Callable[[Path], Broker]


@asynccontextmanager
async def open_brokers(settings: Settings) -> AsyncIterator[MakeBroker]:
    """Yields what makes brokers of the kind that the settings ask for.

    What takes long is begun on entering and not waited for: enter it before anything else.

    Raises:
        SandboxStartError: No process could be started.
    """
    if settings.broker is BrokerIsolation.IN_PROCESS:
        # Not at the top: gRPC takes a moment to import, and where the broker is another process,
        # nothing of it shall be in this one.
        from orchestrator.broker.listener import UnixBroker  # noqa: PLC0415 # see above

        def make_here(socket_root: Path) -> Broker:
            return UnixBroker(
                runtime_directory=socket_root,
                cell_limits=settings.cell,
                query_limits=settings.query,
                sandbox_limits=settings.sandbox,
                language_policy=settings.policy,
            )

        yield make_here
        return
    async with open_nursery() as nursery:

        def make(socket_root: Path) -> Broker:
            return ProcessBroker(
                nursery=nursery,
                runtime_directory=socket_root,
                cell_limits=settings.cell,
                query_limits=settings.query,
                sandbox_limits=settings.sandbox,
                language_policy=settings.policy,
            )

        yield make
