"""Queries of a broker's process, as the orchestrator has them answered."""

import asyncio
from collections.abc import Sequence

from orchestrator.broker.clock import CellClock
from orchestrator.broker_process.fields import Fields
from orchestrator.broker_process.frames import Frame, Said
from orchestrator.broker_process.query_frames import query_parts
from orchestrator.broker_process.relayed_queries import RelayedQueries
from orchestrator.domain import CellId, QueryAnswer, QueryId, QueryRequest
from orchestrator.limits import QueryLimits


class NeverAsked:
    """Fails the test that has it answer."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Is not to be called."""
        raise AssertionError(request)


async def test_query_that_is_stopped_before_it_is_begun_is_answered() -> None:
    """The broker's process is told of every query it asked, else it gives the whole cell up."""
    sent: list[tuple[int, Sequence[QueryAnswer] | None]] = []
    queries = RelayedQueries(
        handler=NeverAsked(),
        limits=QueryLimits(),
        send=lambda number, answers: sent.append((number, answers)),
    )
    queries.begin_cell(CellId(1), CellClock(timeout_s=60.0, expire=lambda: None))
    request = QueryRequest(query_id=QueryId("q"), cell_id=CellId(1), prompts=("?",))
    said, body = query_parts(1, request)

    queries.take(Frame(kind=Said.QUERY, fields=Fields(said), body=memoryview(body)))
    queries.stop_cell()
    await asyncio.wait_for(queries.settle(), timeout=1)
    await asyncio.sleep(0)

    assert sent == [(1, None)]
