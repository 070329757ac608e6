"""Which runtime sandboxes run under."""

from typing import Any

import pytest

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.runtimes import choose_runtime
from orchestrator.sandbox.spec import Runtime

RUNC = {"path": "runc"}
OPEN_GVISOR = {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--host-uds=open"]}
CLOSED_GVISOR = {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--debug"]}
SHIM_GVISOR = {"runtimeType": "io.containerd.runsc.v1"}


def info(**runtimes: dict[str, Any]) -> dict[str, Any]:
    return {"DefaultRuntime": "runc", "Runtimes": {"runc": RUNC, **runtimes}}


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_engines_default_without_gvisor(wanted: str | None) -> None:
    """Without a choice and without gVisor, the engine's own default runs sandboxes."""
    assert choose_runtime(wanted, info()) == Runtime(name="runc", is_gvisor=False)


@pytest.mark.parametrize("gvisor", [OPEN_GVISOR, SHIM_GVISOR])
@pytest.mark.parametrize("wanted", [None, "auto", "gvisor", "sealed"])
def test_gvisor_is_taken_where_it_can_be_used(wanted: str | None, gvisor: dict[str, Any]) -> None:
    """The stronger wall is taken where it is there, under whatever name it was registered."""
    chosen = choose_runtime(wanted, info(sealed=gvisor))

    assert chosen == Runtime(name="sealed", is_gvisor=True)


def test_no_choice_passes_by_a_gvisor_that_cannot_attach() -> None:
    """A gVisor with host sockets closed would start sandboxes of which none could attach."""
    assert choose_runtime("auto", info(runsc=CLOSED_GVISOR)).name == "runc"


def test_runc_can_be_asked_for_beside_gvisor() -> None:
    """A choice that is stated is kept."""
    assert choose_runtime("runc", info(runsc=OPEN_GVISOR)).is_gvisor is False


@pytest.mark.parametrize(
    "runtimes", [info(), info(runsc=CLOSED_GVISOR)], ids=["absent", "sockets closed"]
)
def test_gvisor_required_fails_closed(runtimes: dict[str, Any]) -> None:
    """Who asks for gVisor gets gVisor or an error that says how to register it, never less."""
    with pytest.raises(SandboxStartError, match=r"--host-uds=open"):
        choose_runtime("gvisor", runtimes)


def test_gvisor_by_its_own_name_fails_closed_as_well() -> None:
    """Naming the registered runtime is no way around the check of its sockets."""
    with pytest.raises(SandboxStartError, match="host sockets closed"):
        choose_runtime("runsc", info(runsc=CLOSED_GVISOR))


def test_unknown_runtime_lists_what_there_is() -> None:
    """A misspelt name is the operator's to correct, so the error has the names to choose from."""
    with pytest.raises(SettingsError, match=r"'rnuc'.*runc, runsc"):
        choose_runtime("rnuc", info(runsc=OPEN_GVISOR))
