"""Queries on their way out of the broker's process."""

import asyncio
from typing import cast

import pytest

from orchestrator.broker_process.fields import Fields
from orchestrator.broker_process.frames import Frame, Told
from orchestrator.broker_process.link import Link
from orchestrator.broker_process.remote_queries import RemoteQueries
from orchestrator.domain import CellId, QueryId, QueryRequest

REQUEST = QueryRequest(query_id=QueryId("q"), cell_id=CellId(1), prompts=("?",), model_alias=None)


class DeafLink:
    """Takes everything, and answers nothing."""

    def send(self, *_: object, **__: object) -> None:
        """Drops a frame."""


async def test_query_that_is_settled_and_cancelled_at_once_ends() -> None:
    """The orchestrator settles a query once: a cancellation that crosses it waits for no more."""
    queries = RemoteQueries(cast("Link", DeafLink()))
    asking = asyncio.create_task(queries.answer(REQUEST))
    await asyncio.sleep(0)
    settled = Fields({"number": 1, "is_cancelled": True})

    queries.take_answers(Frame(kind=Told.ANSWERS, fields=settled, body=memoryview(b"")))
    asking.cancel()

    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_query_that_is_cancelled_and_settled_at_once_ends() -> None:
    """The word that a query is settled counts, although its cancellation is on its way."""
    queries = RemoteQueries(cast("Link", DeafLink()))
    asking = asyncio.create_task(queries.answer(REQUEST))
    await asyncio.sleep(0)
    settled = Fields({"number": 1, "is_cancelled": True})

    asking.cancel()
    queries.take_answers(Frame(kind=Told.ANSWERS, fields=settled, body=memoryview(b"")))

    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await asking
