"""How many queries one sandbox may make, whatever its run's budget says.

Without it the broker and the orchestrator, where they are two processes, would each have their own
idea of how much is too much.
"""

from __future__ import annotations

from typing import Final

from orchestrator.domain import QueryFailure, QueryFailureReason

#: An honest worker holds more queries back than `Limits.open_query_count`; the rest is room for
#: queries that were cancelled and are still being settled.
MAX_OPEN_FACTOR: Final = 4
#: A cell that asks in a tight loop for a minute, refused each time, makes about as many.
MAX_QUERIES: Final = 2**16
#: How long a handler may take to settle a cancelled query; then its end is not waited for.
SETTLE_S: Final = 5.0
#: What a prompt gets that the orchestrator itself failed to answer: nothing about this side.
INTERNAL_FAILURE: Final = QueryFailure(
    reason=QueryFailureReason.MODEL_FAILED,
    message="The query could not be answered because of an internal error. Go on without.",
)
