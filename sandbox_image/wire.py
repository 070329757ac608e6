"""The contract's messages <-> what the worker works with. Generated classes stop here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from rlm_sandbox.v1 import sandbox_pb2 as pb
from sandbox_image.repl.channel import BadFrameError, JsonObject
from sandbox_image.walls import FoundWalls

#: The versions of the contract this worker speaks.
MIN_VERSION = 1
MAX_VERSION = 1
#: Largest piece of output in one message, as the contract has it.
OUTPUT_PIECE_BYTES = 64 * 1024
#: Largest message, as the contract has it.
MAX_MESSAGE_BYTES = 4 * 2**20
#: Of it for prompts, or for a result: the rest is what other fields and the framing take.
_ROOM_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
_MAX_TEXT_CHARS = 16 * 1024
_MAX_ALIAS_CHARS = 64
_MAX_SCHEMA_CHARS = 20_000
_SCHEMA_BYTES = 4 * _MAX_SCHEMA_CHARS
_MAX_PART_LENGTHS = 100
_MAX_CALLS = 64  # as the contract has it; one is one too many already

_OUTCOMES = {
    "succeeded": pb.OUTCOME_SUCCEEDED,
    "raised": pb.OUTCOME_RAISED,
    "rejected": pb.OUTCOME_REJECTED,
    "timed_out": pb.OUTCOME_TIMED_OUT,
    "killed": pb.OUTCOME_KILLED,
    "stopped": pb.OUTCOME_STOPPED,
}
_STATES = {
    "kept": pb.VARIABLE_STATE_KEPT,
    "rolled_back": pb.VARIABLE_STATE_ROLLED_BACK,
    "lost": pb.VARIABLE_STATE_LOST,
}
_KINDS = {
    pb.CONTEXT_KIND_TEXT: "text",
    pb.CONTEXT_KIND_JSON: "json",
    pb.CONTEXT_KIND_MESSAGES: "messages",
    pb.CONTEXT_KIND_DOCUMENTS: "documents",
    pb.CONTEXT_KIND_TEXTS: "texts",
}
_REASONS = {
    pb.QueryError.REASON_BUDGET_EXHAUSTED: "budget_exhausted",
    pb.QueryError.REASON_TOO_DEEP: "too_deep",
    pb.QueryError.REASON_TOO_LARGE: "too_large",
    pb.QueryError.REASON_TOO_MANY: "too_many",
    pb.QueryError.REASON_MODEL_REFUSED: "model_refused",
    pb.QueryError.REASON_CANCELLED: "cancelled",
    pb.QueryError.REASON_TOOL_FAILED: "tool_failed",
}
_CONTEXT_KINDS = {word: kind for kind, word in _KINDS.items()}


def hello(walls: FoundWalls, *, image_release: str) -> pb.WorkerHello:
    """Says what this worker speaks and what walls it found."""
    return pb.WorkerHello(
        min_version=MIN_VERSION,
        max_version=MAX_VERSION,
        image_release=image_release[:100],
        walls=pb.Walls(
            seccomp_mode=walls.seccomp_mode,
            has_no_new_privileges=walls.has_no_new_privileges,
            effective_capabilities=walls.effective_capabilities,
            bounding_capabilities=walls.bounding_capabilities,
            network_interfaces=walls.network_interfaces,
            uid=walls.uid,
            gid=walls.gid,
            supplementary_gids=walls.supplementary_gids,
            is_root_read_only=walls.is_root_read_only,
            kernel_release=walls.kernel_release,
            open_calls=_calls(walls.open_calls),
            repl_open_calls=_calls(walls.repl_open_calls),
            repl_seccomp_mode=walls.repl_seccomp_mode,
            is_repl_inspectable=walls.is_repl_inspectable,
            landlock_abi=walls.landlock_abi,
            ceilings=[pb.Ceiling(name=name, most=most) for name, most in walls.ceilings.items()],
            scratch_options=walls.scratch_options,
        ),
    )


def limits_for_repl(limits: pb.Limits) -> JsonObject:
    """Returns what the REPL process is told of the limits."""
    is_open = limits.language_policy == pb.LANGUAGE_POLICY_OPEN
    return {
        "policy": "open" if is_open else "guarded",
        "answer_bytes": limits.answer_bytes,
        "prompt_chars": limits.prompt_chars,
        "batch_prompt_count": limits.batch_prompt_count,
        "memory_bytes": limits.memory_bytes,
        "child_context_bytes": limits.child_context_bytes,
    }


def tools_for_repl(begin: pb.BeginRun) -> JsonObject:
    """Returns what the REPL process is told of a run that begins."""
    return {
        "tools": [
            {"name": tool.name, "signature": tool.signature, "description": tool.description}
            for tool in begin.tools
        ]
    }


def context_kind(kind: int) -> str:
    """Returns the REPL process's word for a kind of context; an unknown kind is a KeyError."""
    return _KINDS[kind]  # type: ignore[index]  # protobuf hands an open enum out as an int


