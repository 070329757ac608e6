"""`rlm bench`: measures on this machine what performance is promised, against floors and peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TextIO, TypeVar

import typer

from orchestrator.bench.catalogue import BENCHMARKS, select
from orchestrator.bench.report import Row
from orchestrator.bench.running import BenchOptions, run_benchmarks
from orchestrator.bench.scale import ScaleOptions, measure_scale
from orchestrator.cli.bench_tables import print_report, print_scale, row_line
from orchestrator.cli.ending import SignalledError, run_until_signal
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from orchestrator.cli.logs import logs_to
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import RuntimeOption, parse_seconds, parts_of, read_settings
from orchestrator.cli.progress import say
from orchestrator.domain import Json

_T = TypeVar("_T")

command = new_command()


@command.command("bench", epilog=EXIT_CODES_HELP)
def bench(  # noqa: PLR0913, PLR0917 - a command line's options
    ctx: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this row alone; can be given again. "
            f"There are: {', '.join(one.name for one in BENCHMARKS)}.",
        ),
    ] = None,
    peers: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool,
        typer.Option(
            "--peers",
            help="Install other implementations, each in an environment of its own, and measure "
            "them by turns with this one.",
        ),
    ] = False,
    quick: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--quick", help="Take few turns: a minute or two, and wider ranges.")
    ] = False,
    scale: Annotated[  # noqa: FBT002 - likewise
        bool,
        typer.Option(
            "--scale", help="Measure instead what many sessions at a time get, in a curve."
        ),
    ] = False,
    sessions: Annotated[
        int, typer.Option(min=1, max=2000, metavar="N", help="With --scale: up to so many.")
    ] = 200,
    busy: Annotated[
        int,
        typer.Option(
            min=1, max=2000, metavar="N", help="With --scale: so many at most run cells at a time."
        ),
    ] = 50,
    seconds: Annotated[
        float,
        typer.Option(
            parser=parse_seconds, metavar="S", help="With --scale: how long each step is looked at."
        ),
    ] = 5.0,
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
    runtime: RuntimeOption = None,
) -> None:
    """Measure this machine: what a cell, a query and a sandbox cost, against a floor or a peer.

    Each is measured in the same run, by turns. Ends with 0 if every row was measured, whatever was
    found, and with 1 if one could not be.
    """
    settings = read_settings(ctx, {"runtime": runtime}).for_one_call
    open_sandboxes = parts_of(ctx).open_sandboxes
    if scale:
        curve = ScaleOptions(session_count=sessions, busy_count=busy, window_s=seconds)
        found = _run(measure_scale(settings, curve, open_sandboxes=open_sandboxes, say=say))
        _write(found.to_json(), as_json=as_json, print_text=partial(print_scale, found))
        raise typer.Exit(ExitCode.DONE if found.is_complete else ExitCode.FAILED)
    benchmarks = select(only or ())
    options = BenchOptions(is_quick=quick, with_peers=peers)

    def tell(row: Row) -> None:
        say(row_line(row))

    report = _run(
        run_benchmarks(
            benchmarks,
            settings,
            options=options,
            open_sandboxes=open_sandboxes,
            say=say,
            on_row=tell,
        )
    )
    _write(report.to_json(), as_json=as_json, print_text=partial(print_report, report))
    raise typer.Exit(ExitCode.DONE if report.is_complete else ExitCode.FAILED)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        with logs_to(say):
            return run_until_signal(work, note=say)
    except SignalledError as error:
        raise typer.Exit(error.exit_code) from error


def _write(report: dict[str, Json], *, as_json: bool, print_text: Callable[[TextIO], None]) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps(report, indent=2)}\n")
    else:
        print_text(sys.stdout)
