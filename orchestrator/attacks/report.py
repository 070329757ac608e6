"""The report of a battery, as a reviewer files it.

Without it what came of the attacks would be lines in a terminal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.attacks.attack import Position, Verdict
from orchestrator.attacks.scenarios import SCENARIOS
from orchestrator.attacks.settling import AttackResult, Grounds
from orchestrator.attacks.walls import WALLS
from orchestrator.domain import Json

#: Goes up when a reader of the old version could misread a report of the new one.
REPORT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a battery.

    Attributes:
        results: Of each attack from each position.
        grounds: What is known of the sandboxes, by position.
        problem: Why the battery ended early; empty where it did not.
        took_s: How long all of it took.
    """

    results: tuple[AttackResult, ...]
    grounds: Mapping[Position, Grounds]
    problem: str
    took_s: float

    def count(self, verdict: Verdict) -> int:
        """Returns how many attacks came to a verdict."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def is_sealed(self) -> bool:
        """Whether every attack was tried, and none got further than the threat model says.

        One that the battery could not decide counts as one that got through.
        """
        open_count = self.count(Verdict.NOT_STOPPED) + self.count(Verdict.UNDECIDED)
        return bool(self.results) and not self.problem and not open_count

    def to_json(self) -> dict[str, Json]:
        """Returns the report; docs/attack-report.md describes each field."""
        return {
            "sandboxes": {
                position.value: _sandbox_json(grounds) for position, grounds in self.grounds.items()
            },
            "attacks": [_result_json(result) for result in self.results],
            "scenarios": _scenarios_json(self.results),
            "summary": {
                "is_sealed": self.is_sealed,
                "stopped": self.count(Verdict.STOPPED),
                "not_stopped": self.count(Verdict.NOT_STOPPED),
                "known_limits": self.count(Verdict.KNOWN_LIMIT),
                "not_applicable": self.count(Verdict.NOT_APPLICABLE),
                "undecided": self.count(Verdict.UNDECIDED),
                "problem": self.problem,
                "took_s": round(self.took_s, 3),
            },
        }


def _sandbox_json(grounds: Grounds) -> Json:
    statement = grounds.statement()
    text = json.dumps(statement, sort_keys=True, separators=(",", ":"))
    return {
        "controls": statement,
        "controls_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "proofs": dict(sorted(grounds.proofs.items())),
    }


def _result_json(result: AttackResult) -> Json:
    attack = result.attack
    return {
        "id": attack.attack_id,
        "title": attack.title,
        "group": attack.group.value,
        "threat": attack.threat,
        "from": result.position.value,
        "verdict": result.verdict.value,
        "seen": result.why,
        "answers": dict(result.answers),
        "stopped_by": [
            {
                "wall": entry.wall.value,
                "title": WALLS[entry.wall].title,
                "is_guard_rail": WALLS[entry.wall].is_guard_rail,
                "answers": list[Json](entry.answers),
                "settings": dict(entry.settings),
                "proof": entry.proof,
                "defined_in": WALLS[entry.wall].source,
            }
            for entry in result.stopped_by
        ],
        "behind": [wall.value for wall in result.behind],
        "known_as": attack.known_as,
        "took_s": round(result.took_s, 3),
    }


def _scenarios_json(results: Sequence[AttackResult]) -> Json:
    """Returns the scenarios of SandboxEscapeBench with what came of the attacks each stands for."""
    verdicts: dict[str, list[Verdict]] = {}
    for result in results:
        verdicts.setdefault(result.attack.attack_id, []).append(result.verdict)
    return [
        {
            "name": scenario.name,
            "difficulty": scenario.difficulty,
            "attacks": list[Json](scenario.attacks),
            "findings": list[Json](scenario.findings),
            "verdicts": [
                verdict.value for name in scenario.attacks for verdict in verdicts.get(name, ())
            ],
            "note": scenario.note,
        }
        for scenario in SCENARIOS
    ]
