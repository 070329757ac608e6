"""What is done to a host to give its engine gVisor, and where nothing is done."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import Host
from orchestrator.sandbox.gvisor_setup import (
    GvisorFacts,
    GvisorStep,
    choose_platform,
    find_registered,
    plan_gvisor,
)
from orchestrator.sandbox.runtimes import RegisteredRuntime

ROOT = Host(
    platform="linux",
    kernel="6.1.0",
    uid=0,
    distribution="debian",
    home=Path("/root"),
    runtime_dir=None,
)
RUNC = RegisteredRuntime(name="runc", path="runc", shim="", arguments=())
GVISOR = RegisteredRuntime(
    name="runsc", path="/usr/bin/runsc", shim="", arguments=("--host-uds=open",)
)
NOTHING = GvisorFacts(registered=(RUNC,), program=None, is_system_engine=True)
#: What releases of 2022 and of 2025 say of themselves.
OLD_FLAGS = "\tspecifies which platform to use: ptrace (default), kvm. (default ptrace)\n"
NEW_FLAGS = "\tspecifies which platform to use: systrap (default), ptrace, kvm. (default systrap)\n"


def test_registered_gvisor_is_left_alone() -> None:
    """A second run does nothing, whoever registered it, and needs no rights."""
    facts = replace(NOTHING, registered=(RUNC, GVISOR))

    assert plan_gvisor(replace(ROOT, uid=1000), facts) == ()
    assert find_registered(facts.registered) is GVISOR


@pytest.mark.parametrize("argument", ["--host-uds=none", "--debug", "--network=host"])
def test_registration_that_required_refuses_gets_another_beside_it(argument: str) -> None:
    """What opens gVisor, or shuts the sandbox's socket, does not count as being there."""
    open_gvisor = replace(GVISOR, arguments=(*GVISOR.arguments, argument))
    facts = replace(NOTHING, registered=(RUNC, open_gvisor), program="/usr/bin/runsc")

    assert GvisorStep.REGISTER in (plan_gvisor(ROOT, facts) or ())


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_root_gets_it_installed_registered_and_tried(distribution: str) -> None:
    """On Debian and Ubuntu root gets what is missing, in order."""
    assert plan_gvisor(replace(ROOT, distribution=distribution), NOTHING) == (
        GvisorStep.INSTALL,
        GvisorStep.REGISTER,
        GvisorStep.RELOAD,
        GvisorStep.TRY,
    )


def test_program_that_is_there_is_only_registered() -> None:
    """Also where no package is known here."""
    facts = replace(NOTHING, program="/usr/local/bin/runsc")

    assert plan_gvisor(replace(ROOT, distribution="fedora"), facts) == (
        GvisorStep.REGISTER,
        GvisorStep.RELOAD,
        GvisorStep.TRY,
    )


@pytest.mark.parametrize(
    ("host", "facts"),
    [
        (replace(ROOT, uid=1000), NOTHING),
        (replace(ROOT, distribution="fedora"), NOTHING),
        (ROOT, replace(NOTHING, is_system_engine=False)),
    ],
)
def test_nothing_is_done_where_it_is_not_ours_to_do(host: Host, facts: GvisorFacts) -> None:
    """No other user, no unknown system, and no engine with a configuration elsewhere."""
    assert plan_gvisor(host, facts) is None


@pytest.mark.parametrize(
    ("flags", "is_virtual", "has_kvm", "platform"),
    [
        (OLD_FLAGS, True, False, "ptrace"),
        (OLD_FLAGS, True, True, "ptrace"),
        (OLD_FLAGS, False, True, "kvm"),
        (NEW_FLAGS, False, False, "systrap"),
        (NEW_FLAGS, True, True, "systrap"),
        (NEW_FLAGS, False, True, "kvm"),
    ],
)
def test_platform_is_the_best_that_works(
    flags: str, *, is_virtual: bool, has_kvm: bool, platform: str
) -> None:
    """KVM on bare metal alone, the oldest where the program has nothing else."""
    assert choose_platform(flags, is_virtual=is_virtual, has_kvm=has_kvm) == platform


def test_program_with_unknown_platforms_is_refused() -> None:
    """What cannot be read is not guessed."""
    with pytest.raises(SandboxStartError, match="names no platform"):
        choose_platform("platform to use: quantum", is_virtual=False, has_kvm=False)
