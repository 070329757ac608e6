"""What the REPL process gives up before the first cell, in order, and what it then finds.

Without it the process that runs cells would keep whatever its container allows, and reach the
worker, which has the same user. It is a guard rail: the container's walls hold without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from sandbox_image.repl import landlock, system_call_filter
from sandbox_image.repl.channel import JsonObject
from sandbox_image.repl.refused_calls import open_calls, refused_calls
from sandbox_image.repl.system_calls import make_system_call, this_machine

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38  # prctl(2)


class Confinement(NamedTuple):
    """What holds of the REPL process, as it finds by trying.

    Attributes:
        open_calls: What should be refused and is not; empty where all is well.
        seccomp_mode: From /proc/self/status; None where the kernel does not say.
        is_inspectable: Whether others of its user may look into it.
        landlock_abi: The version of Landlock in force, 0 where there is none.
    """

    open_calls: tuple[str, ...]
    seccomp_mode: int | None
    is_inspectable: bool
    landlock_abi: int

    def as_json(self) -> JsonObject:
        """Returns it for the channel."""
        return self._asdict()

    @classmethod
    def from_json(cls, claim: JsonObject) -> Confinement:
        """Reads it from the channel."""
        return cls(**{**claim, "open_calls": tuple(claim["open_calls"])})


def confine(*, worker_pid: int, hidden: Path) -> Confinement:
    """Gives up what no cell needs, for this process and all that come from it.

    To be called once everything the process needs is open, while it has one thread.

    Args:
        worker_pid: The worker's number.
        hidden: The directory of the worker's socket.

    Returns:
        What is left open, found by trying.

    Raises:
        OSError: The kernel has a wall and refused to put it up.
    """
    # Promised by the engine too; without it the kernel takes neither of the two below.
    _control(_PR_SET_NO_NEW_PRIVS, 1)
    # A session of its own: no terminal, and no group that the worker is in.
    os.setsid()
    forbid_inspection()
    landlock_abi = landlock.restrict_files(hidden)
    refused = refused_calls(worker_pid)
    # Last: it refuses what the lines above do.
    machine = this_machine()
    rules = [call.rule for call in refused]
    system_call_filter.install(system_call_filter.assemble(rules, machine), machine)
    return Confinement(
        open_calls=open_calls(refused, machine),
        seccomp_mode=_seccomp_mode(),
        is_inspectable=_control(_PR_GET_DUMPABLE, 0) != 0,
        landlock_abi=landlock_abi,
    )


def forbid_inspection() -> None:
    """Closes this process's memory and descriptors to all but itself, and all that come from it.

    Nobody traces it, and a crash is written down by nobody: not even a handler in `core_pattern`,
    which does not ask for the limit on core files, is started then (core(5)).
    """
    _control(_PR_SET_DUMPABLE, 0)


def _control(option: int, value: int) -> int:
    result, error = make_system_call(this_machine().numbers["prctl"], option, value, 0, 0, 0)
    if result < 0:
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")
    return result


def _seccomp_mode() -> int | None:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Seccomp:"):
                return int(line.split(":")[1])
    return None
