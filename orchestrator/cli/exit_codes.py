"""Says what the exit code of every end is, in one place.

Without it scripts could not tell a refused key from a full disk, and each command would number
its failures in its own way.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from orchestrator.errors import (
    BudgetExhaustedError,
    InputError,
    ModelError,
    ProtocolViolationError,
    RlmSandboxError,
    SandboxLostError,
    SandboxStartError,
    SessionCancelledError,
    SettingsError,
)

if TYPE_CHECKING:  # `rlm --help` shows the codes, and a quarter of its time would go into this
    from orchestrator.domain import FinishReason


class ExitCode(IntEnum):
    """What a command ends with. The numbers are part of the interface and do not change."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    NO_FINAL_ANSWER = 3
    NOT_STARTED = 4
    MODEL_FAILED = 5
    SANDBOX_LOST = 6
    INTERRUPTED = 130  # 128 + SIGINT, as shells number it
    TERMINATED = 143  # 128 + SIGTERM


#: Shown by `rlm --help`.
EXIT_CODES_HELP = """\
Exit codes: 0 answered, or done. 1 a cell failed (exec), a check failed (doctor), a row was not
measured (bench), or unexpected. 2 bad input or usage. 3 ended without a final answer: a limit was
reached, the draft is printed. 4 settings, engine or image: nothing was run. 5 the model refused or
was unavailable. 6 the sandbox was lost or broke its contract. 130 interrupted. 143 terminated."""


_BY_ERROR: tuple[tuple[type[RlmSandboxError], ExitCode], ...] = (
    (InputError, ExitCode.BAD_INPUT),
    (BudgetExhaustedError, ExitCode.NO_FINAL_ANSWER),
    (SettingsError, ExitCode.NOT_STARTED),
    (SandboxStartError, ExitCode.NOT_STARTED),
    (ModelError, ExitCode.MODEL_FAILED),
    (SandboxLostError, ExitCode.SANDBOX_LOST),
    (ProtocolViolationError, ExitCode.SANDBOX_LOST),
    (SessionCancelledError, ExitCode.INTERRUPTED),
)


def exit_code_of_error(error: RlmSandboxError) -> ExitCode:
    """Returns the exit code of a command that ended with `error`."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)


_BY_FINISH = {
    "answered": ExitCode.DONE,
    "turn_limit": ExitCode.NO_FINAL_ANSWER,
    "query_limit": ExitCode.NO_FINAL_ANSWER,
    "time_limit": ExitCode.NO_FINAL_ANSWER,
    "cost_limit": ExitCode.NO_FINAL_ANSWER,
    "token_limit": ExitCode.NO_FINAL_ANSWER,
    "model_limit": ExitCode.NO_FINAL_ANSWER,
    "model_failed": ExitCode.MODEL_FAILED,
    "sandbox_lost": ExitCode.SANDBOX_LOST,
    "cancelled": ExitCode.INTERRUPTED,
    "raised": ExitCode.FAILED,
}


def exit_code_of_run(reason: "FinishReason") -> ExitCode:
    """Returns the exit code of a run that was brought to an end, whichever."""
    return _BY_FINISH[reason]
