"""Installs gVisor and registers it with the host's engine, where it may, and says so.

Without it the stronger wall would be there only for whoever has read three manuals: gVisor's
package, its two flags that matter here, and the engine's configuration file. Each step is reported
before it is taken; what cannot be seen to work is taken back.
"""

import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from orchestrator.errors import SandboxError, SandboxStartError
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.engine_config import CONFIG_FILE, read_config, with_runtime, write_config
from orchestrator.sandbox.engine_host import EngineInfo, Host
from orchestrator.sandbox.engine_setup import Report, install_packages, reload_engine, run_tool
from orchestrator.sandbox.gvisor_trial import try_gvisor
from orchestrator.sandbox.runtimes import NEEDED_FLAGS, RegisteredRuntime, read_runtimes

_PROGRAM: Final = "runsc"
_PACKAGES: Final = ("runsc",)  # Debian 12 and Ubuntu 23.04 are the first to have it
_OWN_NAME: Final = "runsc-rlm"  # beside a `runsc` that somebody else needs as it is
_SYSTEM_ENDPOINT: Final = "unix:///var/run/docker.sock"
_RELOAD_DEADLINE_S: Final = 20.0  # 0.1 s is usual
_POLL_S: Final = 0.1
_KVM: Final = Path("/dev/kvm")
#: `runsc flags` on its platforms, as "ptrace (default), kvm." or "systrap (default), ptrace, kvm."
_PLATFORMS: Final = re.compile(r"which platform to use: ([^\n]*)")


class GvisorStep(StrEnum):
    """One thing to do to a host, in the order they are done."""

    INSTALL = "install"
    REGISTER = "register"
    RELOAD = "reload"
    TRY = "try"


@dataclass(frozen=True, slots=True, kw_only=True)
class GvisorFacts:
    """What decides what has to be done."""

    registered: tuple[RegisteredRuntime, ...]  # all that the engine has
    program: str | None  # path of `runsc` on this host
    is_system_engine: bool  # reads `CONFIG_FILE`


def plan_gvisor(host: Host, facts: GvisorFacts) -> tuple[GvisorStep, ...] | None:
    """Returns what has to be done to get gVisor, or None where this process may not do it."""
    if find_registered(facts.registered) is not None:
        return ()
    if not (host.is_root and facts.is_system_engine):
        return None
    if facts.program is None and not host.installs_with_apt:
        return None
    install = () if facts.program else (GvisorStep.INSTALL,)
    return (*install, GvisorStep.REGISTER, GvisorStep.RELOAD, GvisorStep.TRY)


def find_registered(runtimes: Sequence[RegisteredRuntime]) -> RegisteredRuntime | None:
    """Returns gVisor as `required` takes it, if the engine has it so."""
    closed = (item for item in runtimes if item.is_gvisor and not item.objections)
    return next(closed, None)


def choose_platform(flags_text: str, *, is_virtual: bool, has_kvm: bool) -> str:
    """Returns the platform to run sandboxes with: how gVisor gets at their system calls.

    KVM on bare metal, else systrap, else ptrace, as gVisor's guide to platforms has it. In a
    virtual machine /dev/kvm is no sign that KVM works: there a sandbox that was to start with it
    hung for 20 minutes, and the engine with it.

    Args:
        flags_text: What `runsc flags` prints.
        is_virtual: Whether this host is a virtual machine.
        has_kvm: Whether it has /dev/kvm.

    Raises:
        SandboxStartError: The text names none of the three.
    """
    found = _PLATFORMS.search(flags_text)
    known = set(re.findall(r"\w+", found.group(1))) if found else set()
    wanted = ("kvm", "systrap", "ptrace") if has_kvm and not is_virtual else ("systrap", "ptrace")
    for platform in wanted:
        if platform in known:
            return platform
    raise SandboxStartError(
        f"`{_PROGRAM} flags` names no platform that is known here; expected one of "
        f"{', '.join(wanted)}. Register gVisor by hand."
    )


