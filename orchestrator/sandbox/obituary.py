"""Writes down why a container stopped, for the operator.

Without it a lost sandbox is "connection closed". What the container logged is untrusted: it is
bounded, stripped of everything a terminal acts on, and marked as a quotation.
"""

from collections.abc import Mapping
from typing import Any

LOG_LINES = 10
_LINE_CHARS = 300


def write_obituary(state: Mapping[str, Any], log: bytes, *, memory_bytes: int) -> str:
    """Returns one sentence, and the last log lines where there are any.

    Args:
        state: `State` of the engine's record of the container.
        log: The end of what it logged; untrusted.
        memory_bytes: What it was allowed.
    """
    sentence = _describe(state, memory_bytes)
    lines = clean_lines(log)
    return "\n".join([sentence, *(f"  | {line}" for line in lines)])


def clean_lines(log: bytes) -> list[str]:
    """Returns the last lines of a log, without control, format and line-separator characters.

    `str.isprintable` is false for all of Unicode's categories Other and Separator but the space:
    terminal sequences, NUL, bidirectional overrides and U+2028 go.
    """
    lines = log.decode("utf-8", errors="replace").split("\n")
    cleaned = ("".join(filter(str.isprintable, line)).strip() for line in lines)
    return [line[:_LINE_CHARS] for line in cleaned if line][-LOG_LINES:]


def _describe(state: Mapping[str, Any], memory_bytes: int) -> str:
    if state.get("Running"):
        return "The container is still running."
    exit_code = state.get("ExitCode", 0)
    if state.get("OOMKilled"):
        limit_mib = f"{memory_bytes / 2**20:,.0f} MiB"
        cause = f"the kernel ended it for want of memory (limit {limit_mib}; --memory raises it)"
    elif exit_code > 128:  # noqa: PLR2004 - a shell's way to say which signal, which engines keep
        cause = f"it was ended by signal {exit_code - 128}"
    else:
        cause = "it ended by itself"
    engine_words = f" The engine says: {state['Error']}" if state.get("Error") else ""
    return f"The container stopped with exit code {exit_code}: {cause}.{engine_words}"
