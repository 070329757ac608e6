"""What the broker says, from values to bytes.

Without it generated classes would spread through the orchestrator, and each change of the contract
with them. The way back, from a worker's bytes to values, is `claims`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

from orchestrator.broker.answers import fitted
from orchestrator.broker.context_pieces import ContextHead
from orchestrator.domain import (
    CellId,
    ContextKind,
    LanguagePolicy,
    NotedAnswer,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    RunOffer,
)
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

#: The one version of the contract this orchestrator speaks.
VERSION = 1

#: What a worker is told of the limits; made here, and opaque elsewhere.
Limits: TypeAlias = pb.Limits

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["SandboxBroker"].full_name
TOKEN_KEY = "rlm-session-token"  # noqa: S105 # the name of the metadata entry, not a token

_POLICIES = {
    LanguagePolicy.GUARDED: pb.LANGUAGE_POLICY_GUARDED,
    LanguagePolicy.OPEN: pb.LANGUAGE_POLICY_OPEN,
}
_KINDS = {
    ContextKind.TEXT: pb.CONTEXT_KIND_TEXT,
    ContextKind.JSON: pb.CONTEXT_KIND_JSON,
    ContextKind.MESSAGES: pb.CONTEXT_KIND_MESSAGES,
    ContextKind.DOCUMENTS: pb.CONTEXT_KIND_DOCUMENTS,
    ContextKind.TEXTS: pb.CONTEXT_KIND_TEXTS,
}
_REASONS = {
    QueryFailureReason.BUDGET_EXHAUSTED: pb.QueryError.REASON_BUDGET_EXHAUSTED,
    QueryFailureReason.TOO_DEEP: pb.QueryError.REASON_TOO_DEEP,
    QueryFailureReason.TOO_LARGE: pb.QueryError.REASON_TOO_LARGE,
    QueryFailureReason.TOO_MANY: pb.QueryError.REASON_TOO_MANY,
    QueryFailureReason.MODEL_FAILED: pb.QueryError.REASON_MODEL_FAILED,
    QueryFailureReason.MODEL_REFUSED: pb.QueryError.REASON_MODEL_REFUSED,
    QueryFailureReason.CANCELLED: pb.QueryError.REASON_CANCELLED,
    QueryFailureReason.TOOL_FAILED: pb.QueryError.REASON_TOOL_FAILED,
}


def limits_of(
    *,
    cell: CellLimits,
    run: QueryLimits,
    sandbox: SandboxLimits,
    language_policy: LanguagePolicy,
) -> Limits:
    """Returns the limits as a worker is told them."""
    return pb.Limits(
        output_bytes=cell.output_bytes,
        answer_bytes=cell.answer_bytes,
        prompt_chars=run.prompt_chars,
        batch_prompt_count=run.batch_prompts,
        open_query_count=run.concurrent_queries,
        grace=_duration(cell.grace_s),
        memory_bytes=sandbox.memory_bytes,
        language_policy=_POLICIES[language_policy],
        child_context_bytes=run.child_context_bytes,
    )


def hello(*, sequence: int, limits: Limits) -> bytes:
    """Returns a `BrokerHello`."""
    said = pb.BrokerHello(version=VERSION, limits=limits)
    return pb.BrokerMessage(sequence=sequence, hello=said).SerializeToString()


def context_chunk(
    *, sequence: int, name: str, head: ContextHead, offset_bytes: int, data: bytes
) -> bytes:
    """Returns a `ContextChunk`, with the digest if it is the last."""
    is_last = offset_bytes + len(data) == head.total_bytes
    chunk = pb.ContextChunk(
        name=name,
        kind=_KINDS[head.kind],
        offset_bytes=offset_bytes,
        total_bytes=head.total_bytes,
        data=data,
        sha256=bytes.fromhex(head.sha256_hex) if is_last else b"",
        aliases=() if offset_bytes else head.aliases,
    )
    return pb.BrokerMessage(sequence=sequence, context_chunk=chunk).SerializeToString()


def context_file(*, sequence: int, name: str, head: ContextHead) -> bytes:
    """Returns a `ContextFile`."""
    file = pb.ContextFile(
        name=name,
        kind=_KINDS[head.kind],
        total_bytes=head.total_bytes,
        aliases=head.aliases,
    )
    return pb.BrokerMessage(sequence=sequence, context_file=file).SerializeToString()


def begin_run(*, sequence: int, offer: RunOffer) -> bytes:
    """Returns a `BeginRun`."""
    tools = [
        pb.Tool(name=tool.name, signature=tool.signature, description=tool.description)
        for tool in offer.tools
    ]
    begin = pb.BeginRun(tools=tools)
    return pb.BrokerMessage(sequence=sequence, begin_run=begin).SerializeToString()


def run_cell(*, sequence: int, cell_id: CellId, source: str, timeout_s: float) -> bytes:
    """Returns a `RunCell`."""
    cell = pb.RunCell(cell_id=cell_id, source=source, timeout=_duration(timeout_s))
    return pb.BrokerMessage(sequence=sequence, run_cell=cell).SerializeToString()


def stop_cell(*, sequence: int, cell_id: CellId, is_timeout: bool) -> bytes:
    """Returns a `StopCell` for a timeout or for a caller's cancellation."""
    reason = pb.STOP_REASON_TIMEOUT if is_timeout else pb.STOP_REASON_CANCELLED
    stop = pb.StopCell(cell_id=cell_id, reason=reason)
    return pb.BrokerMessage(sequence=sequence, stop_cell=stop).SerializeToString()


def shutdown(*, sequence: int) -> bytes:
    """Returns a `Shutdown`."""
    return pb.BrokerMessage(sequence=sequence, shutdown=pb.Shutdown()).SerializeToString()


def query_reply(answers: Sequence[QueryAnswer]) -> bytes:
    """Returns an `LlmQueryReply` that fits in one message; see `fitted`."""
    reply = pb.LlmQueryReply()
    for answer in fitted(answers):
        told = reply.answers.add()
        if isinstance(answer, QueryFailure):
            told.error.reason = _REASONS[answer.reason]
            told.error.message = answer.message
        elif isinstance(answer, NotedAnswer):
            told.text, told.notice = answer.text, answer.notice
        else:
            told.text = answer
    return reply.SerializeToString()


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
