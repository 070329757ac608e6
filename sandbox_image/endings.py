"""Why a cell's process ended, in words for the root model.

What became of the variables is not said here: the result's state says it, and the orchestrator puts
it into words.
"""

from __future__ import annotations

import os
import signal
from functools import cache

from sandbox_image.repl.channel import JsonObject

#: Where the kernel counts the processes it killed for memory in this container: cgroup v2, then v1.
_MEMORY_EVENTS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)
_EVENTS_BYTES = 4096  # half a dozen names and numbers


@cache
def _memory_events() -> int | None:
    """Opens the file the kernel counts in, once; `None` where there is none."""
    for path in _MEMORY_EVENTS:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def memory_kill_count() -> int:
    """Returns how often the kernel has killed for memory here; 0 where it does not say."""
    descriptor = _memory_events()
    if descriptor is None:
        return 0
    for line in os.pread(descriptor, _EVENTS_BYTES, 0).splitlines():
        name, _, count = line.partition(b" ")
        if name == b"oom_kill" and count.isdigit():
            return int(count)
    return 0


def timed_out(timeout_s: float) -> JsonObject:
    """Says that a cell's clock ran out."""
    return _error(
        "TimeoutError",
        f"the cell was stopped after {timeout_s:g} s of its own time; work on less text in one "
        "cell, or in smaller steps",
    )


def stopped() -> JsonObject:
    """Says that the caller ended the cell."""
    return _error("Stopped", "the cell was stopped by the caller")


def died(status: int, *, was_memory: bool, memory_bytes: int) -> JsonObject:
    """Says how the interpreter ended, from its wait status (wait(2))."""
    if was_memory:
        return _error(
            "MemoryError",
            f"the cell needed more memory than the sandbox has ({memory_bytes / 2**20:,.0f} MiB) "
            "and its interpreter was killed; work on smaller pieces",
        )
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        return _error(
            "InterpreterExit",
            f"the cell ended its interpreter (exit status {code}); do not call os._exit, "
            "a cell ends by itself",
        )
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return _error("InterpreterKilled", f"the cell's interpreter was ended by {name}")


def broke_form(reason: str) -> JsonObject:
    """Says that what the interpreter sent made no sense."""
    return _error(
        "InterpreterKilled",
        "the cell's interpreter was ended because it wrote to the platform's own channel "
        f"({reason})",
    )


def _error(type_name: str, message: str) -> JsonObject:
    return {"type_name": type_name, "message": message, "traceback": ""}
