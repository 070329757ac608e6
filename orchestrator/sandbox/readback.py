"""Compares what was asked of an engine with what it says it has set.

Without it a wall can be missing and nobody told: an engine that cannot do something (swap limits
on a kernel without swap accounting, say) answers with a warning, leaves it out, and starts the
container all the same.
"""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.sandbox.spec import SOCKET_MOUNT

# What the engine fills in by itself, and what an engine that was told to unmask would leave empty.
_FILLED_IN_BY_ENGINE = ("MaskedPaths", "ReadonlyPaths")
_CAPABILITY_LISTS = frozenset({"CapAdd", "CapDrop"})
_SHOWN_CHARS = 200  # a seccomp profile has tens of thousands


def find_differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns one sentence for each wall that is not as asked for; none means all are.

    Args:
        asked: The body of the request, as `container_config` makes it.
        found: The engine's record of the container that came of it.
    """
    host_found = found["HostConfig"]
    sentences = [
        *_compare(asked["HostConfig"], host_found),
        *_compare(_without_host_part(asked), found["Config"]),
    ]
    if found["Image"] != asked["Image"]:
        sentences.append(f"Image: asked for {asked['Image']}, found {found['Image']}")
    sentences += [
        f"{name}: expected the engine's own list, found none"
        for name in _FILLED_IN_BY_ENGINE
        if not host_found.get(name)
    ]
    networks = set(found["NetworkSettings"].get("Networks") or ())
    if not networks <= {"none"}:
        sentences.append(f"Networks: expected none, found {sorted(networks)}")
    # An image that declares a VOLUME would bring a writable directory of the host's disk along.
    mounts = [(mount["Destination"], mount["RW"]) for mount in found["Mounts"]]
    if mounts != [(SOCKET_MOUNT, False)]:
        sentences.append(f"Mounts: expected {SOCKET_MOUNT} read-only alone, found {mounts}")
    return tuple(sentences)


def find_missing_seccomp(info: Mapping[str, Any]) -> str | None:
    """Returns why a seccomp profile would do nothing on an engine, or None if it would.

    An engine without seccomp refuses a container that brings a profile, each in words of its own;
    here it is known before the first. What the engine's own default is does not matter.

    Args:
        info: The engine's answer to `/info`.
    """
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    if not any("name=seccomp" in option for option in options):
        return "the engine has no seccomp support"
    return None


def _without_host_part(asked: Mapping[str, Any]) -> dict[str, Any]:
    # Env: the engine adds PATH, and the image may have its own. Neither is a wall.
    return {key: value for key, value in asked.items() if key not in {"HostConfig", "Env"}}


def _compare(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    sentences = []
    for name, value in asked.items():
        found_value = found.get(name)
        if name == "Labels":  # the image's own are added
            found_value = {key: (found_value or {}).get(key) for key in value}
        if _canonical(name, value) != _canonical(name, found_value):
            sentences.append(
                f"{name}: asked for {_shown(value)}, the engine set {_shown(found_value)}"
            )
    return sentences


def _canonical(name: str, value: object) -> object:
    """Returns the value in the one form that all engine versions agree on.

    Absent, empty and false are the same to the engine, but 0 is not: a swappiness that was not
    set is the host's. Lists have no order, and capabilities may have gained their prefix.
    """
    if value is None or value is False or value in ("", [], {}):
        return None
    if isinstance(value, list):
        items = [json.dumps(item, sort_keys=True) for item in value]
        if name in _CAPABILITY_LISTS:
            items = [item.upper().replace("CAP_", "") for item in items]
        return sorted(items)
    return value


def _shown(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
