"""`rlm doctor`: what this host has and lacks for a sealed sandbox."""

import json
import sys
from collections.abc import Sequence

import typer

from orchestrator.app.host import examine_host, release
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.options import JsonOption, new_command, read_settings
from orchestrator.cli.sanitize import for_terminal
from orchestrator.sandbox.posture import Finding, Status

command = new_command()


@command.command("doctor")
def doctor(
    ctx: typer.Context,
    as_json: JsonOption = False,  # noqa: FBT002 - an option has its name beside it
) -> None:
    """Check this host for what a sandbox needs. Changes nothing.

    Ends with 0 if sandboxes can be started here, with 1 if not.
    """
    findings = examine_host(read_settings(ctx))
    is_ready = all(finding.status is not Status.FAILED for finding in findings)
    text = _as_json(findings, is_ready=is_ready) if as_json else _as_text(findings)
    sys.stdout.write(f"{text}\n")
    raise typer.Exit(ExitCode.DONE if is_ready else ExitCode.FAILED)


def _as_json(findings: Sequence[Finding], *, is_ready: bool) -> str:
    return json.dumps(
        {
            "release": release(),
            "is_ready": is_ready,
            "findings": [
                {
                    "name": finding.name,
                    "status": finding.status,
                    "found": finding.found,
                    "advice": finding.advice,
                }
                for finding in findings
            ],
        },
        indent=2,
    )


def _as_text(findings: Sequence[Finding]) -> str:
    lines = []
    for finding in findings:
        found = finding.found.replace("\n", "\n    ")
        lines.append(f"{finding.status:<8} {finding.name}: {found}")
        if finding.advice:
            lines.append(f"    → {finding.advice}")
    return for_terminal("\n".join(lines))
