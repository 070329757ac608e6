"""What a reader of `rlm doctor` sees."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from support.statements import CONTAINER, controls_of

from orchestrator.attacks.attack import Observation, Position, Verdict
from orchestrator.attacks.battery import BATTERY
from orchestrator.attacks.report import Report
from orchestrator.attacks.settling import AttackResult, Grounds, settle
from orchestrator.cli.doctor_tables import print_attacks, print_findings
from orchestrator.sandbox.finding import Finding, Status

GROUNDS = Grounds(
    container=CONTAINER,
    controls=controls_of("s1"),
    proofs={"/proc/self/status CapBnd": "CapBnd: 0000000000000000"},
)
[MOUNT] = [attack for attack in BATTERY if attack.attack_id == "mount"]


def came_to(answer: str, position: Position = Position.CELL) -> AttackResult:
    return settle(MOUNT, position, Observation(told={"new": answer}), GROUNDS)


def report_of(*results: AttackResult, problem: str = "") -> Report:
    return Report(results=results, grounds={}, problem=problem, took_s=12.0)


def shown(report: Report) -> str:
    stream = StringIO()
    print_attacks(report, stream=stream)
    return stream.getvalue()


def test_attack_is_shown_with_its_wall_and_how_that_is_known() -> None:
    """Each line answers: what was tried, from where, what stopped it, by which answer."""
    text = shown(report_of(came_to("EPERM")))

    assert "privileges" in text
    assert "mount: mount a file system" in text
    assert "a cell" in text
    assert "filter: EPERM" in text
    assert "sealed: 1 stopped, in 12 s." in text
    assert "NOT sealed" not in text


def test_what_was_not_stopped_says_what_was_seen() -> None:
    """An attack that got through shows by what it is known to have got through."""
    text = shown(report_of(came_to("EPERM"), came_to("done", Position.WORKER)))

    assert "not stopped" in text
    assert "new: carried out" in text
    assert "NOT sealed: 1 stopped, 1 not stopped" in text


def test_positions_that_saw_the_same_share_a_line() -> None:
    """An attack that ends alike from both positions is one entry; otherwise each has its own."""
    alike = replace(came_to("EPERM"), position=Position.WORKER)

    together = shown(report_of(came_to("EPERM"), alike))
    apart = shown(report_of(came_to("EPERM"), came_to("done", Position.WORKER)))

    assert together.count("mount: ") == 1
    assert apart.count("mount: ") == 2


def test_battery_that_ended_early_says_so() -> None:
    """Half a report is not taken for a whole one."""
    text = shown(report_of(came_to("EPERM"), problem="the battery ended early: gone"))

    assert "NOT sealed" in text
    assert "the battery ended early: gone" in text


def test_text_of_an_attacker_does_not_act_on_the_terminal() -> None:
    """What a sandbox answers is untrusted, in a report about it as well."""
    nasty = replace(
        came_to("EPERM"), verdict=Verdict.NOT_STOPPED, why="\x1b[31mred \u202e [link=x]y[/link]"
    )

    text = shown(report_of(nasty))

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[link=x]" in text  # shown, not taken for markup


def test_finding_is_shown_with_its_advice() -> None:
    """What was expected and what to do stand under what was found, where there is anything."""
    stream = StringIO()
    good = Finding(name="swap", status=Status.OK, found="none", expected="nothing")
    bad = Finding(
        name="limits", status=Status.FAILED, found="no swap", expected="a bound", advice="Boot it."
    )

    print_findings([good, bad], stream=stream)

    text = stream.getvalue()
    assert "expected: a bound" in text
    assert "→ Boot it." in text
    assert "expected: nothing" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
