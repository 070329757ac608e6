"""What the root model is shown of a cell's result.

Without it one `print(context)` would fill the model's window, and a cell that a limit stopped would
leave the model guessing which of its variables are still there.
"""

from __future__ import annotations

from orchestrator.domain import CellError, CellResult, Outcome, Printed, Variable, VariableState
from orchestrator.engine.prompts.figures import counted
from orchestrator.engine.sendable import sendable

_HEAD_SHARE = 0.75  # beginnings say more than ends; ends hold the total a loop prints last
_STDERR_SHARE = 0.25  # of what is shown: warnings of libraries, mostly
_MESSAGE_CHARS = 2_000
_FRAMES_CHARS = 4_000
_SHOWN_VARIABLES = 30

_STATES = {
    VariableState.KEPT: "Variables are as this cell left them.",
    VariableState.ROLLED_BACK: "Variables are as before this cell.",
    VariableState.LOST: "All variables are gone; `context` is there again. Start over from it.",
}


def cell_report(
    result: CellResult,
    *,
    output_chars: int,
    timeout_s: float,
    is_brief: bool,
    answers_repeats_once: bool,
) -> str:
    """Returns a cell's result as text for the root model.

    Output stays verbatim: whatever a cell can print, the model that wrote the cell may read.

    Args:
        result: What the sandbox reported; untrusted.
        output_chars: How much of the output is shown; the middle of what is longer is left out.
        timeout_s: How long the cell was allowed to run.
        is_brief: Whether frames and variables are left out.
        answers_repeats_once: Whether prompts asked again cost nothing in this run.
    """
    lines = []
    stderr = shown(result.stderr, max_chars=int(output_chars * _STDERR_SHARE))
    stdout = shown(result.stdout, max_chars=max(output_chars - len(stderr), 0))
    if stdout.strip():
        lines.append(stdout.rstrip())
    if stderr.strip():
        lines += ["stderr:", stderr.rstrip()]
    if result.error:
        lines.append(_error_text(result.error, has_frames=not is_brief))
    limit_line = _what_a_limit_did(result, timeout_s=timeout_s)
    if limit_line:
        lines.append(limit_line)
    if answers_repeats_once and result.usage.query_count and result.state is not VariableState.KEPT:
        lines.append(
            f"It had made {counted(result.usage.query_count, 'query')}; asked again, the same "
            "prompts get the same answers, at no cost."
        )
    if not lines:
        lines.append("(nothing was printed; print what you want to see)")
    if result.variables and not is_brief:
        lines.append(f"Variables: {_variables_text(result.variables)}")
    return sendable("\n".join(lines))


def shown(printed: Printed, *, max_chars: int) -> str:
    """Returns both ends of what was printed, with its true length where the middle is missing."""
    if not printed.dropped_bytes and len(printed.head) + len(printed.tail) <= max_chars:
        return printed.head + printed.tail
    head, tail = printed.head, printed.tail
    if not printed.dropped_bytes:
        head, tail = head + tail, head + tail
    head_chars = int(max_chars * _HEAD_SHARE)
    tail_chars = max_chars - head_chars
    shown_tail = tail[-tail_chars:] if tail_chars else ""
    return (
        f"{head[:head_chars]}\n"
        f"... [the middle is left out: {printed.total_bytes:,} bytes were printed in all] ...\n"
        f"{shown_tail}"
    )


def _error_text(error: CellError, *, has_frames: bool) -> str:
    message = _clipped(error.message, max_chars=_MESSAGE_CHARS)
    line = f"{error.type_name}: {message}" if message else error.type_name
    if not (has_frames and error.traceback):
        return line
    # The end of a traceback is where it happened.
    return f"{error.traceback[-_FRAMES_CHARS:].rstrip()}\n{line}"


def _what_a_limit_did(result: CellResult, *, timeout_s: float) -> str:
    match result.outcome:
        case Outcome.SUCCEEDED | Outcome.RAISED:
            return "" if result.state is VariableState.KEPT else _STATES[result.state]
        case Outcome.REJECTED:
            return "Nothing of this cell ran."
        case Outcome.TIMED_OUT:
            stopped = "" if result.error else f"Stopped after {timeout_s:.3g} s. "
            return f"{stopped}{_STATES[result.state]}"
        case Outcome.KILLED:
            killed = "" if result.error else "The cell's interpreter was ended. "
            return f"{killed}{_STATES[result.state]}"
        case Outcome.STOPPED:
            return f"Stopped from outside. {_STATES[result.state]}"


def _variables_text(variables: tuple[Variable, ...]) -> str:
    texts = [
        f"{variable.name} ({variable.type_name}"
        + (")" if variable.size is None else f", {variable.size:,})")
        for variable in variables[:_SHOWN_VARIABLES]
    ]
    rest = len(variables) - _SHOWN_VARIABLES
    return ", ".join(texts) + (f" and {rest} more" if rest > 0 else "")


def _clipped(text: str, *, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]} ..."
