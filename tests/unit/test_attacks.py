"""The battery as data: whole, honest about its walls, and judged without a sandbox."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.statements import CONTAINER, controls_of

from orchestrator.attacks.attack import (
    DONE,
    Attack,
    Barrier,
    Group,
    Observation,
    Position,
    Verdict,
)
from orchestrator.attacks.barriers import CAPABILITIES, FILTER, REPL_FILTER, barrier
from orchestrator.attacks.battery import BATTERY
from orchestrator.attacks.judges import (
    contained,
    ends_at_the_limit,
    refused,
    refused_later,
    survived,
)
from orchestrator.attacks.limits import LIMIT_TRIALS
from orchestrator.attacks.prelude import PROOFS, cell_of, probing_cell, read_told
from orchestrator.attacks.report import Report
from orchestrator.attacks.scenarios import SCENARIOS
from orchestrator.attacks.scene import Scene
from orchestrator.attacks.settling import AttackResult, Grounds, settle
from orchestrator.attacks.walls import WALLS, Wall, read_settings
from orchestrator.controls import ContainerStatement
from orchestrator.domain import Outcome
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.posture import judge as judge_host
from orchestrator.sandbox.posture_facts import PostureFacts

ROOT = Path(__file__).resolve().parents[2]
KNOWN = frozenset({"EPERM", "ENOENT"})
FULL_CONTROLS = controls_of("s1")


def attack(**changes: object) -> Attack:
    base = Attack(
        attack_id="try-it",
        title="try it",
        group=Group.PRIVILEGES,
        threat="privileges",
        barriers=(REPL_FILTER, FILTER, CAPABILITIES),
        source="return {}",
        judge=refused,
    )
    return replace(base, **changes)  # type: ignore[arg-type] # of the dataclass's fields


def grounds(container: ContainerStatement = CONTAINER, *, has_worker: bool = True) -> Grounds:
    controls = replace(FULL_CONTROLS, container=container) if has_worker else None
    return Grounds(container=container, controls=controls, proofs={"/proc/self/status CapBnd": "0"})


# One per attack, so that a failure names it.
EACH = pytest.mark.parametrize("one", BATTERY, ids=[one.attack_id for one in BATTERY])


def test_ids_are_unique_and_speak() -> None:
    """A report's reader, and the next release's, find each attack under one name."""
    ids = [one.attack_id for one in BATTERY]

    assert len(set(ids)) == len(ids) >= 60
    assert all(name == name.lower() and " " not in name for name in ids)


def test_every_group_is_attacked() -> None:
    """None of what the report is divided into is empty."""
    assert {one.group for one in BATTERY} == set(Group)


@EACH
def test_threat_is_one_of_the_threat_model(one: Attack) -> None:
    """Each attack belongs to a threat that docs/threat-model.md describes."""
    threats = tomllib.loads((ROOT / "docs/threats.toml").read_text("utf-8"))["threat"]

    assert one.threat in {threat["id"] for threat in threats}


@EACH
def test_attack_is_whole(one: Attack) -> None:
    """Each has a position, a wall in its way, and a probe that compiles in any scene."""
    assert one.positions
    assert one.barriers
    assert one.title[0].islower()
    ast.parse(cell_of(one, {"text": "\"quote' \\ \u2028"}))
    if one.later:
        ast.parse(probing_cell(one.later, {}, is_apart=True))
    assert DONE not in one.known_answers(is_gvisor=True)


@EACH
def test_answers_that_mean_that_the_kernel_began_are_no_walls(one: Attack) -> None:
    """An answer about the arguments is a call that was let through, and passes for no refusal."""
    about_arguments = {"EFAULT", "EBADF", "E2BIG", "ERANGE"}

    assert not about_arguments & one.known_answers(is_gvisor=True)


def test_every_wall_is_described_and_met() -> None:
    """No wall is without a record, and none is claimed that no attack meets."""
    assert set(WALLS) == set(Wall)
    met = {barrier.wall for one in BATTERY for barrier in one.barriers}
    assert set(Wall) - met == set()


@pytest.mark.parametrize("wall", Wall)
def test_settings_of_each_wall_are_in_the_statement(wall: Wall) -> None:
    """What a report quotes as proof is a key of the statement of controls."""
    found = read_settings(FULL_CONTROLS.to_json(), wall)

    assert set(found) == set(WALLS[wall].settings) != set()


@pytest.mark.parametrize("wall", [wall for wall in Wall if WALLS[wall].source])
def test_each_wall_is_defined_where_it_is_said_to_be(wall: Wall) -> None:
    """A reader who follows the report into the source finds the file."""
    assert (ROOT / WALLS[wall].source).is_file()


def test_proofs_that_walls_name_are_collected() -> None:
    """Each line of the kernel's own that a wall points to is read by the probe of proofs."""
    named = {record.proof for record in WALLS.values() if record.proof}

    for name in named:
        words = name.removeprefix("/proc/self/status ").removeprefix("/proc/self/mountinfo ")
        assert words in PROOFS


