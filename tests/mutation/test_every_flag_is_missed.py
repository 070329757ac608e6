"""Takes the hardening flags out of the one definition of a sandbox, one at a time.

Without it a flag could be lost and nobody told. `make mutants` prints the same as a report.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.mutants import MUTANTS, NOT_WALLS, Mutant

from orchestrator.domain import SandboxId
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.spec import Runtime, SandboxSpec, container_config

TESTS = Path(__file__).parents[1]
#: Four seconds each where the machine is not shared; all of them run at the first test's expense.
PATIENCE_S = 900.0


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, Any]]:
    """What became of each mutant, by its name."""
    command = (sys.executable, "-m", "support.mutation_run", "--json")
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=TESTS, timeout=PATIENCE_S
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(MUTANTS), done.stderr
    return {line["mutant"]: line for line in lines}


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_missing_flag_fails_a_test(mutant: Mutant, verdicts: dict[str, dict[str, Any]]) -> None:
    """Of the tests that are to miss a flag, one does."""
    verdict = verdicts[mutant.name]

    assert verdict["is_killed"], verdict["output"]


def test_every_part_of_the_definition_is_mutated_or_no_wall() -> None:
    """What a sandbox is asked for with is taken out by a mutant, or named as what it is for."""
    spec = SandboxSpec(
        image_id="sha256:0",
        limits=SandboxLimits(),
        runtime=Runtime(name="runc", is_gvisor=False),
        cgroup_version=1,
        seccomp_profile="{}",
    )
    config = container_config(
        spec, sandbox_id=SandboxId("a"), socket_directory=Path("/s"), labels={}
    )

    asked_for = set(paths_of(config))
    mutated = {mutant.flag for mutant in MUTANTS}
    assert asked_for - mutated - set(NOT_WALLS) == set()
    assert mutated & set(NOT_WALLS) == set()
    assert (mutated | set(NOT_WALLS)) - asked_for == set()


def paths_of(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        if name == "HostConfig":
            yield from (f"{name}.{part}" for part in value)
        else:
            yield name
