"""The seccomp profile: what is refused as a profile, and what the one that is shipped refuses."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SettingsError
from orchestrator.sandbox.seccomp import read_profile
from orchestrator.sandbox.seccomp_floor import FLOOR

Profile = dict[str, Any]
Change = Callable[[Profile], object]

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docker" / "seccomp.json"
CORPUS = ROOT / "tests/support/corpora/system_calls"


def shipped() -> Profile:
    profile: Profile = json.loads(SHIPPED.read_text())
    return profile


def names_in(file: str) -> set[str]:
    """Returns the names in a file of the corpus, the first word of each line but of comments."""
    lines = (CORPUS / file).read_text().splitlines()
    return {line.split()[0] for line in lines if not line.startswith("#")}


def allowed_in(profile: Profile) -> set[str]:
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    return {name for rule in rules for name in rule["names"]}


REFUSED = {name for group in FLOOR.values() for name in group.calls}
CONDITIONAL = {name for group in FLOOR.values() if group.unless for name in group.calls}


@pytest.mark.parametrize(
    ("content", "what_came"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{}", "defaultAction: Field required"),
        ("null", "is no profile of this product"),
        ("[]", "is no profile of this product"),
        ("seccomp", "Invalid JSON"),
        (SHIPPED.read_text()[:2000], "Invalid JSON: EOF"),
        (SHIPPED.read_text()[:-3], "Invalid JSON: EOF"),
        (SHIPPED.read_text() + "}", "Invalid JSON: trailing characters"),
    ],
    ids=["empty", "blank", "nothing", "null", "list", "text", "cut off", "unclosed", "trailing"],
)
def test_file_that_is_no_profile_is_refused(tmp_path: Path, content: str, what_came: str) -> None:
    """An engine takes `{}` for a profile and switches seccomp off: here nothing passes for one."""
    path = tmp_path / "seccomp.json"
    path.write_text(content)

    with pytest.raises(SettingsError) as caught:
        read_profile(path)

    message = str(caught.value)
    assert what_came in message
    assert str(path) in message
    assert "Expected the profile that was released with this version" in message
    assert "reinstall" in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Whatever is there instead, it ends in an error the operator can act on."""
    path = tmp_path / "seccomp.json"
    path.write_bytes(b"\xff\xfe" + SHIPPED.read_bytes())

    with pytest.raises(SettingsError, match="is no profile of this product"):
        read_profile(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """Without a profile there is no sandbox: the engine's own default is no substitute."""
    with pytest.raises(SettingsError, match=r"seccomp.json is not there"):
        read_profile(tmp_path / "a/seccomp.json", tmp_path / "b/seccomp.json")


def test_directory_is_no_profile(tmp_path: Path) -> None:
    """What an engine's `--mount` of a missing file leaves behind is not read as one."""
    with pytest.raises(SettingsError, match="is not there"):
        read_profile(tmp_path)


def rule_of(profile: Profile, name: str, action: str = "SCMP_ACT_ALLOW") -> Profile:
    [*rules] = (
        rule for rule in profile["syscalls"] if rule["action"] == action and name in rule["names"]
    )
    first: Profile = rules[0]
    return first


def allow(*names: str, **fields: object) -> Change:
    """Adds a rule that allows calls."""
    rule = {"names": list(names), "action": "SCMP_ACT_ALLOW", **fields}
    return lambda profile: profile["syscalls"].append(rule)


def put(**fields: object) -> Change:
    return lambda profile: profile.update(fields)


def change_rule(name: str, action: str = "SCMP_ACT_ALLOW", **fields: object) -> Change:
    return lambda profile: rule_of(profile, name, action).update(fields)


def drop_rule(name: str, action: str) -> Change:
    return lambda profile: profile["syscalls"].remove(rule_of(profile, name, action))


ANY_FAMILY = [{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]
UNIX_OR_ANY = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, *ANY_FAMILY]
FAMILY_IN_THE_WRONG_PLACE = [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]
FEWER_FLAGS = [{"index": 0, "value": 0x6E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
REFUSAL = "SCMP_ACT_ERRNO"
X86_64 = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}
AARCH64 = {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []}
WITH_X32 = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}

LOOSER: dict[str, tuple[Change, str]] = {
    "default that allows": (put(defaultAction="SCMP_ACT_ALLOW"), "defaultAction"),
    "default that logs": (put(defaultAction="SCMP_ACT_LOG"), "defaultAction"),
    "default that pretends": (put(defaultErrnoRet=0), "defaultErrnoRet"),
    "no default": (lambda profile: profile.pop("defaultAction"), "defaultAction"),
    "no rules": (lambda profile: profile.pop("syscalls"), "syscalls: Field required"),
    "no machine": (put(archMap=[]), "it is for nothing"),
    "one machine less": (put(archMap=[X86_64]), "it is for SCMP_ARCH_X86_64; expected"),
    "32 bits": (put(archMap=[WITH_X32, AARCH64]), "archMap.0.subArchitectures"),
    "older field": (put(architectures=["SCMP_ARCH_X86_64"]), "architectures: Extra inputs"),
    "flags": (put(flags=["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]), "flags: Extra inputs"),
    "listener": (put(listenerPath="/run/agent.sock"), "listenerPath: Extra inputs"),
    "a denied call": (allow("ptrace"), "group inspection: ptrace is allowed"),
    "several": (allow("bpf", "mount"), "group mounts: mount is allowed"),
    "by its older field": (allow("read", name="ptrace"), "name: Extra inputs"),
    "another action": (
        lambda profile: profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_TRACE"}),
        "action",
    ),
    "on a condition": (allow("bpf", args=ANY_FAMILY), "group kernel-instruments: bpf is allowed"),
    "any socket": (allow("socket"), "socket is allowed with other arguments"),
    "no socket filter": (
        change_rule("socket", args=[]),
        "group socket-families: socket, socketpair is allowed with other arguments",
    ),
    "misspelt socket filter": (
        lambda profile: rule_of(profile, "socket").update(
            arg=rule_of(profile, "socket").pop("args")
        ),
        "arg: Extra inputs",
    ),
    "wider socket filter": (change_rule("socket", args=ANY_FAMILY), "group socket-families"),
    "two socket filters": (change_rule("socket", args=UNIX_OR_ANY), "group socket-families"),
    "filter of another argument": (
        change_rule("socket", args=FAMILY_IN_THE_WRONG_PLACE),
        "group socket-families",
    ),
    "no clone filter": (change_rule("clone", args=[]), "group child-namespaces: clone is allowed"),
    "narrower clone filter": (change_rule("clone", args=FEWER_FLAGS), "group child-namespaces"),
    "clone3": (allow("clone3"), "group clone3: clone3 is allowed"),
    "clone3 that says EPERM": (
        change_rule("clone3", REFUSAL, errnoRet=1),
        "group clone3: clone3 is not refused with error 38",
    ),
    "refusal that pretends": (change_rule("ptrace", REFUSAL, errnoRet=0), "errnoRet"),
    "every request to devices": (allow("ioctl"), "group device-control"),
    "limits of others": (allow("prlimit64"), "group limits-of-others"),
    "group left out": (drop_rule("ptrace", REFUSAL), "expected"),
    "call left out of its group": (
        change_rule("ptrace", REFUSAL, names=["ptrace"]),
        "group inspection does not state get_robust_list",
    ),
    "condition on a machine": (
        allow("bpf", includes={"arches": ["amd64"]}),
        "includes: Extra inputs",
    ),
    "condition on a capability": (allow("read", excludes={}), "excludes: Extra inputs"),
    "no name": (allow(), "names"),
}


@pytest.mark.parametrize(("change", "gap"), LOOSER.values(), ids=LOOSER)
def test_looser_profile_is_refused(tmp_path: Path, change: Change, gap: str) -> None:
    """A profile that lets anything through that the shipped one refuses is named and not used."""
    profile = shipped()
    change(profile)
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile))

    with pytest.raises(SettingsError) as caught:
        read_profile(path)

    assert gap in str(caught.value)


@pytest.mark.parametrize("name", FLOOR)
def test_each_group_that_is_lifted_is_missed(tmp_path: Path, name: str) -> None:
    """Whichever group is moved to what is allowed, the profile is refused and the group named."""
    profile = shipped()
    allow(*FLOOR[name].calls)(profile)
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile))

    with pytest.raises(SettingsError, match=f"group {name}: "):
        read_profile(path)


