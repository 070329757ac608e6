"""The battery of `rlm doctor --attack`: what its report means.

That every attack is stopped is in test_attack_report.py. "Stopped" means something only because the
same attack comes out "not stopped" where the wall it met is down. Each control takes one wall down
and runs the attacks that it alone, or it before all others, should stop, from the worker's place:
behind no guard rail of the REPL process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.attack_grounds import attacks_of, results_of
from support.docker_sandboxes import Weakening
from support.second_stage import NO_SECOND_STAGE
from support.weakenings import (
    ALL_RIGHTS,
    DEFAULT_CAPABILITIES,
    EXECUTABLE_TMP,
    HOST_NAMES,
    HOST_NETWORK,
    HOST_PROCESSES,
    NO_SECCOMP,
    ROOT_IN_A_WRITABLE_ROOT,
    WRITABLE_SOCKET_DIRECTORY,
)

from orchestrator.attacks.attack import Position, Verdict
from orchestrator.attacks.walls import Wall

pytestmark = pytest.mark.docker

Config = dict[str, Any]


def without(*names: str) -> Weakening:
    """Leaves parts of the host's configuration out of the request."""

    def change(config: Config) -> None:
        for name in names:
            del config["HostConfig"][name]

    return Weakening(change=change)


def _without_bounds_on_scratch(config: Config) -> None:
    config["HostConfig"]["Tmpfs"] = dict.fromkeys(
        config["HostConfig"]["Tmpfs"], "mode=1777,nr_inodes=0"
    )


def _with_the_hosts_files(config: Config) -> None:
    config["HostConfig"]["Binds"] += ["/etc:/mnt:ro", "/:/home:ro"]


def _with_an_engines_socket(config: Config) -> None:
    config["User"] = "0:0"
    config["HostConfig"]["Binds"].append("/var/run/docker.sock:/run/docker.sock")


def _with_a_secret(config: Config) -> None:
    config["Env"] = ["OPENAI_API_KEY=sk-canary"]


#: By the wall that is down: the attacks that then get through, at least.
GET_THROUGH: dict[str, tuple[Weakening, tuple[str, ...]]] = {
    "the host's network": (
        HOST_NETWORK,
        ("devices-up", "abstract-socket-of-the-host", "namespaces-of-the-host"),
    ),
    "no filter": (
        NO_SECCOMP,
        (
            "netlink",
            "io-uring",
            "keys",
            "system-v-ipc",
            "handles",
            "debug",
            "fixed-addresses",
            "program-without-a-name",
            "compare-processes",
            "user-namespace",
            "secret-memory",
            "watches",
        ),
    ),
    "capabilities within reach": (DEFAULT_CAPABILITIES, ("capabilities-left",)),
    "all rights": (
        ALL_RIGHTS,
        (
            "become-root",
            "take-a-capability",
            "capabilities-left",
            "privileges-of-a-program",
            "other-namespaces",
            "mount",
            "mount-by-the-new-calls",
            "unmount-and-pivot",
            "release-agent",
            "file-by-its-handle",
            "rights-over-files",
            "bpf",
            "perf",
            "host-administration",
            "kernel-settings",
            "kernel-memory",
            "packet-socket",
            "raw-ip",
            "make-a-device",
            "kernel-log",
            "watch-file-systems",
        ),
    ),
    "root in a writable root": (ROOT_IN_A_WRITABLE_ROOT, ("write-the-root", "change-the-image")),
    "programs in scratch": (EXECUTABLE_TMP, ("run-from-scratch",)),
    "the host's processes": (HOST_PROCESSES, ("processes-of-others", "namespaces-of-the-host")),
    "the host's names": (HOST_NAMES, ("name-of-the-host", "namespaces-of-the-host")),
    "a writable socket directory": (WRITABLE_SOCKET_DIRECTORY, ("socket-directory",)),
    "files of the host": (
        Weakening(change=_with_the_hosts_files),
        ("mounts-of-the-host",),
    ),
    "an engine's socket": (
        Weakening(change=_with_an_engines_socket, walls=("uid", "gid", "supplementary_gids")),
        ("socket-of-an-engine",),
    ),
    "a secret in the environment": (
        Weakening(change=_with_a_secret),
        ("secrets-in-the-environment",),
    ),
    "processes without a limit": (without("PidsLimit"), ("process-limit",)),
    "no bounds on scratch": (
        Weakening(change=_without_bounds_on_scratch),
        ("scratch-size", "scratch-names"),
    ),
    "no limits of a process": (
        without("Ulimits"),
        ("descriptors", "large-file", "larger-limits"),
    ),
}


