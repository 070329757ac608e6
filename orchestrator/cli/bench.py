"""`rlm bench`: measures on this machine what performance is promised, against floors and peers."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from orchestrator.bench.catalogue import BENCHMARKS, select
from orchestrator.bench.report import Row
from orchestrator.bench.running import BenchOptions, run_benchmarks
from orchestrator.cli.bench_tables import print_report, row_line
from orchestrator.cli.ending import SignalledError, run_until_signal
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from orchestrator.cli.logs import logs_to
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import RuntimeOption, parts_of, read_settings
from orchestrator.cli.progress import say

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
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
    runtime: RuntimeOption = None,
) -> None:
    """Measure this machine: what a cell, a query and a sandbox cost, against a floor or a peer.

    Each is measured in the same run, by turns. Ends with 0 if every row was measured, whatever was
    found, and with 1 if one could not be.
    """
    settings = read_settings(ctx, {"runtime": runtime})
    benchmarks = select(only or ())
    options = BenchOptions(is_quick=quick, with_peers=peers)

    def tell(row: Row) -> None:
        say(row_line(row))

    work = run_benchmarks(
        benchmarks,
        settings,
        options=options,
        open_sandboxes=parts_of(ctx).open_sandboxes,
        say=say,
        on_row=tell,
    )
    try:
        with logs_to(say):
            report = run_until_signal(work, note=say)
    except SignalledError as error:
        raise typer.Exit(error.exit_code) from error
    if as_json:
        sys.stdout.write(f"{json.dumps(report.to_json(), indent=2)}\n")
    else:
        print_report(report, stream=sys.stdout)
    raise typer.Exit(ExitCode.DONE if report.is_complete else ExitCode.FAILED)
