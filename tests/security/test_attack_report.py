"""The report that a security reviewer files: `rlm doctor --attack --json` on this very host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from support.broker_host import short_directory
from support.docker_sandboxes import engine_and_image, limits_under_test
from support.runtimes import RuntimeUnderTest

from orchestrator.attacks.battery import BATTERY
from orchestrator.attacks.walls import WALLS, Wall
from orchestrator.cli.exit_codes import ExitCode

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

COMMAND = Path(sys.executable).with_name("rlm")
#: Under gVisor; each is in the threat model.
KNOWN_LIMITS = {"look-into-the-worker from the cell"}
#: Likewise, and not each time: exit code 2 is how its kernel ends by itself.
AT_TIMES = {"fork-bomb from the cell": "The container stopped with exit code 2"}
#: Walls that stand inside a sandbox, or are its worker's: no use where the worker is hostile.
INSIDE = {Wall.REPL_SYSTEM_CALLS, Wall.LANDLOCK, Wall.WORKER, Wall.BROKER}


@dataclass(frozen=True, kw_only=True)
class Filed:
    """One report, and how the command that wrote it ended."""

    exit_code: int
    text: str
    progress: str

    @cached_property
    def value(self) -> dict[str, Any]:
        """The whole report."""
        return dict(json.loads(self.text))

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """What came of each attack."""
        return list(self.value["attack_report"]["attacks"])


@pytest.fixture(scope="module")
def filed(runtime: RuntimeUnderTest) -> Iterator[Filed]:
    engine, _ = engine_and_image()
    with short_directory() as directory:
        ended = subprocess.run(
            (COMMAND, "doctor", "--attack", "--json", "--runtime", runtime.setting),
            env={
                "HOME": str(directory),
                "PATH": "/usr/bin:/usr/sbin:/bin:/sbin",
                "RLM_DOCKER_HOST": engine.endpoint,
                "RLM_RUNTIME_DIRECTORY": str(directory / "r"),
                "RLM_SANDBOX__MEMORY_BYTES": str(limits_under_test().memory_bytes),
                "OPENAI_API_KEY": "sk-canary",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert list((directory / "r/sockets").iterdir()) == []
        yield Filed(exit_code=ended.returncode, text=ended.stdout, progress=ended.stderr)


def test_every_attack_is_stopped(filed: Filed, runtime: RuntimeUnderTest) -> None:
    """From a cell and from the worker's place, under the product's own definition of a sandbox."""
    open_attacks = {
        f"{attack['id']} from the {attack['from']}": f"{attack['verdict']}: {attack['seen']}"
        for attack in filed.attacks
        if attack["verdict"] not in {"stopped", "not applicable"}
    }

    if runtime.is_gvisor:
        for attack, seen in AT_TIMES.items():
            told = open_attacks.pop(attack, f"known limit: {seen}")
            assert told.startswith("known limit: ")
            assert seen in told
    assert open_attacks.keys() == (KNOWN_LIMITS if runtime.is_gvisor else set()), open_attacks
    assert filed.value["attack_report"]["summary"]["is_sealed"] is True
    assert filed.exit_code == ExitCode.DONE


def test_every_attack_is_reported_from_every_position(filed: Filed) -> None:
    """Nothing is left out without a word."""
    expected = {(one.attack_id, position) for one in BATTERY for position in one.positions}

    assert {(attack["id"], attack["from"]) for attack in filed.attacks} == expected
    assert len(filed.attacks) == len(expected)


def test_every_stop_has_its_evidence(filed: Filed) -> None:
    """Who stopped it, what was answered, and the setting that was read back."""
    for attack in filed.attacks:
        if attack["verdict"] == "stopped":
            assert attack["stopped_by"]
            assert all(entry["answers"] and entry["settings"] for entry in attack["stopped_by"])


def test_a_hostile_worker_is_stopped_by_walls_alone(
    filed: Filed, runtime: RuntimeUnderTest
) -> None:
    """What the sandbox does to itself is no wall where the attacker sits in the worker's place."""
    walls = {
        Wall(entry["wall"])
        for attack in filed.attacks
        if attack["from"] == "worker"
        for entry in attack["stopped_by"]
    }

    assert walls & INSIDE == set()
    kernel = Wall.GVISOR if runtime.is_gvisor else Wall.SYSTEM_CALLS
    assert {Wall.NETWORK, kernel, Wall.CAPABILITIES, Wall.READ_ONLY_ROOT} <= walls
    assert all(WALLS[wall].title for wall in walls)


def test_published_scenarios_lead_nowhere(filed: Filed) -> None:
    """Each scenario of SandboxEscapeBench that can arise was tried, and stopped."""
    scenarios = filed.value["attack_report"]["scenarios"]

    assert len(scenarios) == 18
    for scenario in scenarios:
        assert set(scenario["verdicts"]) <= {"stopped"}
        assert scenario["verdicts"] or scenario["findings"] or scenario["note"]


def test_report_holds_what_was_attacked_and_nothing_secret(filed: Filed) -> None:
    """The statement of each sandbox is in it, whole; keys and paths of the host are not."""
    cell = filed.value["attack_report"]["sandboxes"]["cell"]

    assert cell["controls"]["container"]["seccomp_profile"] == "rlm-sandbox"
    assert len(cell["controls_sha256"]) == 64
    assert cell["controls"]["walls"]["uid"] == 10001
    assert "sk-canary" not in filed.text
    assert "/sockets/" not in json.dumps(filed.value["attack_report"])


def test_progress_is_told_apart_from_the_report(filed: Filed) -> None:
    """Standard error says what is being done; standard output is the report and nothing else."""
    assert f"{len(filed.attacks)}/{len(filed.attacks)}" in filed.progress
    assert "Traceback" not in filed.progress
    assert filed.text.startswith("{")