@pytest.mark.parametrize("wall", GET_THROUGH)
async def test_attack_gets_through_where_its_wall_is_down_control(wall: str) -> None:
    """Each attack is reported as not stopped once the wall in its way is taken down."""
    weakening, names = GET_THROUGH[wall]

    results = await results_of(attacks_of(*names, position=Position.WORKER), weakening=weakening)

    assert {
        name: result.why for name, result in results.items() if not is_open(result.verdict)
    } == {}


def is_open(verdict: Verdict) -> bool:
    return verdict is Verdict.NOT_STOPPED


_OPEN_WORKER = """
import runpy
from sandbox_image import hardening
hardening.forbid_inspection = lambda: None
runpy.run_module("sandbox_image", run_name="__main__", alter_sys=True)
"""


def _with_an_open_worker(config: Config) -> None:
    config["Entrypoint"] = [
        *("/usr/bin/python3.13", "-I", "-c"),
        _OPEN_WORKER,
    ]


#: Likewise for what a cell meets before any wall: guard rails, and what the worker does itself.
GET_THROUGH_FROM_A_CELL: dict[str, tuple[Weakening, tuple[str, ...]]] = {
    "no second stage": (
        NO_SECOND_STAGE,
        ("command-the-worker", "locks-of-another"),
    ),
    "a worker that can be looked into": (
        Weakening(change=_with_an_open_worker),
        ("look-into-the-worker",),
    ),
}


@pytest.mark.parametrize("rail", GET_THROUGH_FROM_A_CELL)
async def test_attack_gets_through_where_its_guard_rail_is_down_control(rail: str) -> None:
    """The same of attacks that are tried from a cell alone."""
    weakening, names = GET_THROUGH_FROM_A_CELL[rail]

    results = await results_of(attacks_of(*names, position=Position.CELL), weakening=weakening)

    assert {
        name: result.why for name, result in results.items() if not is_open(result.verdict)
    } == {}


async def test_evidence_names_the_wall_that_is_left() -> None:
    """With the filter down, what it stopped is stopped by the next wall, and the report says so."""
    attacks = attacks_of("become-root", "mount", position=Position.WORKER)

    whole = await results_of(attacks)
    weakened = await results_of(attacks, weakening=NO_SECCOMP)

    for name in ("become-root", "mount"):
        assert whole[name].stopped_by[0].wall is Wall.SYSTEM_CALLS
        assert Wall.CAPABILITIES in whole[name].behind
        assert weakened[name].stopped_by[0].wall is Wall.CAPABILITIES
        assert "CapBnd: 0000000000000000" in weakened[name].stopped_by[0].proof
        assert weakened[name].stopped_by[0].settings["container.capabilities_dropped"] == ["ALL"]


async def test_limit_of_memory_that_is_missing_is_seen_control() -> None:
    """Without a limit the same probe takes more than the limit, and says it was let."""
    weakening = replace(
        without("Memory", "MemorySwap", "MemorySwappiness"),
        walls=("memory.max", "memory.swap.max"),
    )

    [result] = (
        await results_of(
            attacks_of("memory-limit", position=Position.CELL),
            weakening=weakening,
        )
    ).values()

    assert is_open(result.verdict)