def cell_result(  # noqa: PLR0913 - one argument for each part of the message
    *,
    cell_id: int,
    outcome: str,
    state: str,
    error: JsonObject | None,
    report: JsonObject,
    dropped_bytes: Mapping[pb.OutputStream.ValueType, int],
    usage: pb.CellUsage,
) -> pb.CellResult:
    """Makes a cell's result from what the REPL process reported, which may be anything.

    Raises:
        BadFrameError: The report is not of the form the REPL process uses.
    """
    try:
        result = pb.CellResult(
            cell_id=cell_id,
            outcome=_OUTCOMES[outcome],
            state=_STATES[state],
            answer=pb.Answer(
                content=report.get("content", ""), is_ready=bool(report.get("is_ready"))
            ),
            dropped_stdout_bytes=dropped_bytes[pb.OUTPUT_STREAM_STDOUT],
            dropped_stderr_bytes=dropped_bytes[pb.OUTPUT_STREAM_STDERR],
            usage=usage,
            variables=[
                pb.Variable(name=entry["name"], type_name=entry["type"], size=entry["size"])
                for entry in report.get("variables", ())
            ],
        )
        if error is not None:
            result.error.type_name = error["type_name"][:200]
            result.error.message = error["message"][:_MAX_TEXT_CHARS]
            result.error.traceback = error["traceback"][:_MAX_TEXT_CHARS]
    except (TypeError, ValueError, KeyError, AttributeError) as failure:
        raise BadFrameError("a result of another form") from failure
    # What the broker would take for an attack is told apart here: it costs the cell that forged
    # it, and not the session.
    if any(variable.size < 0 for variable in result.variables):
        raise BadFrameError("a variable of a negative size")
    if result.ByteSize() > _ROOM_BYTES:
        raise BadFrameError("a result larger than a message")
    return result


def cell_usage(
    *, wall_s: float, cpu_s: float, peak_memory_bytes: int, query_count: int
) -> pb.CellUsage:
    """Makes the usage of a cell."""
    return pb.CellUsage(
        wall=_duration(wall_s),
        cpu=_duration(cpu_s),
        peak_memory_bytes=peak_memory_bytes,
        query_count=query_count,
    )


class Request(NamedTuple):
    """One `LlmQueryRequest`, and the parts of a context that have to arrive before it."""

    message: pb.LlmQueryRequest
    prompt_count: int
    parts: list[pb.LlmQueryRequest]


def query_requests(claim: JsonObject, *, query_id: str, cell_id: int) -> list[Request]:
    """Cuts one call of a cell into requests that each fit one message.

    Raises:
        BadFrameError: The claim is not of the form the REPL process uses.
    """
    prompts, contexts = claim.get("prompts"), claim.get("contexts")
    if not (isinstance(prompts, list) and prompts and all(isinstance(p, str) for p in prompts)):
        raise BadFrameError("a query without prompts")
    common = {"cell_id": cell_id, **_common_fields(claim)}
    try:
        if claim.get("kind") == "child_run":
            shapes = claim.get("shapes")
            if not isinstance(shapes, list) or not isinstance(contexts, list):
                raise BadFrameError("child runs without contexts")
            return [
                _child_request(common, f"{query_id}-{index}", prompt, shape, text)
                for index, (prompt, shape, text) in enumerate(
                    zip(prompts, shapes, contexts, strict=True)
                )
            ]
        return [
            Request(
                message=pb.LlmQueryRequest(query_id=f"{query_id}-{index}", prompts=group, **common),
                prompt_count=len(group),
                parts=[],
            )
            for index, group in enumerate(_groups(prompts))
        ]
    except (TypeError, ValueError, KeyError, AttributeError) as failure:
        raise BadFrameError("a query that is not text") from failure


