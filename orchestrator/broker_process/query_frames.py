"""A sandbox's queries and their answers, between the broker's process and the orchestrator.

Without it the one thing a sandbox can ask for would reach the ledger in whatever shape a broker's
process that has been taken over gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.broker.answers import MAX_MESSAGE_BYTES, fitted
from orchestrator.broker_process.fields import Fields, FrameError, split_texts
from orchestrator.broker_process.frames import Bounds, Frame
from orchestrator.domain import (
    CellId,
    Json,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryRequest,
    RunLimits,
)

_QUERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MAX_ALIAS_CHARS = 64
_QUERY_ID_CHARS = 64
#: The digits of a prompt's size, and a comma.
_SIZE_CHARS = 9
#: Names, braces, a query's id and alias.
_HEADER_OVERHEAD_BYTES = 1024


def query_bounds(limits: RunLimits) -> Bounds:
    """Returns how large a query can be: its prompts came in one message of the contract."""
    return Bounds(
        header_bytes=_HEADER_OVERHEAD_BYTES + _SIZE_CHARS * limits.batch_prompts,
        body_bytes=MAX_MESSAGE_BYTES,
    )


def query_parts(number: int, request: QueryRequest) -> tuple[dict[str, Json], bytes]:
    """Returns the fields and the body of a `Said.QUERY`."""
    prompts = [prompt.encode() for prompt in request.prompts]
    fields: dict[str, Json] = {
        "number": number,
        "query_id": request.query_id,
        "model_alias": request.model_alias,
        "sizes": [len(prompt) for prompt in prompts],
    }
    return fields, b"".join(prompts)


def read_query(frame: Frame, *, cell_id: CellId, limits: RunLimits) -> QueryRequest:
    """Returns what the cell that runs asks; the limits of one request are enforced.

    Raises:
        FrameError: It is no query, or one that the broker would have refused.
    """
    fields = frame.fields
    query_id = fields.text("query_id", max_chars=_QUERY_ID_CHARS + 1)
    if not _QUERY_ID.fullmatch(query_id):
        raise FrameError("a query id is 1 to 64 of [A-Za-z0-9_-]")
    sizes = fields.items("sizes", most=limits.batch_prompts)
    prompts = split_texts(frame.body, sizes, "the prompts of a query")
    if not prompts:
        raise FrameError("a query has at least one prompt")
    if max(map(len, prompts)) > limits.query_chars:
        raise FrameError(f"a prompt has at most {limits.query_chars:,} characters")
    alias = None
    if not fields.is_null("model_alias"):
        alias = fields.text("model_alias", max_chars=_MAX_ALIAS_CHARS)
    return QueryRequest(
        query_id=QueryId(query_id), cell_id=cell_id, prompts=tuple(prompts), model_alias=alias
    )


def answer_parts(
    number: int, answers: Sequence[QueryAnswer] | None
) -> tuple[dict[str, Json], bytes]:
    """Returns the fields and the body of a `Told.ANSWERS`; None for a query that was cancelled."""
    if answers is None:
        return {"number": number, "is_cancelled": True}, b""
    # Fitted here already: what the sandbox cannot be sent need not cross either.
    outcomes = [
        (answer.reason, answer.message.encode())
        if isinstance(answer, QueryFailure)
        else (None, answer.encode())
        for answer in fitted(answers)
    ]
    fields: dict[str, Json] = {
        "number": number,
        "is_cancelled": False,
        "answers": [[reason, len(text)] for reason, text in outcomes],
    }
    return fields, b"".join(text for _, text in outcomes)


def read_answers(fields: Fields, body: memoryview) -> list[QueryAnswer] | None:
    """Returns what `answer_parts` was given, as far as it fits in one message.

    Raises:
        FrameError: They are not its parts.
    """
    if fields.flag("is_cancelled"):
        return None
    outcomes = fields.items("answers", most=len(body) + 2**20)
    reasons, sizes = [], []
    for outcome in outcomes:
        if not isinstance(outcome, list) or len(outcome) != 2:  # noqa: PLR2004 # as written above
            raise FrameError("an answer is a reason and a size")
        reasons.append(outcome[0])
        sizes.append(outcome[1])
    texts = split_texts(body, sizes, "the answers of a query")
    return [
        text if reason is None else QueryFailure(reason=QueryFailureReason(reason), message=text)
        for reason, text in zip(reasons, texts, strict=True)
    ]