def test_stricter_profile_is_taken(tmp_path: Path) -> None:
    """Whoever wants to refuse more may."""
    profile = shipped()
    rule_of(profile, "flock")["names"].remove("flock")
    path = tmp_path / "seccomp.json"
    path.write_text(json.dumps(profile))

    stricter = read_profile(path)

    assert "flock" not in stricter.text
    assert stricter.sha256 != read_profile().sha256


def test_engine_is_given_what_the_file_says() -> None:
    """Without comments, and without rules that only repeat the default: the same filter."""
    profile = read_profile()
    given, written = json.loads(profile.text), shipped()

    assert allowed_in(given) == allowed_in(written)
    assert given["defaultAction"] == "SCMP_ACT_ERRNO"
    assert given["archMap"] == written["archMap"]
    refusals = [rule for rule in given["syscalls"] if rule["action"] != "SCMP_ACT_ALLOW"]
    assert [(rule["names"], rule["errnoRet"]) for rule in refusals] == [(["clone3"], 38)]
    assert "comment" not in profile.text
    # An engine keeps it in the record of each container, and hands it on as a part of the next.
    assert len(profile.text) < 8 * 2**10


def test_digest_is_that_of_the_text() -> None:
    """Whoever has the engine's record of a container can tell which profile it runs under."""
    profile = read_profile()

    assert profile.sha256 == hashlib.sha256(profile.text.encode()).hexdigest()


def test_groups_are_stated_with_their_reasons() -> None:
    """A reviewer finds each group by its name, with a reason, and every call of the floor in it."""
    groups = {group.name: group for group in read_profile().groups}

    assert list(groups) == list(FLOOR)
    for name, group in groups.items():
        assert set(group.calls) == FLOOR[name].calls
        assert len(group.calls) == len(set(group.calls))
        assert len(group.reason) > 20


def test_no_call_is_refused_twice_or_allowed_beside() -> None:
    """Each call is in one group or allowed, never both, but those that depend on an argument."""
    counted = [name for group in FLOOR.values() for name in group.calls]

    assert len(counted) == len(set(counted))
    assert allowed_in(shipped()) & REFUSED == CONDITIONAL


def test_nothing_is_allowed_that_engines_refuse() -> None:
    """The profile is the engines' default with things taken away, and nothing added."""
    assert allowed_in(shipped()) <= names_in("engine_default_allows.txt")


def test_every_call_was_decided() -> None:
    """A call of Linux is allowed, or in a group that says why not: none is refused in passing."""
    undecided = names_in("linux.tsv") - allowed_in(shipped()) - REFUSED

    assert undecided == names_in("left_to_the_default.txt")


def test_names_are_calls_of_linux() -> None:
    """A misspelt name would be passed over by the runtime, and its call be refused or not alike."""
    known = names_in("linux.tsv") | names_in("only_elsewhere.txt")

    assert (allowed_in(shipped()) | REFUSED) - known == set()


def test_reading_is_not_changed_by_reading() -> None:
    """Two sandboxes of one installation run under one profile."""
    assert read_profile() == copy.deepcopy(read_profile())
