"""What is done to a host to give it an engine, and where nothing is done."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import Dial, DialOutcome
from orchestrator.sandbox.engine_host import Host
from orchestrator.sandbox.engine_setup import Installed, Step, plan, run_tool

ROOT = Host(
    platform="linux",
    kernel="6.1.0",
    uid=0,
    distribution="debian",
    home=Path("/root"),
    runtime_dir=None,
)
NOTHING = Installed(dockerd=None, is_systemd_running=False)
DOCKERD = Installed(dockerd="/usr/sbin/dockerd", is_systemd_running=False)
MISSING = [Dial(endpoint="unix:///var/run/docker.sock", outcome=DialOutcome.MISSING)]
DENIED = [Dial(endpoint="unix:///var/run/docker.sock", outcome=DialOutcome.DENIED)]


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_root_gets_an_engine_installed_and_started(distribution: str) -> None:
    """On Debian and Ubuntu root gets what is missing, in order."""
    host = replace(ROOT, distribution=distribution)

    assert plan(host, NOTHING, MISSING) == (Step.INSTALL, Step.START_DAEMON)


def test_installed_engine_is_only_started() -> None:
    """An engine that is there but does not run is not installed again."""
    assert plan(ROOT, DOCKERD, MISSING) == (Step.START_DAEMON,)


def test_running_systemd_is_asked_to_start_it() -> None:
    """A host's own service manager stays in charge of its services."""
    installed = replace(DOCKERD, is_systemd_running=True)

    assert plan(ROOT, installed, MISSING) == (Step.START_WITH_SYSTEMD,)


@pytest.mark.parametrize(
    ("host", "dials"),
    [
        (replace(ROOT, uid=1000), MISSING),
        (replace(ROOT, distribution="fedora"), MISSING),
        (replace(ROOT, distribution=""), MISSING),
        (replace(ROOT, platform="darwin", distribution=""), MISSING),
        (ROOT, DENIED),
    ],
)
def test_nothing_is_done_where_it_is_not_ours_to_do(host: Host, dials: list[Dial]) -> None:
    """No other system, no other user, and no host where an engine already is, is changed."""
    assert plan(host, NOTHING, dials) is None


def test_failed_tool_shows_its_last_words() -> None:
    """A tool that fails is named, with its exit code and what it printed."""
    with pytest.raises(SandboxStartError, match=r"(?s)ls .*failed with exit code 2.*No such file"):
        run_tool(("ls", "/no-such-folder"))


def test_missing_tool_is_named() -> None:
    """A tool that is not there is named too."""
    with pytest.raises(SandboxStartError, match="Cannot run `no-such-tool-here`"):
        run_tool(("no-such-tool-here",))