def _common_fields(claim: JsonObject) -> JsonObject:
    alias, tool, schema = claim.get("model"), claim.get("tool", ""), claim.get("schema", "")
    if not (alias is None or (isinstance(alias, str) and len(alias) <= _MAX_ALIAS_CHARS)):
        raise BadFrameError("a query whose model is not a name")
    if not (isinstance(tool, str) and len(tool) <= _MAX_ALIAS_CHARS):
        raise BadFrameError("a query whose tool is not a name")
    if not (isinstance(schema, str) and len(schema) <= _MAX_SCHEMA_CHARS):
        raise BadFrameError("a query whose schema is too long")
    if (claim.get("kind") == "tool") != bool(tool):
        raise BadFrameError("a tool without a name")
    if claim.get("kind") == "child_run" and schema:
        raise BadFrameError("a child run with a schema")
    return {"model_alias": alias or "", "tool_name": tool, "json_schema": schema}


def _groups(prompts: list[str]) -> list[list[str]]:
    """Divides prompts so that those of a group fit one message."""
    groups: list[list[str]] = [[]]
    room_bytes = _ROOM_BYTES - _SCHEMA_BYTES
    for prompt in prompts:
        size_bytes = len(prompt.encode(errors="replace")) + 8
        if size_bytes > room_bytes and groups[-1]:
            groups.append([])
            room_bytes = _ROOM_BYTES - _SCHEMA_BYTES
        groups[-1].append(prompt)
        room_bytes -= size_bytes
    return groups


def _child_request(
    common: JsonObject, query_id: str, prompt: str, shape: JsonObject, text: str
) -> Request:
    """Makes the request of one child run, its context in parts where it does not fit."""
    data = text.encode(errors="replace")
    context = pb.ChildContext(
        kind=_CONTEXT_KINDS[shape["kind"]],
        total_chars=shape["total_chars"],
        part_lengths=shape["part_lengths"][:_MAX_PART_LENGTHS],
    )
    parts: list[pb.LlmQueryRequest] = []
    if len(data) + len(prompt.encode(errors="replace")) <= _ROOM_BYTES:
        context.data = data
    else:
        context.context_id = query_id
        parts = [
            pb.LlmQueryRequest(
                query_id=f"{query_id}-{number}",
                cell_id=common["cell_id"],
                context_part=pb.ContextPart(
                    context_id=query_id,
                    offset_bytes=offset,
                    data=data[offset : offset + _ROOM_BYTES],
                ),
            )
            for number, offset in enumerate(range(0, len(data), _ROOM_BYTES))
        ]
    message = pb.LlmQueryRequest(
        query_id=query_id, prompts=[prompt], recurse=True, child_context=context, **common
    )
    return Request(message=message, prompt_count=1, parts=parts)


def answers(reply: pb.LlmQueryReply) -> list[JsonObject]:
    """Returns what the REPL process is told of the answers to one request."""
    return [
        {"text": answer.text, "notice": answer.notice}
        if answer.WhichOneof("outcome") == "text"
        else failed_answer(_REASONS.get(answer.error.reason, "model_failed"), answer.error.message)
        for answer in reply.answers
    ]


def failed_answer(reason: str, message: str) -> JsonObject:
    """Returns what the REPL process is told of a prompt that got no answer."""
    return {"reason": reason, "message": message}


def _calls(names: tuple[str, ...] | None) -> pb.CallNames | None:
    return None if names is None else pb.CallNames(names=names[:_MAX_CALLS])


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(max(int(seconds * 1e9), 0))
    return duration
