"""What the broker says, as the worker understands it, and any bytes in its place.

Holds: whatever an orchestrator puts into a message, the worker reads the same out of it; any bytes
are a message or no message, and what the worker takes from a message needs no luck.
"""

from __future__ import annotations

import hashlib

from google.protobuf.message import DecodeError
from support.fuzz_data import FuzzData

from orchestrator.broker import wire as broker_wire
from orchestrator.broker.answers import MAX_MESSAGE_BYTES, fitted
from orchestrator.broker.context_pieces import ContextHead
from orchestrator.domain import (
    CellId,
    ContextKind,
    NotedAnswer,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
)
from rlm_sandbox.v1 import sandbox_pb2 as pb
from sandbox_image import wire as worker_wire


def TestOneInput(data: bytes) -> None:
    """Says something as the broker, or takes the bytes for what it said."""
    fuzz = FuzzData(data)
    match fuzz.choice(("raw", "raw_reply", "reply", "context", "cell")):
        case "raw":
            read_message(fuzz.rest())
        case "raw_reply":
            read_reply(fuzz.rest())
        case "reply":
            check_reply([answer_of(fuzz) for _ in range(fuzz.integer(0, 5))])
        case "context":
            check_context(fuzz)
        case "cell":
            source = fuzz.text().encode(errors="replace").decode()
            cell_id = CellId(fuzz.integer(1, 2**63 - 1))
            raw = broker_wire.run_cell(sequence=3, cell_id=cell_id, source=source, timeout_s=0.25)
            said = pb.BrokerMessage.FromString(raw).run_cell
            assert (said.cell_id, said.source) == (cell_id, source)
            assert said.timeout.ToNanoseconds() == 250_000_000


def read_message(raw: bytes) -> None:
    """Takes from any bytes what the worker would take from a message."""
    try:
        message = pb.BrokerMessage.FromString(raw)
    except DecodeError:
        return
    limits = worker_wire.limits_for_repl(message.hello.limits)
    assert limits["policy"] in {"guarded", "open"}
    assert limits["policy"] == "guarded" or message.hello.limits.language_policy == 2


def read_reply(raw: bytes) -> None:
    """Takes from any bytes the answers the worker would hand on."""
    try:
        reply = pb.LlmQueryReply.FromString(raw)
    except DecodeError:
        return
    told = worker_wire.answers(reply)
    assert len(told) == len(reply.answers)
    assert all(set(answer) in ({"text", "notice"}, {"reason", "message"}) for answer in told)


def answer_of(fuzz: FuzzData) -> QueryAnswer:
    """Returns what came of a prompt; some answers are longer than a message."""
    if fuzz.flag():
        reason = fuzz.choice(list(QueryFailureReason))
        return QueryFailure(reason=reason, message=fuzz.text(60))
    text = fuzz.text(60)
    if fuzz.integer(0, 40) == 40:
        text *= 2**16
    notice = fuzz.text(20)
    return NotedAnswer(text=text, notice=notice) if notice else text


def check_reply(answers: list[QueryAnswer]) -> None:
    """Sends answers, and reads what a cell is told of them."""
    raw = broker_wire.query_reply(answers)
    assert len(raw) <= MAX_MESSAGE_BYTES
    told = worker_wire.answers(pb.LlmQueryReply.FromString(raw))
    expected = [told_of(answer) for answer in fitted(answers)]
    assert told == expected
    assert len(told) == len(answers)


def told_of(answer: QueryAnswer) -> dict[str, str]:
    """Returns what a cell is told of an answer."""
    match answer:
        case QueryFailure():
            return {"reason": answer.reason.value, "message": answer.message}
        case NotedAnswer():
            return {"text": answer.text, "notice": answer.notice}
        case _:
            return {"text": answer, "notice": ""}


def check_context(fuzz: FuzzData) -> None:
    """Sends a piece of a context; the digest goes with the last one only."""
    kind, name = fuzz.choice(list(ContextKind)), "context"
    total, data = fuzz.integer(0, 300), fuzz.block(200)
    head = ContextHead(kind=kind, total_bytes=total, sha256_hex=hashlib.sha256(data).hexdigest())
    offset = fuzz.integer(0, 300)
    raw = broker_wire.context_chunk(
        sequence=2, name=name, head=head, offset_bytes=offset, data=data
    )
    said = pb.BrokerMessage.FromString(raw).context_chunk
    assert worker_wire.context_kind(said.kind) == kind.value
    assert (said.name, said.offset_bytes, said.total_bytes) == (name, offset, total)
    assert said.data == data
    raw = broker_wire.context_file(sequence=2, name=name, head=head)
    file = pb.BrokerMessage.FromString(raw).context_file
    assert worker_wire.context_kind(file.kind) == kind.value
    assert (file.name, file.total_bytes) == (name, total)
    assert bool(said.sha256) == (offset + len(data) == total)
