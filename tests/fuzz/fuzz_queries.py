"""An `LlmQueryRequest` as the broker reads it.

Holds: nothing is raised but a violation of the protocol; an accepted query has an id that can stand
in a log, at least one prompt, and no more text than bytes came.
"""

from __future__ import annotations

import re

from orchestrator.broker.claims import ClaimedPart, ClaimedQuery, read_query
from orchestrator.domain import QueryKind
from orchestrator.errors import ProtocolViolationError


def TestOneInput(data: bytes) -> None:
    """Reads a request and checks the bounds of what it asks."""
    try:
        query = read_query(data)
    except ProtocolViolationError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", query.query_id, re.ASCII)
    assert query.cell_id > 0
    assert read_query(data) == query
    if isinstance(query, ClaimedPart):
        assert query.data
        assert query.offset_bytes >= 0
        return
    assert query.prompts
    assert len(query.model_alias) <= 64
    assert len(query.tool_name) <= 64
    assert len(query.json_schema) <= 20_000
    texts = (*query.prompts, query.json_schema, query.model_alias, query.tool_name)
    assert sum(len(text.encode()) for text in texts) <= len(data)
    check_context(query)


def check_context(query: ClaimedQuery) -> None:
    """Holds a child run's context against its bounds."""
    context = query.child_context
    assert (context is not None) == (query.kind is QueryKind.CHILD_RUN)
    if context is None:
        return
    assert len(query.prompts) == 1
    assert not (context.data and context.context_id)
    assert len(context.part_lengths) <= 100
    assert min((context.total_chars, *context.part_lengths)) >= 0
