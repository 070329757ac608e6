"""What an attack is: its probe, the walls in its way, and how what it told is judged.

Without it each attack would be a test of its own kind, and none could be run on a customer's host.
Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from orchestrator.attacks.walls import Wall
from orchestrator.domain import Outcome

#: What a way to attack is said to have come to where nothing stopped it.
DONE = "done"
#: Begins an answer that says why a way cannot be tried here.
NOT_HERE = "not here: "

#: The way under which a probe's own end is told, where it came to none of its ways.
PROBE = "the probe"


class Position(StrEnum):
    """Where the attacker is."""

    CELL = "cell"  # in the REPL process, behind every wall and guard rail
    WORKER = "worker"  # in the worker's place: what a cell that took the worker over could do


class Verdict(StrEnum):
    """What came of an attack."""

    STOPPED = "stopped"
    NOT_STOPPED = "not stopped"
    KNOWN_LIMIT = "known limit"  # got no further than the threat model says it can
    NOT_APPLICABLE = "not applicable"
    UNDECIDED = "undecided"  # the battery could not tell; counts as a failure of it


class Group(StrEnum):
    """What an attack is about; reports are read group by group."""

    NETWORK = "network"
    PRIVILEGES = "privileges"
    SYSTEM_CALLS = "system calls"
    FILES = "files"
    PROCESSES = "processes"
    RESOURCES = "resources"
    CONTRACT = "contract"
    NEIGHBOURS = "neighbours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Barrier:
    """One wall in an attack's way, and the answers it gives.

    Without answers it is one that cannot be told by them: it stands where the session went on.
    """

    wall: Wall
    answers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of one attack.

    Attributes:
        told: What the probe says each of its ways came to; None where it told nothing.
        outcome: How its cell ended; None in the worker's place, or where the sandbox was lost.
        error: What ended it, in words; empty where nothing did.
        lost: Why the sandbox was lost; empty where it was not.
        goes_on: Whether the sandbox ran cells and queries afterwards; None where nobody looked.
        later: What a second probe told, afterwards or in another sandbox.
        reached: What of the host the attack reached, by the host's own account.
        host_growth_bytes: By how much the memory of the process grew that serves the sandbox.
        took_s: From its start to its end.
    """

    told: Mapping[str, str] | None = None
    outcome: Outcome | None = None
    error: str = ""
    lost: str = ""
    goes_on: bool | None = None
    later: Mapping[str, str] | None = None
    reached: tuple[str, ...] = ()
    host_growth_bytes: int = 0
    took_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a judge says.

    Attributes:
        verdict: What came of the attack.
        why: In a sentence: what was seen.
        answers: What each way came to, as far as walls are told apart by it.
    """

    verdict: Verdict
    why: str
    answers: Mapping[str, str] = field(default_factory=dict)


#: Rules on one attack: which answers are a wall's, and what was seen.
Judge: TypeAlias = Callable[[frozenset[str], Observation], Ruling]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        attack_id: Names it in reports, for good.
        title: What the attacker is after.
        group: What it is about.
        threat: Id of the threat in the threat model that it belongs to.
        barriers: The walls in its way, in the order in which they are met.
        source: Body of the probe: a function that returns what each way came to, `done` or the
            kernel's answer. See `prelude` for what it finds.
        judge: Rules on what was seen.
        positions: Where it is tried from.
        is_apart: Whether the probe runs in a child of the attacker's process, so that what it does
            to itself does not outlast it. Not in itself: attacks on the process's own channel.
        is_destructive: Whether it gets a sandbox of its own, which is seen to go on or not.
        is_heavy: Whether it takes so much of the host that nothing else is attacked meanwhile.
        later: Body of a second probe: in the same sandbox, by the next cell, or where `is_later_
            elsewhere` is set in another one, while the first is still there.
        is_later_elsewhere: See `later`.
        timeout_s: How long the probe may take.
        is_on_the_kernel: Whether it is after the kernel's own code, which under gVisor is not the
            host's.
        open_under_gvisor: The ways that are open under gVisor, as the threat model says.
        why_open: What of it is of no use to the attacker; needed where the former is not empty.
        known_as: Published names of it: a CVE, a scenario.
    """

    attack_id: str
    title: str
    group: Group
    threat: str
    barriers: tuple[Barrier, ...]
    source: str
    judge: Judge
    positions: tuple[Position, ...] = (Position.CELL, Position.WORKER)
    is_apart: bool = True
    is_destructive: bool = False
    is_heavy: bool = False
    later: str = ""
    is_later_elsewhere: bool = False
    timeout_s: float = 10.0
    is_on_the_kernel: bool = False
    open_under_gvisor: frozenset[str] = frozenset()
    why_open: str = ""
    known_as: str = ""

    def known_answers(self, *, is_gvisor: bool) -> frozenset[str]:
        """Returns every answer that some wall in the way gives, gVisor's only where it is there."""
        return frozenset().union(
            *(
                barrier.answers
                for barrier in self.barriers
                if is_gvisor or barrier.wall is not Wall.GVISOR
            )
        )
