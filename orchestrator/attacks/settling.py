"""Says what stopped an attack, and how that is known.

Without it a report would end at "stopped", and a reader would have to believe it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.attacks.attack import Attack, Observation, Position, Ruling, Verdict
from orchestrator.attacks.walls import WALLS, Wall, read_settings
from orchestrator.controls import ContainerStatement, Controls
from orchestrator.domain import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What is known of the sandbox in which an attack was tried.

    Attributes:
        container: What the engine set for it.
        controls: The whole statement; None in the worker's place, where no worker made one.
        proofs: Lines of the kernel's own, read from inside; see `prelude.PROOFS`.
    """

    container: ContainerStatement
    controls: Controls | None
    proofs: Mapping[str, str]

    def statement(self) -> dict[str, Json]:
        """Returns the statement as JSON, or the part of it that there is."""
        if self.controls is not None:
            return self.controls.to_json()
        return {"container": self.container.to_json()}

    def stands(self, wall: Wall) -> bool:
        """Whether a wall stands around this sandbox."""
        walls = None if self.controls is None else self.controls.walls
        return WALLS[wall].stands(self.container, walls)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedBy:
    """One wall that stopped an attack, and how it is known that it stands.

    Attributes:
        wall: Which.
        answers: What it answered.
        settings: What the statement of controls says of it, by path.
        proof: A line of the kernel's own, read from inside; empty where there is none.
    """

    wall: Wall
    answers: tuple[str, ...]
    settings: Mapping[str, Json]
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackResult:
    """What came of one attack from one position.

    Attributes:
        attack: What was tried.
        position: From where.
        verdict: What came of it.
        why: What was seen, in a sentence.
        answers: What each way came to.
        stopped_by: The walls that answered, the first that was met first; empty unless stopped.
        behind: Walls in the way that stand as well and were not reached.
        took_s: How long it took.
    """

    attack: Attack
    position: Position
    verdict: Verdict
    why: str
    answers: Mapping[str, str]
    stopped_by: tuple[StoppedBy, ...]
    behind: tuple[Wall, ...]
    took_s: float


def settle(attack: Attack, position: Position, seen: Observation, grounds: Grounds) -> AttackResult:
    """Returns what came of an attack: the judge's ruling, and the walls behind it."""
    ruling = _rule(attack, seen, grounds)
    stopped_by = _find_walls(attack, ruling, grounds) if ruling.verdict is Verdict.STOPPED else ()
    answered = {entry.wall for entry in stopped_by}
    behind = tuple(
        dict.fromkeys(
            barrier.wall
            for barrier in attack.barriers
            if barrier.wall not in answered and grounds.stands(barrier.wall)
        )
    )
    return AttackResult(
        attack=attack,
        position=position,
        verdict=ruling.verdict,
        why=ruling.why,
        answers=ruling.answers,
        stopped_by=stopped_by,
        behind=behind,
        took_s=seen.took_s,
    )


def _rule(attack: Attack, seen: Observation, grounds: Grounds) -> Ruling:
    known = attack.known_answers(is_gvisor=grounds.container.is_gvisor)
    ruling = attack.judge(known, seen)
    if (
        ruling.verdict is Verdict.NOT_STOPPED
        and grounds.container.is_gvisor
        and _is_known_limit(attack, ruling, known)
    ):
        return Ruling(
            verdict=Verdict.KNOWN_LIMIT,
            why=f"{attack.why_open} ({ruling.why})",
            answers=ruling.answers,
        )
    is_answered_by_gvisor = (
        ruling.verdict is Verdict.NOT_STOPPED
        and attack.is_on_the_kernel
        and grounds.container.is_gvisor
        and not seen.reached
    )
    if not is_answered_by_gvisor:
        return ruling
    # It did reach a kernel, and not the host's: that is what gVisor is for.
    return Ruling(
        verdict=Verdict.STOPPED,
        why=f"gVisor's own kernel answered, and not the host's ({ruling.why})",
        answers=ruling.answers,
    )


def _is_known_limit(attack: Attack, ruling: Ruling, known: frozenset[str]) -> bool:
    """Whether nothing got through but what is known to: every other way was answered by a wall."""
    return bool(ruling.answers) and all(
        way in attack.open_under_gvisor or answer in known for way, answer in ruling.answers.items()
    )


def _find_walls(attack: Attack, ruling: Ruling, grounds: Grounds) -> tuple[StoppedBy, ...]:
    by_wall: dict[Wall, list[str]] = {}
    for answer in dict.fromkeys(ruling.answers.values()):
        by_wall.setdefault(_wall_of(answer, attack, grounds), []).append(answer)
    statement = grounds.statement()
    return tuple(
        StoppedBy(
            wall=wall,
            answers=tuple(answers),
            settings=read_settings(statement, wall),
            proof=grounds.proofs.get(WALLS[wall].proof, ""),
        )
        for wall, answers in by_wall.items()
    )


def _wall_of(answer: str, attack: Attack, grounds: Grounds) -> Wall:
    """Returns the first wall in the way that stands and gives this answer."""
    for barrier in attack.barriers:
        if grounds.stands(barrier.wall) and (not barrier.answers or answer in barrier.answers):
            return barrier.wall
    # Nothing of ours: the kernel's own rules for whoever is nobody.
    return Wall.GVISOR if grounds.container.is_gvisor else Wall.KERNEL
