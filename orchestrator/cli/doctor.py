"""`rlm doctor`: what this host has and lacks for a sealed sandbox, and what attacks come to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from orchestrator.app.battery import attack_host
from orchestrator.app.host import examine_host, release
from orchestrator.app.trial import try_limits
from orchestrator.attacks.battery import BATTERY
from orchestrator.attacks.report import Report
from orchestrator.attacks.settling import AttackResult
from orchestrator.cli.doctor_tables import print_attacks, print_findings
from orchestrator.cli.ending import SignalledError, run_until_signal
from orchestrator.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from orchestrator.cli.logs import logs_to
from orchestrator.cli.new_command import JsonOption, new_command
from orchestrator.cli.options import RuntimeOption, read_settings
from orchestrator.cli.progress import say
from orchestrator.domain import Json
from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.finding import Finding, Status
from orchestrator.settings import Settings

#: Goes up when a reader of the old version could misread the JSON of the new one.
DOCTOR_VERSION: Final = 1

_NEEDED_FOR_A_TRIAL = frozenset({"engine", "image"})

command = new_command()


@command.command("doctor", epilog=EXIT_CODES_HELP)
def doctor(
    ctx: typer.Context,
    attack: Annotated[  # noqa: FBT002 - an option has its name beside it
        bool,
        typer.Option(
            "--attack", help="Attack sandboxes of this host, and say what stopped each attack."
        ),
    ] = False,
    quick: Annotated[  # noqa: FBT002 - likewise
        bool, typer.Option("--quick", help="Look only: start no sandbox to try its limits.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - likewise
    runtime: RuntimeOption = None,
) -> None:
    """Check this host for what a sandbox needs.

    Looks at the engine, the image and the kernel, and takes more of everything in one sandbox than
    it may have. Changes nothing. Ends with 0 if sandboxes can be started here and their limits
    hold, with 1 if not; with --attack also with 1 if any attack was not stopped.
    """
    settings = read_settings(ctx, {"runtime": runtime})
    made_at = datetime.now(UTC)
    findings = examine_host(settings)
    report: Report | None = None
    try:
        if attack:
            # What the product warns of meanwhile is what is being done to it.
            with logs_to(lambda _sentence: None):
                report = run_until_signal(_attack(settings), note=say)
        elif not quick and _can_be_tried(findings):
            with logs_to(say):
                findings += run_until_signal(try_limits(settings), note=say)
    except SignalledError as error:
        raise typer.Exit(error.exit_code) from error
    is_ready = all(finding.status is not Status.FAILED for finding in findings)
    if as_json:
        text = json.dumps(_to_json(findings, report, made_at=made_at, is_ready=is_ready), indent=2)
        sys.stdout.write(f"{text}\n")
    else:
        print_findings(findings, stream=sys.stdout)
        if report is not None:
            print_attacks(report, stream=sys.stdout)
    is_sealed = report is None or report.is_sealed
    raise typer.Exit(ExitCode.DONE if is_ready and is_sealed else ExitCode.FAILED)


def _can_be_tried(findings: Sequence[Finding]) -> bool:
    return all(
        finding.status is not Status.FAILED
        for finding in findings
        if finding.name in _NEEDED_FOR_A_TRIAL
    )


async def _attack(settings: Settings) -> Report:
    """Runs the battery; a host on which no sandbox can be had is a report that says so."""
    total = sum(len(one.positions) for one in BATTERY)
    results: list[AttackResult] = []

    def tell(result: AttackResult) -> None:
        results.append(result)
        say(
            f"{len(results)}/{total} {result.verdict}: {result.attack.attack_id}"
            f" from the {result.position}"
        )

    started_s = time.monotonic()
    try:
        return await attack_host(settings, BATTERY, sink=tell)
    except SandboxStartError as error:
        return Report(
            results=(),
            grounds={},
            problem=f"no sandbox could be had to attack: {error}",
            took_s=time.monotonic() - started_s,
        )


def _to_json(
    findings: Sequence[Finding], report: Report | None, *, made_at: datetime, is_ready: bool
) -> dict[str, Json]:
    host: dict[str, Json] = {
        "version": DOCTOR_VERSION,
        "made_at": made_at.isoformat(timespec="seconds"),
        "release": release(),
        "is_ready": is_ready,
        "findings": [
            {
                "id": finding.name,
                "status": finding.status.value,
                "found": finding.found,
                "expected": finding.expected,
                "advice": finding.advice,
            }
            for finding in findings
        ],
    }
    return host if report is None else {**host, "attack_report": report.to_json()}
