"""Runs the killers of every mutant, each in a process of its own, and says who survived.

A fork is cheap where a new interpreter is not: everything is imported once, before the first
mutant, and no test has run yet, so that gRPC has started nothing that would not survive the fork.

    python -m support.mutation_run [--only TEXT] [--json]     # in tests/
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from support.docker_sandboxes import engine_and_image
from support.mutants import MUTANTS, Config, Mutant

from orchestrator.sandbox.spec import container_config

_SECURITY = Path(__file__).parents[1] / "security"
_QUIET = ("-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "-rfE")
_OPTIONS = (*_QUIET, "-m", "not gvisor")
_AT_ONCE = 2
_USED_BY_THE_PRODUCT = "orchestrator.sandbox.docker_backend.container_config"
_TAIL_CHARS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        mutant: Its name.
        is_killed: Whether a test missed the flag.
        killer: The test that did, and how it said so; empty for a survivor.
        output: The end of what pytest printed, for a survivor; empty for the killed.
        wall_s: How long it took to find out.
    """

    mutant: str
    is_killed: bool
    killer: str
    output: str
    wall_s: float


def run_mutants(mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """Runs each mutant's killers, a few at once; yields a verdict as each is known."""
    engine_and_image()
    waiting, running = list(mutants), dict[int, tuple[Mutant, Path, float]]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                mutant = waiting.pop(0)
                output = Path(folder) / str(len(waiting))
                running[_start(mutant, output)] = (mutant, output, time.monotonic())
            pid, status = os.wait()
            mutant, output, started_s = running.pop(pid)
            yield _judge(
                mutant,
                exit_code=os.waitstatus_to_exitcode(status),
                output=output.read_text("utf-8", errors="replace"),
                wall_s=time.monotonic() - started_s,
            )


def _start(mutant: Mutant, output: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    exit_code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        with (
            output.open("w", encoding="utf-8") as file,
            redirect_stdout(file),
            redirect_stderr(file),
        ):
            exit_code = int(_test(mutant))
    finally:
        os._exit(exit_code)


def _test(mutant: Mutant) -> int:
    """Runs the killers with the one definition of a sandbox changed."""

    def define_mutant(*arguments: object, **keywords: object) -> Config:
        config = container_config(*arguments, **keywords)  # type: ignore[arg-type]  # handed through
        mutant.change(config)
        return config

    with patch(_USED_BY_THE_PRODUCT, define_mutant):
        return pytest.main([*_OPTIONS, *(str(_SECURITY / name) for name in mutant.killers)])


def _judge(mutant: Mutant, *, exit_code: int, output: str, wall_s: float) -> Verdict:
    # Anything but "tests failed" is no verdict: a killer that is not there kills nothing.
    is_killed = exit_code == pytest.ExitCode.TESTS_FAILED
    said = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return Verdict(
        mutant=mutant.name,
        is_killed=is_killed,
        killer=said[0] if is_killed and said else "",
        output="" if is_killed else output[-_TAIL_CHARS:],
        wall_s=round(wall_s, 1),
    )


def main() -> int:
    """Prints a line for each mutant, or one JSON object for each; 1 where any survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    survivors = 0
    for verdict in run_mutants(chosen):
        survivors += not verdict.is_killed
        if arguments.json:
            line = json.dumps(asdict(verdict))
        else:
            fate = "killed" if verdict.is_killed else "SURVIVED"
            line = f"{fate:8} {verdict.mutant} ({verdict.wall_s} s) {verdict.killer}"
            line += f"\n{verdict.output}" if verdict.output else ""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
