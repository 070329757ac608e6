"""A cell's result, as the root model is shown it.

Holds: any result is shown; what is shown can be sent to any model and does not grow with what the
cell printed.
"""

from __future__ import annotations

from support.fuzz_data import FuzzData

from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    CellUsage,
    Draft,
    Outcome,
    Printed,
    Variable,
    VariableState,
)
from orchestrator.engine.cell_report import cell_report

OUTPUT_CHARS = 300
#: Message, frames, limits and names of variables, which have bounds of their own.
REST_CHARS = 8_000 + 30 * 450


def TestOneInput(data: bytes) -> None:
    """Shows a result."""
    fuzz = FuzzData(data)
    result = CellResult(
        cell_id=CellId(1),
        outcome=fuzz.choice(list(Outcome)),
        state=fuzz.choice(list(VariableState)),
        stdout=printed_of(fuzz),
        stderr=printed_of(fuzz),
        error=None if fuzz.flag() else error_of(fuzz),
        answer=Draft(content=fuzz.text(), is_ready=fuzz.flag()),
        variables=tuple(
            Variable(name=fuzz.text(200), type_name=fuzz.text(200), size=fuzz.integer(0, 2**63))
            for _ in range(fuzz.integer(0, 4) * fuzz.integer(0, 50))
        ),
        usage=CellUsage(query_count=fuzz.integer(0, 2**40)),
    )
    shown = cell_report(
        result,
        output_chars=OUTPUT_CHARS,
        timeout_s=fuzz.integer(0, 2**20) / 1000,
        is_brief=fuzz.flag(),
        answers_repeats_once=fuzz.flag(),
    )
    assert shown
    assert len(shown) <= OUTPUT_CHARS + REST_CHARS
    assert "\0" not in shown
    shown.encode()


def error_of(fuzz: FuzzData) -> CellError:
    """Returns an error as a cell may have raised it."""
    return CellError(
        type_name=fuzz.text(200) or "Error",  # as the broker has it
        message=fuzz.text() * 99,
        traceback=fuzz.text() * 99,
    )


def printed_of(fuzz: FuzzData) -> Printed:
    """Returns what a cell may have printed."""
    return Printed(
        head=fuzz.text() * fuzz.integer(0, 20),
        tail=fuzz.text() * fuzz.integer(0, 20),
        total_bytes=fuzz.integer(0, 2**40),
        dropped_bytes=fuzz.integer(0, 2**40),
    )
