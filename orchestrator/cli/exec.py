"""`rlm exec`: files as cells of one fresh sandbox, without a root model.

What a cell can do and cannot do is seen with it: one line a cell, whatever became of the cell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.app import EndedCell, Parts, open_orchestrator
from orchestrator.cli.context_source import ContextShape, read_context, read_source
from orchestrator.cli.ending import run_until_signal
from orchestrator.cli.event_lines import describe_result
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from orchestrator.cli.logs import logs_to
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import (
    MemoryOption,
    PolicyOption,
    RuntimeOption,
    TimeoutOption,
    parts_of,
    read_settings,
)
from orchestrator.cli.progress import say
from orchestrator.cli.sanitize import for_terminal
from orchestrator.domain import CellResult, EncodedContext, Outcome
from orchestrator.settings import Settings

_MAX_FILE_BYTES = 64 * 2**20  # a cell that is too large is the sandbox's to reject; a disk is not
_ECHO = "echo"

command = new_command()


@command.command("exec", epilog=EXIT_CODES_HELP)
def run_files(  # noqa: PLR0913, PLR0917 - a command line's options
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Python files, a cell each.")],
    context: Annotated[
        str | None,
        typer.Option(metavar="FILE|DIR|-", help="Bound to `context` in the sandbox."),
    ] = None,
    policy: PolicyOption = None,
    runtime: RuntimeOption = None,
    memory: MemoryOption = None,
    timeout: TimeoutOption = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Answers the cells' queries.")] = _ECHO,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """Run FILEs as cells of one fresh sandbox, each whatever became of the ones before.

    Prints one JSON object a line per cell, except to a terminal. A cell that kills its sandbox has
    its line too; the next file then runs in a fresh sandbox.
    """
    settings = read_settings(
        ctx,
        {
            "sub_model": model,
            "policy": policy,
            "runtime": runtime,
            "sandbox": {"memory_bytes": memory},
            "cell": {"wall_s": timeout},
        },
    )
    sources = [read_source(path, max_bytes=_MAX_FILE_BYTES) for path in files]
    value = None
    if context is not None:
        found = read_context(
            context,
            encoding="utf-8",
            shape=ContextShape.TEXT,
            max_bytes=settings.max_context_bytes,
            stdin=sys.stdin.buffer,
        )
        for note in found.notes:
            say(note)
        value = found.value
    is_json = as_json or not sys.stdout.isatty()
    outcomes: list[Outcome] = []

    def tell(ended: EndedCell) -> None:
        outcomes.append(ended.result.outcome)
        write = _write_json if is_json else _write_text
        write(files[ended.index], ended.result)
        if ended.is_sandbox_lost and ended.index + 1 < len(files):
            say(f"The sandbox died with {files[ended.index]}; what follows has a fresh one.")

    with logs_to(say):
        run_until_signal(_execute(sources, value, settings, parts_of(ctx), tell), note=say)
    is_clean = all(outcome is Outcome.SUCCEEDED for outcome in outcomes)
    raise typer.Exit(ExitCode.DONE if is_clean else ExitCode.FAILED)


async def _execute(
    sources: Sequence[str],
    context: EncodedContext | None,
    settings: Settings,
    parts: Parts,
    on_ended: Callable[[EndedCell], None],
) -> None:
    settings = settings.for_one_call
    async with open_orchestrator(settings, report=say, roles=("sub",), parts=parts) as orchestrator:
        await orchestrator.run_cells(sources, context=context, on_ended=on_ended)


def _write_json(path: Path, result: CellResult) -> None:
    sys.stdout.write(f"{json.dumps(_as_json(path, result))}\n")
    sys.stdout.flush()


def _as_json(path: Path, result: CellResult) -> dict[str, Any]:
    error = result.error
    return {
        "file": str(path),
        "outcome": result.outcome,
        "stdout": str(result.stdout),
        "stderr": str(result.stderr),
        "stdout_bytes": result.stdout.total_bytes,
        "stderr_bytes": result.stderr.total_bytes,
        "error": None
        if error is None
        else {"type": error.type_name, "message": error.message, "traceback": error.traceback},
        "answer": {"content": result.answer.content, "ready": result.answer.is_ready},
        "variables": [
            {"name": variable.name, "type": variable.type_name, "size": variable.size}
            for variable in result.variables
        ],
        "usage": asdict(result.usage),
        "state": result.state,
    }


def _write_text(path: Path, result: CellResult) -> None:
    error = result.error
    parts = [f"{path}: {describe_result(result)}", str(result.stdout), str(result.stderr)]
    if error is not None:
        parts.append(error.traceback or f"{error.type_name}: {error.message}")
    if result.answer.is_ready:
        parts.append(f"answer: {result.answer.content}")
    text = "\n".join(part.rstrip("\n") for part in parts if part)
    sys.stdout.write(f"{for_terminal(text)}\n")
    sys.stdout.flush()
