"""What a worker says, from bytes to checked values.

Without it untrusted messages would reach the rest of the orchestrator in the shape a worker chose.
Every field is a claim: bounded or refused here, by the figures of `sandbox.proto`. Text is cut to
its bound, because a cell can cause an overlong one; anything else out of bounds is a violation.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from orchestrator.domain import (
    CellError,
    CellUsage,
    ContextKind,
    Draft,
    Outcome,
    OutputStream,
    QueryId,
    QueryKind,
    Variable,
    VariableState,
    Walls,
)
from orchestrator.errors import ProtocolViolationError
from rlm_sandbox.v1 import sandbox_pb2 as pb

_MAX_NAME_CHARS = 200
_MAX_ERROR_BYTES = 8 * 2**10
_MAX_TRACEBACK_BYTES = 16 * 2**10
_MAX_VARIABLES = 200
_MAX_LIST_ITEMS = 64
_MAX_WALL_NAME_CHARS = 64
_MAX_CALLS = 64
_MAX_CALL_CHARS = 64
_MAX_IMAGE_RELEASE_CHARS = 100
_MAX_KERNEL_RELEASE_CHARS = 200
_MAX_ALIAS_CHARS = 64
_MAX_PART_LENGTHS = 100
#: As the contract has it; a longer schema would take more of a prompt than its text.
MAX_SCHEMA_CHARS = 20_000
#: Tags, lengths and numbers of one `CellOutput` beside its data; what is more was not asked for.
_MAX_OUTPUT_OVERHEAD_BYTES = 128
#: A year: longer than any sandbox lives, and small enough for arithmetic.
_MAX_DURATION_S = 365 * 86400.0
_QUERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

_OUTCOMES = {
    pb.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    pb.OUTCOME_RAISED: Outcome.RAISED,
    pb.OUTCOME_REJECTED: Outcome.REJECTED,
    pb.OUTCOME_TIMED_OUT: Outcome.TIMED_OUT,
    pb.OUTCOME_KILLED: Outcome.KILLED,
    pb.OUTCOME_STOPPED: Outcome.STOPPED,
}
_STATES = {
    pb.VARIABLE_STATE_KEPT: VariableState.KEPT,
    pb.VARIABLE_STATE_ROLLED_BACK: VariableState.ROLLED_BACK,
    pb.VARIABLE_STATE_LOST: VariableState.LOST,
}
_CONTEXT_KINDS = {
    pb.CONTEXT_KIND_TEXT: ContextKind.TEXT,
    pb.CONTEXT_KIND_JSON: ContextKind.JSON,
    pb.CONTEXT_KIND_MESSAGES: ContextKind.MESSAGES,
    pb.CONTEXT_KIND_DOCUMENTS: ContextKind.DOCUMENTS,
    pb.CONTEXT_KIND_TEXTS: ContextKind.TEXTS,
}
_STREAMS = {
    pb.OUTPUT_STREAM_STDOUT: OutputStream.STDOUT,
    pb.OUTPUT_STREAM_STDERR: OutputStream.STDERR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedHello:
    """A `WorkerHello`."""

    min_version: int
    max_version: int
    image_release: str
    kernel_release: str
    walls: Walls


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedOutput:
    """A `CellOutput`; whether it is for the running cell is for `order.WorkerSide` to say."""

    cell_id: int
    stream: OutputStream
    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedResult:
    """A `CellResult`; what it printed is counted by the broker itself."""

    cell_id: int
    outcome: Outcome
    state: VariableState
    error: CellError | None
    answer: Draft
    variables: tuple[Variable, ...]
    usage: CellUsage
    dropped_stdout_bytes: int
    dropped_stderr_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedOpening:
    """A `ContextOpened`."""


Claim: TypeAlias = ClaimedHello | ClaimedOutput | ClaimedResult | ClaimedOpening


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedContext:
    """A `ChildContext`. Its lengths are the worker's word, and shown to a model only.

    Attributes:
        data: All of it, where it came with its query.
        context_id: The parts that came before; empty where `data` is all of it.
    """

    kind: ContextKind
    total_chars: int
    part_lengths: tuple[int, ...]
    data: bytes
    context_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedPart:
    """A `ContextPart`, with the query that brought it."""

    query_id: QueryId
    cell_id: int
    context_id: str
    offset_bytes: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedQuery:
    """An `LlmQueryRequest`; the limits an honest program can exceed are not checked yet."""

    query_id: QueryId
    cell_id: int
    prompts: tuple[str, ...]
    model_alias: str
    kind: QueryKind
    json_schema: str
    tool_name: str
    child_context: ClaimedContext | None


def read_worker_message(raw: bytes, *, answer_bytes: int) -> tuple[int, Claim]:
    """Returns the sequence number a message claims, and what it says.

    Args:
        raw: The message as it came.
        answer_bytes: `Limits.answer_bytes`; a longer answer is cut.

    Raises:
        ProtocolViolationError: It is no `WorkerMessage`, or a field is out of its bounds.
    """
    try:
        message = pb.WorkerMessage.FromString(raw)
    except DecodeError:
        raise ProtocolViolationError("a message is a WorkerMessage") from None
    payload = message.WhichOneof("payload")
    if payload == "cell_output":
        if len(raw) > len(message.cell_output.data) + _MAX_OUTPUT_OVERHEAD_BYTES:
            raise ProtocolViolationError("output carries nothing but its own fields")
        return message.sequence, _read_output(message.cell_output)
    if payload == "cell_result":
        return message.sequence, _read_result(message.cell_result, answer_bytes=answer_bytes)
    if payload == "hello":
        return message.sequence, _read_hello(message.hello)
    if payload == "context_opened":
        return message.sequence, ClaimedOpening()
    raise ProtocolViolationError("a message has one payload that version 1 knows")


def read_query(raw: bytes) -> ClaimedQuery | ClaimedPart:
    """Returns what a worker asks.

    Raises:
        ProtocolViolationError: It is no `LlmQueryRequest`, or a field that no program in a cell can
            set is out of its bounds.
    """
    try:
        request = pb.LlmQueryRequest.FromString(raw)
    except DecodeError:
        raise ProtocolViolationError("a query is an LlmQueryRequest") from None
    _require_id(request.query_id, "a query id")
    if request.cell_id <= 0:
        raise ProtocolViolationError(f"cell ids are positive: a query of cell {request.cell_id}")
    if request.HasField("context_part"):
        return _read_part(request)
    _require_form(request)
    return ClaimedQuery(
        query_id=QueryId(request.query_id),
        cell_id=request.cell_id,
        prompts=tuple(request.prompts),
        kind=_kind_of(request),
        model_alias=request.model_alias,
        json_schema=request.json_schema,
        tool_name=request.tool_name,
        child_context=_read_context(request.child_context) if request.recurse else None,
    )


def _require_form(request: pb.LlmQueryRequest) -> None:
    """Refuses a query that no program in a cell can have caused."""
    if not request.prompts:
        raise ProtocolViolationError("a query has at least one prompt")
    names = {"a model alias": request.model_alias, "a tool's name": request.tool_name}
    for what, name in names.items():
        if len(name) > _MAX_ALIAS_CHARS:
            raise ProtocolViolationError(f"{what} has at most {_MAX_ALIAS_CHARS} characters")
    if len(request.json_schema) > MAX_SCHEMA_CHARS:
        raise ProtocolViolationError(f"a schema has at most {MAX_SCHEMA_CHARS:,} characters")
    if request.recurse and request.tool_name:
        raise ProtocolViolationError("a query is for a child run or for a tool")
    if request.recurse != request.HasField("child_context"):
        raise ProtocolViolationError("a child run, and nothing else, has a context")
    if request.recurse and len(request.prompts) != 1:
        raise ProtocolViolationError("a child run has one prompt")


def _kind_of(request: pb.LlmQueryRequest) -> QueryKind:
    if request.recurse:
        return QueryKind.CHILD_RUN
    return QueryKind.TOOL if request.tool_name else QueryKind.PLAIN


def _read_part(request: pb.LlmQueryRequest) -> ClaimedPart:
    part = request.context_part
    _require_id(part.context_id, "a context id")
    if request.prompts or request.recurse or request.tool_name or request.json_schema:
        raise ProtocolViolationError("a part of a context comes alone")
    if not part.data:
        raise ProtocolViolationError("a part of a context is not empty")
    return ClaimedPart(
        query_id=QueryId(request.query_id),
        cell_id=request.cell_id,
        context_id=part.context_id,
        offset_bytes=_size(part.offset_bytes, "an offset"),
        data=part.data,
    )


def _read_context(context: pb.ChildContext) -> ClaimedContext:
    kind = _CONTEXT_KINDS.get(context.kind)
    if kind is None:
        raise ProtocolViolationError(f"a context is of a kind that is known, not {context.kind}")
    if context.context_id:
        _require_id(context.context_id, "a context id")
        if context.data:
            raise ProtocolViolationError("a context comes with its query or before it")
    if len(context.part_lengths) > _MAX_PART_LENGTHS:
        raise ProtocolViolationError(f"a context states at most {_MAX_PART_LENGTHS} lengths")
    return ClaimedContext(
        kind=kind,
        total_chars=_size(context.total_chars, "a length"),
        part_lengths=tuple(_size(length, "a length") for length in context.part_lengths),
        data=context.data,
        context_id=context.context_id,
    )


def _require_id(claimed: str, what: str) -> None:
    if not _QUERY_ID.fullmatch(claimed):
        raise ProtocolViolationError(f"{what} is 1 to 64 of [A-Za-z0-9_-]")


def _read_hello(hello: pb.WorkerHello) -> ClaimedHello:
    if not 1 <= hello.min_version <= hello.max_version:
        raise ProtocolViolationError(
            f"versions count from 1 and the highest is not below the lowest:"
            f" {hello.min_version} to {hello.max_version}"
        )
    if not hello.HasField("walls"):
        raise ProtocolViolationError("hello says what walls were found")
    return ClaimedHello(
        min_version=hello.min_version,
        max_version=hello.max_version,
        image_release=hello.image_release[:_MAX_IMAGE_RELEASE_CHARS],
        kernel_release=hello.walls.kernel_release[:_MAX_KERNEL_RELEASE_CHARS],
        walls=_read_walls(hello.walls),
    )


def _read_walls(walls: pb.Walls) -> Walls:
    lists = (
        walls.network_interfaces,
        walls.supplementary_gids,
        walls.ceilings,
        walls.scratch_options,
    )
    if any(len(items) > _MAX_LIST_ITEMS for items in lists):
        raise ProtocolViolationError(f"walls list at most {_MAX_LIST_ITEMS} of each")
    names = (
        *walls.network_interfaces,
        *walls.scratch_options,
        *(ceiling.name for ceiling in walls.ceilings),
    )
    if any(len(name) > _MAX_WALL_NAME_CHARS for name in names):
        raise ProtocolViolationError(f"what walls name is under {_MAX_WALL_NAME_CHARS} letters")
    has = walls.HasField
    return Walls(
        seccomp_mode=walls.seccomp_mode if has("seccomp_mode") else None,
        has_no_new_privileges=(
            walls.has_no_new_privileges if has("has_no_new_privileges") else None
        ),
        effective_capabilities=(
            walls.effective_capabilities if has("effective_capabilities") else None
        ),
        bounding_capabilities=walls.bounding_capabilities if has("bounding_capabilities") else None,
        network_interfaces=frozenset(walls.network_interfaces),
        uid=walls.uid if has("uid") else None,
        gid=walls.gid if has("gid") else None,
        supplementary_gids=frozenset(walls.supplementary_gids),
        is_root_read_only=walls.is_root_read_only if has("is_root_read_only") else None,
        open_calls=_read_calls(walls.open_calls) if has("open_calls") else None,
        repl_open_calls=_read_calls(walls.repl_open_calls) if has("repl_open_calls") else None,
        repl_seccomp_mode=walls.repl_seccomp_mode if has("repl_seccomp_mode") else None,
        is_repl_inspectable=walls.is_repl_inspectable if has("is_repl_inspectable") else None,
        # The broker runs on the host: an engine elsewhere is refused before anything is started.
        is_host_kernel=walls.kernel_release == platform.release() if walls.kernel_release else None,
        landlock_abi=walls.landlock_abi if has("landlock_abi") else None,
        ceilings={ceiling.name: ceiling.most for ceiling in walls.ceilings},
        scratch_options=frozenset(walls.scratch_options),
    )


def _read_calls(calls: pb.CallNames) -> frozenset[str]:
    if len(calls.names) > _MAX_CALLS or any(len(name) > _MAX_CALL_CHARS for name in calls.names):
        raise ProtocolViolationError(
            f"walls list at most {_MAX_CALLS} calls of at most {_MAX_CALL_CHARS} characters"
        )
    return frozenset(calls.names)


def _read_output(output: pb.CellOutput) -> ClaimedOutput:
    stream = _STREAMS.get(output.stream)
    if stream is None:
        raise ProtocolViolationError(f"output is of a stream that is known, not {output.stream}")
    return ClaimedOutput(
        cell_id=output.cell_id,
        stream=stream,
        offset_bytes=_size(output.offset_bytes, "an offset"),
        data=output.data,
    )


def _read_result(result: pb.CellResult, *, answer_bytes: int) -> ClaimedResult:
    if result.outcome == pb.OUTCOME_UNSPECIFIED:
        raise ProtocolViolationError("a result has an outcome")
    state = _STATES.get(result.state)
    if state is None:
        raise ProtocolViolationError(f"a result has a state that is known, not {result.state}")
    if not result.HasField("answer") or not result.HasField("usage"):
        raise ProtocolViolationError("a result has an answer and a usage")
    outcome = _OUTCOMES.get(result.outcome, Outcome.KILLED)
    return ClaimedResult(
        cell_id=result.cell_id,
        outcome=outcome,
        state=state,
        error=None if outcome is Outcome.SUCCEEDED else _read_error(result.error),
        answer=Draft(
            content=_cut(result.answer.content, answer_bytes), is_ready=result.answer.is_ready
        ),
        variables=_read_variables(result),
        usage=_read_usage(result.usage),
        dropped_stdout_bytes=_size(result.dropped_stdout_bytes, "dropped output"),
        dropped_stderr_bytes=_size(result.dropped_stderr_bytes, "dropped output"),
    )


def _read_error(error: pb.CellError) -> CellError:
    return CellError(
        type_name=error.type_name[:_MAX_NAME_CHARS] or "Error",
        message=_cut(error.message, _MAX_ERROR_BYTES),
        traceback=_cut(error.traceback, _MAX_TRACEBACK_BYTES),
    )


def _read_variables(result: pb.CellResult) -> tuple[Variable, ...]:
    return tuple(
        Variable(
            name=variable.name,
            type_name=variable.type_name[:_MAX_NAME_CHARS],
            size=_size(variable.size, "a variable") if variable.HasField("size") else None,
        )
        for variable in result.variables[:_MAX_VARIABLES]
        # `globals()["a b"] = 1` is a cell's right, and no name a root model could use.
        if len(variable.name) <= _MAX_NAME_CHARS and variable.name.isidentifier()
    )


def _read_usage(usage: pb.CellUsage) -> CellUsage:
    return CellUsage(
        wall_s=_seconds(usage.wall),
        cpu_s=_seconds(usage.cpu),
        peak_memory_bytes=_size(usage.peak_memory_bytes, "memory"),
        query_count=_size(usage.query_count, "a number of queries"),
    )


def _seconds(duration: Duration) -> float:
    seconds: float = duration.seconds + duration.nanos / 1e9
    if seconds < 0:
        raise ProtocolViolationError("durations are not negative")
    return min(seconds, _MAX_DURATION_S)


def _size(claimed: int, what: str) -> int:
    if claimed < 0:
        raise ProtocolViolationError(f"sizes are not negative: {what} of {claimed}")
    return claimed


def _cut(text: str, max_bytes: int) -> str:
    """Returns the first characters that fit in `max_bytes` of UTF-8."""
    if len(text) * 4 <= max_bytes:
        return text
    return text.encode()[:max_bytes].decode(errors="ignore")
