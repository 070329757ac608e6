"""An `LlmQueryRequest` as the broker reads it.

Holds: nothing is raised but a violation of the protocol; an accepted query has an id that can stand
in a log, at least one prompt, and no more text than bytes came.
"""

from __future__ import annotations

import re

from orchestrator.broker.claims import read_query
from orchestrator.errors import ProtocolViolationError


def TestOneInput(data: bytes) -> None:
    """Reads a request and checks the bounds of what it asks."""
    try:
        query = read_query(data)
    except ProtocolViolationError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", query.query_id, re.ASCII)
    assert query.cell_id > 0
    assert query.prompts
    assert len(query.model_alias) <= 64
    texts = (*query.prompts, query.json_schema, query.model_alias)
    assert sum(len(text.encode()) for text in texts) <= len(data)
    assert read_query(data) == query