def test_scenarios_are_those_of_the_benchmark() -> None:
    """All eighteen are there, each tried, decided by a version, or said not to arise."""
    ids = {one.attack_id for one in BATTERY}
    findings = {finding.name for finding in judge_host(PostureFacts())} | {"runc"}

    assert len({scenario.name for scenario in SCENARIOS}) == 18
    for scenario in SCENARIOS:
        assert scenario.attacks or scenario.findings or scenario.note
        assert set(scenario.attacks) <= ids
        assert set(scenario.findings) <= findings


def test_limits_are_tried_with_the_memory_last() -> None:
    """Under gVisor the limit of memory ends the sandbox: nothing could be tried after it."""
    assert [one.attack_id for one in LIMIT_TRIALS][-1] == "memory-limit"
    assert all(one in BATTERY for one in LIMIT_TRIALS)


def seen(**answers: str) -> Observation:
    return Observation(told=answers, outcome=Outcome.SUCCEEDED)


REFUSALS = {
    "each way was refused": (seen(a="EPERM", b="ENOENT"), Verdict.STOPPED),
    "one way was open": (seen(a="EPERM", b="done"), Verdict.NOT_STOPPED),
    "the kernel began": (seen(a="EINVAL"), Verdict.NOT_STOPPED),
    "it cannot be tried": (seen(a="not here: no such machine"), Verdict.NOT_APPLICABLE),
    "one way cannot be tried": (seen(a="not here: none", b="EPERM"), Verdict.STOPPED),
    "it told of no way": (seen(), Verdict.NOT_APPLICABLE),
    "the probe failed": (Observation(told={"the probe": "NameError: x"}), Verdict.UNDECIDED),
    "the probe was ended by a wall": (
        Observation(told={"the probe": "EPERM"}),
        Verdict.STOPPED,
    ),
    "it told nothing": (Observation(outcome=Outcome.KILLED), Verdict.UNDECIDED),
    "the sandbox was lost": (Observation(lost="gone"), Verdict.UNDECIDED),
    "the host saw it": (
        replace(seen(a="EPERM"), reached=("a datagram arrived",)),
        Verdict.NOT_STOPPED,
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_is_ruled_on(case: str) -> None:
    """Only what a wall is known to answer counts as stopped; silence is never a wall."""
    observation, verdict = REFUSALS[case]

    ruling = refused(KNOWN, observation)

    assert ruling.verdict is verdict
    assert ruling.why


ENDED = Observation(outcome=Outcome.TIMED_OUT, goes_on=True)
SURVIVALS = {
    "the session went on": (ENDED, Verdict.STOPPED, Verdict.STOPPED),
    "it did not": (replace(ENDED, goes_on=False), Verdict.NOT_STOPPED, Verdict.NOT_STOPPED),
    "the sandbox was lost": (
        Observation(lost="the worker exited"),
        Verdict.NOT_STOPPED,
        Verdict.STOPPED,
    ),
    "the host's memory grew": (
        replace(ENDED, host_growth_bytes=2**25),
        Verdict.NOT_STOPPED,
        Verdict.NOT_STOPPED,
    ),
    "the probe was wrong": (
        replace(ENDED, outcome=Outcome.RAISED, error="NameError: name 'x'"),
        Verdict.UNDECIDED,
        Verdict.UNDECIDED,
    ),
    "the probe was rejected": (
        replace(ENDED, outcome=Outcome.REJECTED),
        Verdict.UNDECIDED,
        Verdict.UNDECIDED,
    ),
    "the wall was an error": (
        replace(ENDED, outcome=Outcome.RAISED, error="PermissionError: no"),
        Verdict.STOPPED,
        Verdict.STOPPED,
    ),
}


@pytest.mark.parametrize("case", SURVIVALS)
def test_survival_is_ruled_on(case: str) -> None:
    """A session that must go on is looked at afterwards; one that may end must end in words."""
    observation, if_survived, if_contained = SURVIVALS[case]

    assert survived(KNOWN, observation).verdict is if_survived
    assert contained(KNOWN, observation).verdict is if_contained


def test_what_another_sandbox_tells_is_ruled_on() -> None:
    """Where the second probe decides, the first one's success is no verdict."""
    prepared = Observation(told={"left": DONE})

    assert refused_later(KNOWN, prepared).verdict is Verdict.UNDECIDED
    found = replace(prepared, later={"/tmp": DONE})
    assert refused_later(KNOWN, found).verdict is Verdict.NOT_STOPPED
    clean = replace(prepared, later={"/tmp": "ENOENT"})
    assert refused_later(KNOWN, clean).verdict is Verdict.STOPPED


def test_sandbox_that_runs_out_of_memory_met_its_limit() -> None:
    """Under gVisor the whole sandbox ends for it, and is believed only if it says so."""
    out_of_memory = Observation(lost="the kernel ended it for want of memory")

    assert ends_at_the_limit(KNOWN, out_of_memory).verdict is Verdict.STOPPED
    assert ends_at_the_limit(KNOWN, Observation(lost="gone")).verdict is Verdict.UNDECIDED


def verdict_of(result: AttackResult) -> tuple[Verdict, list[Wall], list[Wall]]:
    return result.verdict, [entry.wall for entry in result.stopped_by], list(result.behind)


def test_first_wall_that_stands_is_named_and_the_rest_behind_it() -> None:
    """In a worker's place no filter of the REPL process is in the way, so none is named."""
    observation = seen(call="EPERM")

    from_worker = settle(attack(), Position.WORKER, observation, grounds(has_worker=False))

    assert verdict_of(from_worker) == (Verdict.STOPPED, [Wall.SYSTEM_CALLS], [Wall.CAPABILITIES])
    assert from_worker.stopped_by[0].settings["container.seccomp_sha256"] == "2" * 64


def test_wall_that_is_down_is_not_named() -> None:
    """With the filter switched off the same answer is the next wall's, with its own proof."""
    container = replace(CONTAINER, seccomp_profile="unconfined", seccomp_sha256=None)

    without_worker = grounds(container, has_worker=False)

    result = settle(attack(), Position.WORKER, seen(call="EPERM"), without_worker)

    assert verdict_of(result) == (Verdict.STOPPED, [Wall.CAPABILITIES], [])
    assert result.stopped_by[0].proof == "0"


def test_each_answer_has_its_wall() -> None:
    """Ways that met different walls are told apart."""
    walls: tuple[Barrier, ...] = (FILTER, barrier(Wall.IMAGE, "ENOENT"))

    result = settle(attack(barriers=walls), Position.WORKER, seen(a="EPERM", b="ENOENT"), grounds())

    assert verdict_of(result)[1] == [Wall.SYSTEM_CALLS, Wall.IMAGE]


def test_attack_on_the_kernel_that_gvisor_answers_is_stopped_by_it() -> None:
    """What reached a kernel that is not the host's was stopped, by gVisor and nothing else."""
    container = replace(CONTAINER, is_gvisor=True, runtime="runsc")
    open_call = seen(call="EINVAL")

    on_kernel = settle(attack(is_on_the_kernel=True), Position.CELL, open_call, grounds(container))
    on_sandbox = settle(attack(), Position.CELL, open_call, grounds(container))
    under_runc = settle(attack(is_on_the_kernel=True), Position.CELL, open_call, grounds())

    assert verdict_of(on_kernel)[:2] == (Verdict.STOPPED, [Wall.GVISOR])
    assert on_sandbox.verdict is Verdict.NOT_STOPPED
    assert under_runc.verdict is Verdict.NOT_STOPPED


@pytest.mark.parametrize(
    ("answers", "is_gvisor", "verdict"),
    [
        ({"maps": "done", "mem": "EPERM"}, True, Verdict.KNOWN_LIMIT),
        ({"maps": "done", "mem": "EPERM"}, False, Verdict.NOT_STOPPED),
        ({"maps": "done", "mem": "done"}, True, Verdict.NOT_STOPPED),
        ({"maps": "done", "mem": "EINVAL"}, True, Verdict.NOT_STOPPED),
        ({"maps": "EPERM", "mem": "EPERM"}, True, Verdict.STOPPED),
    ],
)
def test_known_limit_is_what_is_said_to_be_open_and_no_more(
    answers: dict[str, str], *, is_gvisor: bool, verdict: Verdict
) -> None:
    """It is told apart from what was stopped; one way more, or another kernel, and it counts."""
    container = replace(CONTAINER, is_gvisor=is_gvisor)
    tried = attack(open_under_gvisor=frozenset({"maps"}), why_open="of no use")

    result = settle(tried, Position.CELL, seen(**answers), grounds(container))

    assert result.verdict is verdict
    assert ("of no use" in result.why) is (verdict is Verdict.KNOWN_LIMIT)


@pytest.mark.parametrize(
    ("observation", "is_gvisor", "verdict"),
    [
        (Observation(lost="exit code 2"), True, Verdict.KNOWN_LIMIT),
        (Observation(lost="exit code 2"), False, Verdict.NOT_STOPPED),
        (Observation(lost="exit code 2", host_growth_bytes=2**25), True, Verdict.NOT_STOPPED),
        (replace(ENDED, goes_on=False), True, Verdict.NOT_STOPPED),
        (ENDED, True, Verdict.STOPPED),
    ],
)
def test_fork_bomb_may_cost_its_own_session_under_gvisor(
    observation: Observation, *, is_gvisor: bool, verdict: Verdict
) -> None:
    """Its kernel may end in one; a host that grew, or a session that hangs, is no such case."""
    [bomb] = [one for one in BATTERY if one.attack_id == "fork-bomb"]
    container = replace(CONTAINER, is_gvisor=is_gvisor)

    assert settle(bomb, Position.CELL, observation, grounds(container)).verdict is verdict


def test_every_open_way_says_why() -> None:
    """No attack is let pass without a word."""
    assert {one.attack_id for one in BATTERY if one.open_under_gvisor and not one.why_open} == set()


def report_of(*verdicts: Verdict, problem: str = "") -> Report:
    results = tuple(
        replace(settle(attack(), Position.CELL, seen(call="EPERM"), grounds()), verdict=verdict)
        for verdict in verdicts
    )
    return Report(results=results, grounds={Position.CELL: grounds()}, problem=problem, took_s=1.0)


@pytest.mark.parametrize(
    ("report", "is_sealed"),
    [
        (report_of(Verdict.STOPPED, Verdict.NOT_APPLICABLE), True),
        (report_of(Verdict.STOPPED, Verdict.KNOWN_LIMIT), True),
        (report_of(Verdict.STOPPED, Verdict.NOT_STOPPED), False),
        (report_of(Verdict.STOPPED, Verdict.UNDECIDED), False),
        (report_of(Verdict.STOPPED, problem="ended early"), False),
        (report_of(), False),
    ],
)
def test_host_is_sealed_only_if_everything_was_stopped(report: Report, *, is_sealed: bool) -> None:
    """What could not be decided, or was never tried, is no proof."""
    assert report.is_sealed is is_sealed


def test_report_is_json_and_files_the_statement() -> None:
    """Who reads the report finds each attack with its evidence, and the statement by its digest."""
    value = json.loads(json.dumps(report_of(Verdict.STOPPED).to_json()))

    [entry] = value["attacks"]
    assert (entry["id"], entry["from"], entry["verdict"]) == ("try-it", "cell", "stopped")
    assert entry["stopped_by"][0]["answers"] == ["EPERM"]
    assert value["sandboxes"]["cell"]["controls_sha256"] == FULL_CONTROLS.sha256_hex
    assert value["summary"]["stopped"] == 1
    assert len(value["scenarios"]) == 18


def test_documentation_names_every_key_of_the_report() -> None:
    """docs/attack-report.md describes each key, and its sample has the keys of an entry."""
    page = (ROOT / "docs/attack-report.md").read_text("utf-8")
    value = report_of(Verdict.STOPPED).to_json()
    [sample] = re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)
    [entry] = json.loads(json.dumps(value["attacks"]))
    shown = json.loads(sample)

    assert all(f"| `{key}`" in page for key in value)
    assert list(shown) == list(entry)
    assert list(shown["stopped_by"][0]) == list(entry["stopped_by"][0])
    assert all(f"`attacks[].{key}`" in page for key in entry)
    assert all(f"`{key}`" in page for key in entry["stopped_by"][0])


def run_probe(body: str, *, is_apart: bool) -> Mapping[str, str] | None:
    """Returns what a probe tells in a Python of this host."""
    ended = subprocess.run(
        (sys.executable, "-c", probing_cell(body, {"word": "x"}, is_apart=is_apart, patience_s=3)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return read_told(ended.stdout)


@pytest.mark.parametrize("is_apart", [True, False])
def test_probe_tells_how_each_way_ended(*, is_apart: bool) -> None:
    """Errors of the kernel come by name, success as such, the scene as it was given."""
    told = run_probe(
        "return {'file': opened('/no/such/file'), 'fine': attempt(os.getpid),"
        " 'scene': SCENE['word'], 'call': system_call('shmget', 0, 0, 0x7fffffff)}",
        is_apart=is_apart,
    )

    assert told is not None
    assert (told["file"], told["fine"], told["scene"]) == ("ENOENT", "done", "x")
    assert told["call"] != "done"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os._exit(3)", "told nothing"),
        ("raise NameError('x')", "NameError: x"),
        ("time.sleep(60)", "did not end"),
    ],
)
def test_probe_that_ends_otherwise_says_so(body: str, said: str) -> None:
    """A probe that is killed, hangs or fails is reported by whoever watched it."""
    assert run_probe(body, is_apart=True) == {"the probe": said}


@given(st.text())
def test_what_is_no_answer_is_never_read_as_one(text: str) -> None:
    """The text is the attacker's: nothing but words by words is taken, and nothing fails."""
    told = read_told(f"the probe tells: {text}")

    assert told is None or all(isinstance(answer, str) for answer in told.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "the probe tells: []",
        "the probe tells: " + "[" * 10**5,
        'the probe tells: {"a":1}',
    ],
)
def test_silence_is_read_as_silence(text: str) -> None:
    """No line, a line of another form, and one that is too deep all tell nothing."""
    assert read_told(text) is None


def test_scene_of_the_default_limits_is_known_to_every_probe() -> None:
    """Every figure that a probe asks of the scene is one that the scene has."""
    scene = Scene(tcp_port=1, udp_port=2, abstract_name="x", limits=SandboxLimits()).to_json()
    asked = {
        word.split('"')[1]
        for one in BATTERY
        for word in (one.source + one.later).split("SCENE[")[1:]
    }

    assert asked <= set(scene)
