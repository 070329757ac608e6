"""Which runtime sandboxes run under."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.runtimes import choose_runtime, explain_vanished
from orchestrator.sandbox.spec import Runtime

RUNC = {"path": "runc"}
OPEN_GVISOR = {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--host-uds=open"]}
WIDE_GVISOR = {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--host-uds=all", "--debug"]}
CLOSED_GVISOR = {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--platform=kvm"]}
UNLIMITED_GVISOR = {
    "path": "/usr/local/bin/runsc",
    "runtimeArgs": ["--host-uds=open", "--ignore-cgroups"],
}
SHIM_GVISOR = {"runtimeType": "io.containerd.runsc.v1"}
UNUSABLE = {
    "absent": {},
    "sockets closed": {"runsc": CLOSED_GVISOR},
    "limits left out": {"runsc": UNLIMITED_GVISOR},
}


def info(*, default: str = "runc", **runtimes: dict[str, Any]) -> dict[str, Any]:
    return {"DefaultRuntime": default, "Runtimes": {"runc": RUNC, **runtimes}}


@pytest.mark.parametrize("wanted", [None, "auto", "runc"])
def test_engines_default_without_gvisor(wanted: str | None) -> None:
    """Without a choice and without gVisor, the engine's own default runs sandboxes."""
    assert choose_runtime(wanted, info()) == Runtime(name="runc", is_gvisor=False)


@pytest.mark.parametrize("gvisor", [OPEN_GVISOR, WIDE_GVISOR, SHIM_GVISOR])
@pytest.mark.parametrize("wanted", [None, "auto", "gvisor", "sealed"])
def test_gvisor_is_taken_where_it_can_be_used(wanted: str | None, gvisor: dict[str, Any]) -> None:
    """The stronger wall is taken where it is there, under whatever name it was registered."""
    chosen = choose_runtime(wanted, info(sealed=gvisor))

    assert chosen == Runtime(name="sealed", is_gvisor=True)


@pytest.mark.parametrize("wanted", ["auto", "gvisor", "required"])
def test_of_several_the_one_that_opens_nothing_is_taken(wanted: str) -> None:
    """A registration for debugging beside the real one is no reason to use it."""
    chosen = choose_runtime(wanted, info(debugging=WIDE_GVISOR, runsc=OPEN_GVISOR))

    assert chosen.name == "runsc"


@pytest.mark.parametrize("runtimes", UNUSABLE.values(), ids=UNUSABLE)
def test_no_choice_passes_by_a_gvisor_that_cannot_be_used(runtimes: dict[str, Any]) -> None:
    """Where no sandbox could attach, or none be held to its limits, the engine's default is."""
    assert choose_runtime("auto", info(**runtimes)).name == "runc"


def test_no_choice_refuses_a_default_that_cannot_be_used() -> None:
    """An engine whose default is such a gVisor would let no sandbox attach."""
    with pytest.raises(SandboxStartError, match="host sockets are closed"):
        choose_runtime("auto", info(default="runsc", runsc=CLOSED_GVISOR))


def test_runc_can_be_asked_for_beside_gvisor() -> None:
    """A choice that is stated is kept, also where the engine's default is another."""
    chosen = choose_runtime("runc", info(default="runsc", runsc=OPEN_GVISOR))

    assert chosen == Runtime(name="runc", is_gvisor=False)


def test_runc_that_is_gvisor_is_refused() -> None:
    """Who asks for the host's kernel gets it, or is told why not."""
    with pytest.raises(SettingsError, match="gVisor registered under the name runc"):
        choose_runtime("runc", info(runc=OPEN_GVISOR))


@pytest.mark.parametrize("wanted", ["gvisor", "required"])
@pytest.mark.parametrize("runtimes", UNUSABLE.values(), ids=UNUSABLE)
def test_gvisor_asked_for_fails_closed(wanted: str, runtimes: dict[str, Any]) -> None:
    """Who asks for gVisor gets gVisor or an error that says what to write, never less."""
    with pytest.raises(SandboxStartError, match=r"--host-uds=open|--ignore-cgroups") as caught:
        choose_runtime(wanted, info(**runtimes))

    assert "Nothing was started" in str(caught.value)


@pytest.mark.parametrize(
    ("gvisor", "words"),
    [
        (WIDE_GVISOR, r"runsc: host sockets are all .*write --host-uds=open, --debug writes"),
        (SHIM_GVISOR, r"runsc: .*flags cannot be seen: register the program"),
        (CLOSED_GVISOR, "host sockets are none"),
    ],
)
def test_required_refuses_what_opens_gvisor(gvisor: dict[str, Any], words: str) -> None:
    """A gVisor that is open, or cannot be looked at, is no wall to require."""
    with pytest.raises(SandboxStartError, match=words):
        choose_runtime("required", info(runsc=gvisor))


def test_required_takes_gvisor_that_opens_nothing() -> None:
    """The same choice is met by a registration with nothing but what a sandbox needs."""
    chosen = choose_runtime("required", info(runsc=OPEN_GVISOR))

    assert chosen == Runtime(name="runsc", is_gvisor=True)


def test_gvisor_by_its_own_name_fails_closed_as_well() -> None:
    """Naming the registered runtime is no way around the check of its sockets."""
    with pytest.raises(SandboxStartError, match="host sockets are closed"):
        choose_runtime("runsc", info(runsc=CLOSED_GVISOR))


def test_unknown_runtime_lists_what_there_is() -> None:
    """A misspelt name is the operator's to correct, so the error has the names to choose from."""
    with pytest.raises(SettingsError, match=r"'rnuc'.*auto, runc, gvisor, required.*runc, runsc"):
        choose_runtime("rnuc", info(runsc=OPEN_GVISOR))


def test_runtime_that_vanished_is_told_from_other_refusals(tmp_path: Path) -> None:
    """Gone from the engine's configuration, or from the disk: each is said, with what to do."""
    program = tmp_path / "runsc"
    registered = info(runsc={"path": str(program)})

    assert "not registered with the engine any more" in str(explain_vanished("runsc", info()))
    assert f"registered as {program}, where nothing is" in str(
        explain_vanished("runsc", registered)
    )
    program.touch()
    assert explain_vanished("runsc", registered) is None
    assert explain_vanished("runc", registered) is None  # found by its name, on the engine's path
