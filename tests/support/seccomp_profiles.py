"""The seccomp profile with groups of refused calls lifted, for controls and mutants.

A group is lifted by allowing what it refuses, whatever the arguments. So a probe that is refused
under the whole profile and not under this one was refused by that group and nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.sandbox.seccomp import read_profile
from orchestrator.sandbox.seccomp_floor import FLOOR

_OTHER_MACHINES = {
    "SCMP_ARCH_X86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "SCMP_ARCH_AARCH64": ["SCMP_ARCH_ARM"],
}


def lift_groups(*names: str) -> str:
    """Returns the profile's text without the groups named."""
    calls = {call for name in names for call in FLOOR[name].calls}
    profile: dict[str, Any] = json.loads(read_profile().text)
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in calls]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    profile["syscalls"].append({"names": sorted(calls), "action": "SCMP_ACT_ALLOW"})
    return json.dumps(profile)


def with_32_bits() -> str:
    """Returns the profile's text for the rules of 32 bits as well, as engines' own are."""
    profile: dict[str, Any] = json.loads(read_profile().text)
    for machine in profile["archMap"]:
        machine["subArchitectures"] = _OTHER_MACHINES[machine["architecture"]]
    return json.dumps(profile)
