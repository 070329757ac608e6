"""Runs cells that say what they found, and sees whether a session goes on after one.

Without it each attack would bring its own way to report, and "the session survived" would mean
something else in each file.
"""

from __future__ import annotations

import json
from typing import Any

from support.runtimes import RUNC, under_test

from orchestrator.domain import CellResult, Outcome
from orchestrator.ports import OutputSink, Sandbox

#: How long a cell of a test may run. Most take milliseconds; it is rarely used up.
PATIENCE_S = 20.0

#: What every probe finds: `tell` reports one value, `attempt` turns a refusal into its name.
PRELUDE = """
import errno, json, os, signal, socket, sys, time

def tell(value):
    print(json.dumps(value))

def attempt(call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"

def others():
    "Every process that runs here but this one and the worker."
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (1, os.getpid()):
            try:
                state = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0]
            except OSError:  # it has just ended
                continue
            if state != "Z":
                found.append(int(name))
    return found
"""


async def run(
    sandbox: Sandbox,
    source: str,
    *,
    timeout_s: float = PATIENCE_S,
    on_output: OutputSink | None = None,
) -> CellResult:
    """Runs a cell after the prelude."""
    # A fixture of a module that does not ask for `runtime` would outlive the change to the next.
    assert (sandbox.runtime != RUNC.setting) is under_test().is_gvisor
    return await sandbox.run_cell(PRELUDE + source, timeout_s=timeout_s, on_output=on_output)


async def probe(sandbox: Sandbox, source: str, *, timeout_s: float = PATIENCE_S) -> Any:  # noqa: ANN401 - JSON
    """Runs a cell that tells one value, and returns the value."""
    result = await run(sandbox, source, timeout_s=timeout_s)
    assert result.outcome is Outcome.SUCCEEDED, result
    return json.loads(str(result.stdout))


async def goes_on(sandbox: Sandbox) -> bool:
    """Whether the sandbox still runs cells, keeps what they bind, and has queries answered."""
    await run(sandbox, "sign = 'of life'")
    told = await probe(sandbox, "tell([sign, llm_query('any?')])")
    return bool(told == ["of life", "echo: any?"])
