"""A sandbox's queries and their answers, between the broker's process and the orchestrator.

Without it the one thing a sandbox can ask for would reach the ledger in whatever shape a broker's
process that has been taken over gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.broker.answers import MAX_MESSAGE_BYTES, fitted
from orchestrator.broker.received_context import received_context
from orchestrator.broker_process.fields import Fields, FrameError, checked_integer, split_texts
from orchestrator.broker_process.frames import Bounds, Frame
from orchestrator.domain import (
    CellId,
    ContextKind,
    EncodedContext,
    Json,
    NotedAnswer,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    QueryId,
    QueryKind,
    QueryRequest,
)
from orchestrator.errors import ProtocolViolationError
from orchestrator.limits import QueryLimits

_QUERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MAX_ALIAS_CHARS = 64
_QUERY_ID_CHARS = 64
_MAX_SCHEMA_CHARS = 20_000
_MAX_PART_LENGTHS = 100
#: The digits of a prompt's size, and a comma.
_SIZE_CHARS = 9
#: Names, braces, a query's id and alias; a context's lengths, each of at most 19 digits.
_HEADER_OVERHEAD_BYTES = 1024 + 20 * _MAX_PART_LENGTHS


def query_bounds(limits: QueryLimits) -> Bounds:
    """Returns how large a query can be: its prompts came in one message of the contract."""
    return Bounds(
        header_bytes=_HEADER_OVERHEAD_BYTES + _SIZE_CHARS * limits.batch_prompts,
        body_bytes=MAX_MESSAGE_BYTES + limits.child_context_bytes,
    )


def query_parts(number: int, request: QueryRequest) -> tuple[dict[str, Json], bytes]:
    """Returns the fields and the body of a `Said.QUERY`."""
    texts = [prompt.encode() for prompt in (*request.prompts, request.json_schema)]
    context = request.child_context
    data = b"" if context is None else context.data
    fields: dict[str, Json] = {
        "number": number,
        "query_id": request.query_id,
        "model_alias": request.model_alias,
        "kind": request.kind,
        "tool_name": request.tool_name,
        "sizes": [len(text) for text in texts],
        "context": None
        if context is None
        else {
            "kind": context.kind,
            "total_chars": context.total_chars,
            "part_lengths": list(context.part_lengths),
            "size": len(data),
        },
    }
    return fields, b"".join((*texts, data))


def read_query(frame: Frame, *, cell_id: CellId, limits: QueryLimits) -> QueryRequest:
    """Returns what the cell that runs asks; the limits of one request are enforced.

    Raises:
        FrameError: It is no query, or one that the broker would have refused.
    """
    fields = frame.fields
    query_id = fields.text("query_id", max_chars=_QUERY_ID_CHARS + 1)
    if not _QUERY_ID.fullmatch(query_id):
        raise FrameError("a query id is 1 to 64 of [A-Za-z0-9_-]")
    context_fields = None if fields.is_null("context") else fields.fields("context")
    context_bytes = 0
    if context_fields is not None:
        context_bytes = context_fields.integer("size", most=len(frame.body))
    end = len(frame.body) - context_bytes
    sizes = fields.items("sizes", most=limits.batch_prompts + 1)
    *prompts, schema = split_texts(frame.body[:end], sizes, "the texts of a query") or [""]
    if not prompts:
        raise FrameError("a query has at least one prompt")
    if max(map(len, prompts)) > limits.prompt_chars:
        raise FrameError(f"a prompt has at most {limits.prompt_chars:,} characters")
    if len(schema) > _MAX_SCHEMA_CHARS:
        raise FrameError(f"a schema has at most {_MAX_SCHEMA_CHARS:,} characters")
    alias = None
    if not fields.is_null("model_alias"):
        alias = fields.text("model_alias", max_chars=_MAX_ALIAS_CHARS)
    kind = fields.member("kind", QueryKind)
    if (kind is QueryKind.CHILD_RUN) != (context_fields is not None):
        raise FrameError("a child run, and nothing else, has a context")
    if context_fields is not None and len(prompts) != 1:
        raise FrameError("a child run has one prompt")
    return QueryRequest(
        query_id=QueryId(query_id),
        cell_id=cell_id,
        prompts=tuple(prompts),
        model_alias=alias,
        kind=kind,
        json_schema=schema,
        child_context=None
        if context_fields is None
        else _read_context(context_fields, frame.body[end:], limits=limits),
        tool_name=fields.text("tool_name", max_chars=_MAX_ALIAS_CHARS),
    )


def _read_context(fields: Fields, data: memoryview, *, limits: QueryLimits) -> EncodedContext:
    lengths = fields.items("part_lengths", most=_MAX_PART_LENGTHS)
    if len(data) > limits.child_context_bytes:
        raise FrameError(
            f"a context of a child run has at most {limits.child_context_bytes:,} bytes"
        )
    try:
        return received_context(
            kind=fields.member("kind", ContextKind),
            data=bytes(data),
            total_chars=fields.integer("total_chars"),
            part_lengths=tuple(checked_integer(length, "a length") for length in lengths),
        )
    except ProtocolViolationError as error:
        raise FrameError(error.rule) from None


def answer_parts(
    number: int, answers: Sequence[QueryAnswer] | None
) -> tuple[dict[str, Json], bytes]:
    """Returns the fields and the body of a `Told.ANSWERS`; None for a query that was cancelled."""
    if answers is None:
        return {"number": number, "is_cancelled": True}, b""
    # Fitted here already: what the sandbox cannot be sent need not cross either.
    outcomes = [_outcome_of(answer) for answer in fitted(answers)]
    fields: dict[str, Json] = {
        "number": number,
        "is_cancelled": False,
        "answers": [[reason, notice, len(text)] for reason, notice, text in outcomes],
    }
    return fields, b"".join(text for _, _, text in outcomes)


def _outcome_of(answer: QueryAnswer) -> tuple[str | None, str, bytes]:
    """Returns a failure's reason or None, what is told of an answer, and the text of either."""
    match answer:
        case QueryFailure():
            return answer.reason, "", answer.message.encode()
        case NotedAnswer():
            return None, answer.notice, answer.text.encode()
        case str():
            return None, "", answer.encode()


def read_answers(fields: Fields, body: memoryview) -> list[QueryAnswer] | None:
    """Returns what `answer_parts` was given, as far as it fits in one message.

    Raises:
        FrameError: They are not its parts.
    """
    if fields.flag("is_cancelled"):
        return None
    outcomes = fields.items("answers", most=len(body) + 2**20)
    parts = []
    for outcome in outcomes:
        if not isinstance(outcome, list) or len(outcome) != 3:  # noqa: PLR2004 # as written above
            raise FrameError("an answer is a reason, a notice and a size")
        parts.append(outcome)
    texts = split_texts(body, [size for _, _, size in parts], "the answers of a query")
    return [
        _answer_of(reason, notice, text)
        for (reason, notice, _), text in zip(parts, texts, strict=True)
    ]


def _answer_of(reason: str | None, notice: str, text: str) -> QueryAnswer:
    if reason is not None:
        return QueryFailure(reason=QueryFailureReason(reason), message=text)
    return NotedAnswer(text=text, notice=notice) if notice else text
