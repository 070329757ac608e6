"""A cell's result, from the broker's process to the orchestrator.

Without it a broker's process that has been taken over could hand the engine a result larger than
any sandbox may send, or one that is none. The bounds are those that the broker itself keeps for
what a worker says; here they hold for the broker.
"""

from __future__ import annotations

from orchestrator.broker_process.fields import (
    Fields,
    FrameError,
    checked_text,
    split_texts,
)
from orchestrator.broker_process.frames import Bounds, Frame
from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    CellUsage,
    Draft,
    Json,
    Outcome,
    Printed,
    Variable,
    VariableState,
)
from orchestrator.limits import CellLimits

_MAX_NAME_CHARS = 200
_MAX_ERROR_BYTES = 8 * 2**10
_MAX_TRACEBACK_BYTES = 16 * 2**10
_MAX_VARIABLES = 200
_MAX_DURATION_S = 365 * 86400.0
#: A byte that is not UTF-8 becomes U+FFFD, which has three.
_DECODED_GROWTH = 3
#: Two names of 200 characters for each of 200 variables, six bytes for a character that JSON has to
#: escape, and the numbers.
_HEADER_BYTES = 768 * 2**10


def result_bounds(limits: CellLimits) -> Bounds:
    """Returns how large a result can be: what its texts may have by the limits of a cell."""
    printed_bytes = 2 * _DECODED_GROWTH * limits.output_bytes
    error_bytes = 4 * _MAX_NAME_CHARS + _MAX_ERROR_BYTES + _MAX_TRACEBACK_BYTES
    return Bounds(
        header_bytes=_HEADER_BYTES,
        body_bytes=printed_bytes + error_bytes + limits.answer_bytes,
    )


def result_parts(result: CellResult) -> tuple[dict[str, Json], bytes]:
    """Returns the fields and the body of a `Said.RESULT`."""
    error = result.error
    texts = [
        text.encode()
        for text in (
            result.stdout.head,
            result.stdout.tail,
            result.stderr.head,
            result.stderr.tail,
            result.answer.content,
            *((error.type_name, error.message, error.traceback) if error else ()),
        )
    ]
    fields: dict[str, Json] = {
        "outcome": result.outcome,
        "state": result.state,
        "sizes": [len(text) for text in texts],
        "stdout": _printed_fields(result.stdout),
        "stderr": _printed_fields(result.stderr),
        "is_ready": result.answer.is_ready,
        "variables": [
            [variable.name, variable.type_name, variable.size] for variable in result.variables
        ],
        "wall_s": result.usage.wall_s,
        "cpu_s": result.usage.cpu_s,
        "peak_memory_bytes": result.usage.peak_memory_bytes,
        "query_count": result.usage.query_count,
    }
    return fields, b"".join(texts)


def read_result(frame: Frame, *, cell_id: CellId, limits: CellLimits) -> CellResult:
    """Returns the result of the cell that runs.

    Raises:
        FrameError: It is none, or something in it is out of its bounds.
    """
    fields = frame.fields
    sizes = fields.items("sizes", most=_TEXT_COUNT_WITH_ERROR)
    if len(sizes) not in {_TEXT_COUNT, _TEXT_COUNT_WITH_ERROR}:
        raise FrameError("a result has five texts, or eight")
    texts = split_texts(frame.body, sizes, "the texts of a result")
    content, *error = texts[4:]
    return CellResult(
        cell_id=cell_id,
        outcome=fields.member("outcome", Outcome),
        state=fields.member("state", VariableState),
        stdout=_read_printed(fields.fields("stdout"), *texts[0:2], limits=limits),
        stderr=_read_printed(fields.fields("stderr"), *texts[2:4], limits=limits),
        error=_read_error(*error) if error else None,
        answer=Draft(
            content=_bounded(content, limits.answer_bytes, "an answer"),
            is_ready=fields.flag("is_ready"),
        ),
        variables=tuple(
            _read_variable(item) for item in fields.items("variables", most=_MAX_VARIABLES)
        ),
        usage=CellUsage(
            wall_s=fields.number("wall_s", most=_MAX_DURATION_S),
            cpu_s=fields.number("cpu_s", most=_MAX_DURATION_S),
            peak_memory_bytes=fields.integer("peak_memory_bytes"),
            query_count=fields.integer("query_count"),
        ),
    )


_TEXT_COUNT = 5
_TEXT_COUNT_WITH_ERROR = 8


def _printed_fields(printed: Printed) -> dict[str, Json]:
    return {"total_bytes": printed.total_bytes, "dropped_bytes": printed.dropped_bytes}


def _read_printed(fields: Fields, head: str, tail: str, *, limits: CellLimits) -> Printed:
    kept_bytes = _DECODED_GROWTH * limits.output_bytes
    _bounded(head + tail, kept_bytes, "what a cell printed")
    return Printed(
        head=head,
        tail=tail,
        total_bytes=fields.integer("total_bytes"),
        dropped_bytes=fields.integer("dropped_bytes"),
    )


def _read_error(type_name: str, message: str, traceback: str) -> CellError:
    return CellError(
        type_name=type_name[:_MAX_NAME_CHARS] or "Error",
        message=_bounded(message, _MAX_ERROR_BYTES, "an error's message"),
        traceback=_bounded(traceback, _MAX_TRACEBACK_BYTES, "a traceback"),
    )


def _read_variable(item: object) -> Variable:
    if not isinstance(item, list) or len(item) != len(Variable.__dataclass_fields__):
        raise FrameError("a variable is a name, a type and a size")
    name, type_name, size = item
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS or not name.isidentifier():
        raise FrameError("a variable's name is an identifier")
    if not isinstance(type_name, str) or len(type_name) > _MAX_NAME_CHARS:
        raise FrameError("a variable's type is a name")
    return Variable(
        name=name,
        type_name=checked_text(type_name, "a variable's type"),
        size=Fields({"size": size}).optional_integer("size"),
    )


def _bounded(text: str, max_bytes: int, what: str) -> str:
    """Returns a text that is within its bound."""
    # The bytes are counted only where the characters cannot tell.
    if len(text) > max_bytes or (len(text) * 4 > max_bytes and len(text.encode()) > max_bytes):
        raise FrameError(f"{what} has at most {max_bytes:,} bytes")
    return text
