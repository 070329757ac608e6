"""Tries on one sandbox of this host whether its limits bite.

Without it `rlm doctor` would repeat what an engine claims: engines accept limits that their kernel
ignores, and say so in a warning that nobody reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from orchestrator.app.battery import open_runner
from orchestrator.attacks.attack import Position, Verdict
from orchestrator.attacks.limits import LIMIT_TRIALS
from orchestrator.attacks.settling import AttackResult
from orchestrator.errors import SandboxError
from orchestrator.sandbox.finding import Finding, Status
from orchestrator.settings import Settings

_STATUSES = {
    Verdict.STOPPED: Status.OK,
    Verdict.NOT_STOPPED: Status.FAILED,
    Verdict.KNOWN_LIMIT: Status.WARNING,
    Verdict.NOT_APPLICABLE: Status.WARNING,
    Verdict.UNDECIDED: Status.WARNING,
}
_ADVICE = {
    Status.FAILED: "The engine accepts this limit and the kernel does not keep it: see the finding "
    "`limits`, and run no sandbox here until it holds.",
    Status.WARNING: "It was not seen to bite. Run `rlm doctor` again when the host is less busy.",
}


async def try_limits(settings: Settings) -> tuple[Finding, ...]:
    """Starts a sandbox as the settings make them, and takes more of everything than it may have.

    Returns:
        A finding for the start, and one for each limit. Where no sandbox starts, that alone.
    """
    started_s = time.monotonic()
    try:
        async with open_runner(settings, sink=lambda _result: None) as runner:
            results = await runner.run_in_one_cell(LIMIT_TRIALS)
            controls = runner.grounds[Position.CELL].controls
    except SandboxError as error:
        return (
            Finding(
                name="sandbox",
                status=Status.FAILED,
                found=str(error),
                expected=_EXPECTED_START,
                advice="Correct what the other findings say, and try again.",
            ),
        )
    runtime = "" if controls is None else f" under {controls.container.runtime}"
    took_s = time.monotonic() - started_s - sum(result.took_s for result in results)
    started = Finding(
        name="sandbox",
        status=Status.OK,
        found=f"started{runtime} and destroyed in {took_s:.1f} s; every wall found as promised",
        expected=_EXPECTED_START,
    )
    return (started, *_judge(results))


_EXPECTED_START = "starts, and its worker finds every wall as promised"


def _judge(results: Sequence[AttackResult]) -> Iterator[Finding]:
    for result in results:
        status = _STATUSES[result.verdict]
        yield Finding(
            name=f"trial-{result.attack.attack_id}",
            status=status,
            found=result.why,
            expected=f"stopped: {result.attack.title}",
            advice=_ADVICE.get(status, ""),
        )
