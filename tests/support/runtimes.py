"""Which runtime the sandboxes of a test run under, chosen in one place for every test alike.

Without it the walls would be tried under whichever runtime the engine of the day prefers, and a
wall that holds under one kernel would be taken to hold under the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from orchestrator.app.host import set_up
from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.settings import load


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeUnderTest:
    """One of the two runtimes that every wall is tried under."""

    setting: str  # as `Settings.runtime` has it
    is_gvisor: bool


RUNC = RuntimeUnderTest(setting="runc", is_gvisor=False)
GVISOR = RuntimeUnderTest(setting="gvisor", is_gvisor=True)
#: The files about what a kernel and an engine hold, which another kernel may hold otherwise.
#: The rest is about the worker and the broker, which are the same program under both.
_WALLS = frozenset(
    {
        "test_attack_report.py",
        "test_checkpoints.py",
        "test_memory.py",
        "test_mounts.py",
        "test_namespaces.py",
        "test_network.py",
        "test_proc_of_the_worker.py",
        "test_process_limits.py",
        "test_root_file_system.py",
        "test_scratch_space.py",
        "test_second_stage_calls.py",
        "test_socket_directory.py",
        "test_system_calls.py",
        "test_user_and_privileges.py",
    }
)


def both_runtimes(file_name: str) -> tuple[Any, ...]:
    """Returns a case for each runtime, for the tests of a file."""
    marks = [pytest.mark.gvisor]
    if file_name not in _WALLS:
        marks.append(pytest.mark.gvisor_in_full)
    return (pytest.param(RUNC, id="runc"), pytest.param(GVISOR, id="gvisor", marks=marks))


#: The last one counts. Not a context variable: fixtures of a module run in contexts of their own.
_chosen = [RUNC]


def under_test() -> RuntimeUnderTest:
    """Returns the runtime that sandboxes are to be opened with now."""
    return _chosen[-1]


@contextmanager
def tested_under(runtime: RuntimeUnderTest) -> Iterator[None]:
    """Has sandboxes opened with `runtime`; skips the test where the engine has no such one."""
    if runtime.is_gvisor and (reason := why_no_gvisor()):
        pytest.skip(reason)
    _chosen.append(runtime)
    try:
        yield
    finally:
        _chosen.pop()


@cache
def why_no_gvisor() -> str:
    """Returns why nothing can be tried under gVisor on this host, or an empty string."""
    engine, _ = set_up(load(), print)
    try:
        choose_runtime(GVISOR.setting, ask_engine(engine.endpoint).info)
    except SandboxStartError as error:
        return str(error)
    return ""


def is_left_out(item: pytest.Item) -> bool:
    """Says whether a test is not to run under one runtime although its neighbours do.

    Those marked `runc_only` or `gvisor_only` say why themselves. A control shows that a probe
    succeeds where a wall is down; which kernel it then runs on proves nothing about the wall, so it
    costs no second sandbox. One content with a sandbox that is there anyway runs under both.
    """
    if not isinstance(item, pytest.Function):
        return False
    if _runtime_of(item) is not GVISOR:
        return item.get_closest_marker("gvisor_only") is not None
    needs_its_own_sandbox = "shared_sandbox" not in item.fixturenames
    is_control = item.originalname.endswith("_control") and needs_its_own_sandbox
    return is_control or item.get_closest_marker("runc_only") is not None


def _runtime_of(item: pytest.Function) -> object:
    return item.callspec.params.get("runtime") if hasattr(item, "callspec") else None
