"""The broker's real end with a scripted worker dialled in, for tests of either."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from support.scripted_worker import WALLS, ScriptedWorker

from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.listener import UnixBroker, UnixEndpoint
from orchestrator.broker_process.nursery_handle import open_nursery
from orchestrator.broker_process.process_attachment import ProcessAttachment
from orchestrator.broker_process.process_broker import ProcessBroker, ProcessEndpoint
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy, QueryAnswer, QueryRequest, SandboxId
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from orchestrator.ports import QueryHandler

AnyBroker: TypeAlias = UnixBroker | ProcessBroker
AnyEndpoint: TypeAlias = UnixEndpoint | ProcessEndpoint
AnyAttachment: TypeAlias = StreamAttachment | ProcessAttachment

_kind = [BrokerIsolation.IN_PROCESS]
#: How long anything in these tests may take; a condition is waited for, so it is rarely used up.
PATIENCE_S = 20.0


class EchoQueries:
    """Answers each prompt with itself."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers at once."""
        return [f"echo: {prompt}" for prompt in request.prompts]


class HangingQueries:
    """Answers nothing until it is released; keeps what it saw."""

    def __init__(self) -> None:
        """Begins with nothing seen."""
        self.asked: list[QueryRequest] = []
        self.cancelled: list[QueryRequest] = []
        self.release = asyncio.Event()

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers each prompt with itself once released."""
        self.asked.append(request)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        return list(request.prompts)


@contextmanager
def short_directory() -> Iterator[Path]:
    """Yields a directory whose path leaves room for a socket's (unix(7)), unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="rlm") as name:
        yield Path(name)


def broker_in(
    directory: Path,
    *,
    cell_limits: CellLimits | None = None,
    query_limits: QueryLimits | None = None,
    stop_margin_s: float = 5.0,
) -> UnixBroker:
    """Returns a broker whose runtime directory is `directory`."""
    return UnixBroker(
        runtime_directory=directory,
        cell_limits=cell_limits or CellLimits(),
        query_limits=query_limits or QueryLimits(),
        sandbox_limits=SandboxLimits(),
        language_policy=LanguagePolicy.GUARDED,
        stop_margin_s=stop_margin_s,
    )


@asynccontextmanager
async def open_broker(
    directory: Path,
    *,
    cell_limits: CellLimits | None = None,
    query_limits: QueryLimits | None = None,
    stop_margin_s: float = 5.0,
) -> AsyncIterator[AnyBroker]:
    """Yields a broker of the chosen kind; see `chosen`."""
    if _kind[0] is BrokerIsolation.IN_PROCESS:
        yield broker_in(
            directory,
            cell_limits=cell_limits,
            query_limits=query_limits,
            stop_margin_s=stop_margin_s,
        )
        return
    async with open_nursery() as nursery:
        yield ProcessBroker(
            nursery=nursery,
            runtime_directory=directory,
            cell_limits=cell_limits or CellLimits(),
            query_limits=query_limits or QueryLimits(),
            sandbox_limits=SandboxLimits(),
            language_policy=LanguagePolicy.GUARDED,
            stop_margin_s=stop_margin_s,
        )


@contextmanager
def chosen(home: BrokerIsolation) -> Iterator[None]:
    """Makes `listening` and `attached` use a broker of this kind meanwhile."""
    before = _kind[0]
    _kind[0] = home
    try:
        yield
    finally:
        _kind[0] = before


@asynccontextmanager
async def listening(
    *,
    queries: QueryHandler | None = None,
    cell_limits: CellLimits | None = None,
    query_limits: QueryLimits | None = None,
    stop_margin_s: float = 5.0,
) -> AsyncIterator[AnyEndpoint]:
    """Yields an endpoint nobody has dialled yet."""
    with short_directory() as directory:
        async with (
            open_broker(
                directory,
                cell_limits=cell_limits,
                query_limits=query_limits,
                stop_margin_s=stop_margin_s,
            ) as broker,
            broker.open(
                sandbox_id=SandboxId("sandbox-under-test"),
                queries=queries or EchoQueries(),
                promised_walls=WALLS,
            ) as endpoint,
        ):
            await endpoint.listening()
            yield endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both ends of one stream."""

    attachment: AnyAttachment
    worker: ScriptedWorker
    endpoint: AnyEndpoint


@asynccontextmanager
async def attached(
    *,
    queries: QueryHandler | None = None,
    cell_limits: CellLimits | None = None,
    query_limits: QueryLimits | None = None,
    stop_margin_s: float = 5.0,
) -> AsyncIterator[Pair]:
    """Yields an attached stream after honest hellos."""
    async with (
        listening(
            queries=queries,
            cell_limits=cell_limits,
            query_limits=query_limits,
            stop_margin_s=stop_margin_s,
        ) as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        await worker.greet()
        attachment = await endpoint.attached(timeout_s=PATIENCE_S)
        yield Pair(attachment=attachment, worker=worker, endpoint=endpoint)


async def until(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds; fails when it takes too long."""
    async with asyncio.timeout(PATIENCE_S):
        # What is waited for is in the code under test, which has no event to give.
        while not condition():  # noqa: ASYNC110 # see above
            await asyncio.sleep(0.002)
