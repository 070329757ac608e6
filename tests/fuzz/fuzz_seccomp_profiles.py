"""The file that says which system calls a sandbox may make, after somebody has changed it.

Holds: nothing is raised but an error of settings; a file that is taken refuses everything that the
floor refuses, which is looked up here in what the engine would be given, and not in the reader.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from support.fuzz_data import FuzzData

from orchestrator.errors import SettingsError
from orchestrator.sandbox.seccomp import read_profile
from orchestrator.sandbox.seccomp_floor import FLOOR, MACHINES

PROFILE = Path(__file__).resolve().parents[2] / "docker/seccomp.json"
CALLS = sorted(call for group in FLOOR.values() for call in group.calls)
ACTIONS = ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
TOKENS = (b'"SCMP_ACT_ALLOW"', b'"names"', b'"action"', b'"args"', b"{}", b"[]", b"null", b"ptrace")


def TestOneInput(data: bytes) -> None:
    """Reads a file made of any bytes, or of the released one with some changes."""
    fuzz = FuzzData(data)
    text = fuzz.rest() if fuzz.integer(0, 7) == 7 else changed(fuzz)
    with tempfile.TemporaryDirectory(prefix="rlm") as folder:
        path = Path(folder, "seccomp.json")
        path.write_bytes(text)
        try:
            profile = read_profile(path)
        except SettingsError as error:
            assert "Expected" in str(error)
            return
    check(json.loads(profile.text))


def changed(fuzz: FuzzData) -> bytes:
    """Returns the released profile after some changes."""
    profile: dict[str, Any] = json.loads(PROFILE.read_bytes())
    for _ in range(fuzz.integer(0, 3)):
        if isinstance(profile.get("syscalls"), list):
            change(fuzz, profile)
    text = json.dumps(profile).encode()
    return text[: fuzz.integer(0, len(text))] if fuzz.integer(0, 15) == 15 else text


def change(fuzz: FuzzData, profile: dict[str, Any]) -> None:
    """Changes one thing."""
    rules: list[dict[str, Any]] = profile["syscalls"]
    if not rules:
        return
    rule = rules[fuzz.integer(0, len(rules) - 1)]
    names: list[str] = rule["names"]
    match fuzz.choice(("allow", "drop", "action", "name", "args", "error", "key", "machines")):
        case "allow":
            rules.append({"names": [fuzz.choice(CALLS)], "action": fuzz.choice(ACTIONS)})
        case "drop":
            rules[:] = [kept for kept in rules if kept is not rule]
        case "action":
            rule["action"] = fuzz.choice(ACTIONS)
        case "name":
            names[fuzz.integer(0, len(names)) :] = [fuzz.choice(CALLS)][: fuzz.integer(0, 1)]
        case "args":
            rule["args"] = [comparison_of(fuzz) for _ in range(fuzz.integer(0, 2))]
        case "error":
            rule["errnoRet"] = fuzz.choice((0, 1, 38, -1, None))
        case "key":
            profile[fuzz.choice(sorted(profile))] = fuzz.choice((*ACTIONS, 0, 1, 38, {}, []))
        case "machines":
            profile["archMap"] = profile["archMap"][: fuzz.integer(0, 2)]


def comparison_of(fuzz: FuzzData) -> dict[str, object]:
    """Returns what an argument might be compared with."""
    return {
        "index": fuzz.integer(-1, 6),
        "value": fuzz.choice((0, 1, 2, 0x7E020000, 2**64)),
        "valueTwo": fuzz.integer(0, 1),
        "op": fuzz.choice(("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE")),
    }


def check(given: dict[str, Any]) -> None:
    """Looks each refused call up in what an engine is given."""
    assert given["defaultAction"] == "SCMP_ACT_ERRNO"
    assert given["defaultErrnoRet"] == 1
    assert {entry["architecture"] for entry in given["archMap"]} == MACHINES
    assert not any(entry["subArchitectures"] for entry in given["archMap"])
    for group in FLOOR.values():
        tests = [
            (test.index, test.operator, test.value, test.second_value) for test in group.unless
        ]
        for rule in given["syscalls"]:
            if not group.calls & set(rule["names"]):
                continue
            if rule["action"] == "SCMP_ACT_ERRNO":
                assert rule["errnoRet"] == group.error
                assert not rule["args"]
                continue
            assert rule["action"] == "SCMP_ACT_ALLOW"
            [argument] = rule["args"]
            stated = (argument["index"], argument["op"], argument["value"], argument["valueTwo"])
            assert stated in tests