def ensure_gvisor(
    report: Report, *, engine: EngineInfo, host: Host, image_id: str
) -> RegisteredRuntime:
    """Returns gVisor as the engine has it, having installed and registered it where it had not.

    Does nothing where it is registered so that `required` takes it. A registration of another kind
    stays as it is, and gets a second one beside it.

    Args:
        report: Called with one sentence before each step that changes the host.
        engine: The engine to register it with.
        host: This host.
        image_id: The sandbox image, for the container that tries it.

    Raises:
        SettingsError: The engine's configuration is not one that can be added to.
        SandboxStartError: This host is not one to do that on (the message has the commands); or a
            step failed, and the configuration is as it was.
    """
    facts = _read_facts(engine)
    steps = plan_gvisor(host, facts)
    if steps is None:
        raise SandboxStartError(_describe_by_hand(host, facts))
    if not steps:
        registered = find_registered(facts.registered)
        assert registered is not None  # noqa: S101 - that is why there is nothing to do
        return registered
    if GvisorStep.INSTALL in steps:
        install_packages(_PACKAGES, report, purpose="gVisor")
    program = shutil.which(_PROGRAM)
    if program is None:
        raise SandboxStartError(f"{_PROGRAM} was installed and is not on PATH; put it there.")
    platform = choose_platform(
        run_tool((program, "flags")), is_virtual=_is_virtual(), has_kvm=_KVM.exists()
    )
    names = {item.name for item in facts.registered}
    runtime = RegisteredRuntime(
        name=_OWN_NAME if _PROGRAM in names else _PROGRAM,
        path=program,
        shim="",
        arguments=(f"--platform={platform}", *NEEDED_FLAGS),
    )
    before = read_config(CONFIG_FILE)
    after = with_runtime(before, name=runtime.name, path=runtime.path, arguments=runtime.arguments)
    report(f"Adding {program} {' '.join(runtime.arguments)} to {CONFIG_FILE} as {runtime.name}")
    write_config(CONFIG_FILE, after)
    try:
        reload_engine(report)
        _await_runtime(engine.endpoint, runtime.name)
        report("Trying gVisor with one container")
        try_gvisor(engine, runtime.name, image_id=image_id)
    except SandboxError:
        report(f"Putting {CONFIG_FILE} back as it was")
        write_config(CONFIG_FILE, before)
        with suppress(SandboxError):
            reload_engine(report)
        raise
    return runtime


def _read_facts(engine: EngineInfo) -> GvisorFacts:
    return GvisorFacts(
        registered=read_runtimes(ask_engine(engine.endpoint).info),
        program=shutil.which(_PROGRAM),
        is_system_engine=engine.endpoint == _SYSTEM_ENDPOINT and not engine.is_rootless,
    )


def _is_virtual() -> bool:
    # A hypervisor says so itself (CPUID 1, ECX bit 31), and the kernel passes it on.
    with suppress(OSError):
        return "hypervisor" in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").split()
    return True


def _await_runtime(endpoint: str, name: str) -> None:
    deadline_s = time.monotonic() + _RELOAD_DEADLINE_S
    while time.monotonic() < deadline_s:
        if name in {item.name for item in read_runtimes(ask_engine(endpoint).info)}:
            return
        time.sleep(_POLL_S)
    raise SandboxStartError(
        f"The engine has not read {CONFIG_FILE} within {_RELOAD_DEADLINE_S:.0f} s of being told "
        "to. Its log says why; one that was started with --config-file reads another file, and one "
        "started with --add-runtime takes no runtimes from a file."
    )


def _describe_by_hand(host: Host, facts: GvisorFacts) -> str:
    whose = "" if host.is_root else " Run as root to have it done, or by hand:"
    if not facts.is_system_engine:
        whose = (
            " The engine is not the system's own, whose configuration is known here; in that of "
            "this engine, by hand:"
        )
    install = "" if facts.program else "install runsc (gvisor.dev/docs/user_guide/install), "
    return (
        f"gVisor is not registered with the engine.{whose} {install}add it under `runtimes` with "
        f'"path" and "runtimeArgs": {list(NEEDED_FLAGS)}, and reload the engine.'
    )
