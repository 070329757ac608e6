"""Sends a sandbox's queries out of the broker's process, to where the ledger and the keys are.

Without it the broker's process would need both.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from orchestrator.broker_process.frames import Frame, Said
from orchestrator.broker_process.link import Link
from orchestrator.broker_process.query_frames import query_parts, read_answers
from orchestrator.domain import QueryAnswer, QueryRequest
from orchestrator.run_to_end import run_to_end


class RemoteQueries:
    """Asks the orchestrator; implements `ports.QueryHandler`."""

    def __init__(self, link: Link) -> None:
        """Asks over `link`."""
        self._link = link
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[list[QueryAnswer] | None]] = {}

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """See `QueryHandler.answer`."""
        number = next(self._numbers)
        answered = self._open[number] = asyncio.get_running_loop().create_future()
        fields, body = query_parts(number, request)
        self._link.send(Said.QUERY, fields, body=body)
        try:
            # wait(), because it does not cancel what it waits for: an answer that comes while this
            # task is being cancelled, and has not noticed yet, would find nobody.
            await asyncio.wait({answered})
        except asyncio.CancelledError:
            if not answered.done():
                self._link.send(Said.QUERY_CANCELLED, {"number": number})
                await run_to_end(answered)  # nothing is settled before the orchestrator says so
            raise
        finally:
            del self._open[number]
        answers: list[QueryAnswer] | None = answered.result()
        if answers is None:
            raise asyncio.CancelledError
        return answers

    def take_answers(self, frame: Frame) -> None:
        """Takes a `Told.ANSWERS`."""
        answered = self._open.get(frame.fields.integer("number"))
        if answered is not None and not answered.done():
            answered.set_result(read_answers(frame.fields, frame.body))
