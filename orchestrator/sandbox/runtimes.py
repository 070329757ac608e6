"""Chooses the runtime that sandboxes run under, among those an engine has registered.

Without it a gVisor that refuses host sockets would start every sandbox and let none attach, and a
misspelt name would surface as an engine's error in the middle of a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.spec import Runtime

_GVISOR_PROGRAM = "runsc"
_GVISOR_ALIAS = "gvisor"
_NO_CHOICE = "auto"
# runsc/config/flags.go: the default is none; "open" lets a sandbox connect to a socket of the
# host that is mounted into it, "all" would let it make some as well.
_OPEN_SOCKET_FLAGS = frozenset({"--host-uds=open", "--host-uds=all"})

REGISTRATION_ADVICE = (
    "Register gVisor with host sockets open: install runsc, add "
    '"runtimes": {"runsc": {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--host-uds=open"]}} '
    "to /etc/docker/daemon.json, and reload the engine (systemctl reload docker)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRuntime:
    """One runtime of an engine, as its configuration has it."""

    name: str
    path: str  # empty where a containerd shim is registered instead of a program
    shim: str  # as "io.containerd.runsc.v1"; empty where a program is registered
    arguments: tuple[str, ...]

    @property
    def is_gvisor(self) -> bool:
        """Whether it is gVisor's `runsc`, whatever name it was registered under."""
        return _GVISOR_PROGRAM in (PurePosixPath(self.path).name, *self.shim.split("."))

    @property
    def opens_host_sockets(self) -> bool:
        """Whether a sandbox can reach its socket. A shim's own configuration cannot be seen."""
        if not self.is_gvisor:
            return True
        return bool(self.shim) or not _OPEN_SOCKET_FLAGS.isdisjoint(self.arguments)

    def chosen(self) -> Runtime:
        """Returns what a spec needs to know of it."""
        return Runtime(name=self.name, is_gvisor=self.is_gvisor)


def read_runtimes(info: Mapping[str, Any]) -> tuple[RegisteredRuntime, ...]:
    """Reads the runtimes out of an engine's answer to `/info`."""
    return tuple(
        RegisteredRuntime(
            name=name,
            path=str(entry.get("path") or ""),
            shim=str(entry.get("runtimeType") or ""),
            arguments=tuple(entry.get("runtimeArgs") or ()),
        )
        for name, entry in sorted((info.get("Runtimes") or {}).items())
    )


def choose_runtime(wanted: str | None, info: Mapping[str, Any]) -> Runtime:
    """Returns the runtime to use.

    Args:
        wanted: `auto` or None: gVisor where it is registered with host sockets open, else the
            engine's default. `gvisor`: that or nothing. Anything else: the engine's own name.
        info: The engine's answer to `/info`.

    Raises:
        SandboxStartError: gVisor was asked for, and is not registered, or not with host sockets
            open. Nothing weaker is taken instead.
        SettingsError: The engine has no runtime of that name.
    """
    runtimes = read_runtimes(info)
    gvisor = [runtime for runtime in runtimes if runtime.is_gvisor]
    usable = next((runtime for runtime in gvisor if runtime.opens_host_sockets), None)
    names = ", ".join(runtime.name for runtime in runtimes)
    if wanted in (None, _NO_CHOICE):
        return usable.chosen() if usable else _by_name(str(info["DefaultRuntime"]), runtimes)
    if wanted == _GVISOR_ALIAS:
        if usable:
            return usable.chosen()
        found = f"registered as {gvisor[0].name}, host sockets closed" if gvisor else "not there"
        message = (
            f"The runtime gVisor was asked for and is {found} (the engine has: {names}). "
            f"Nothing was started. {REGISTRATION_ADVICE}"
        )
        raise SandboxStartError(message)
    chosen = _by_name(str(wanted), runtimes)
    if chosen.is_gvisor and chosen.name not in {
        runtime.name for runtime in gvisor if runtime.opens_host_sockets
    }:
        message = (
            f"The runtime {chosen.name} is gVisor with host sockets closed: no sandbox could "
            f"attach. {REGISTRATION_ADVICE}"
        )
        raise SandboxStartError(message)
    return chosen


def _by_name(name: str, runtimes: tuple[RegisteredRuntime, ...]) -> Runtime:
    for runtime in runtimes:
        if runtime.name == name:
            return runtime.chosen()
    names = ", ".join(runtime.name for runtime in runtimes)
    message = (
        f"The engine has no runtime {name!r}; expected auto, gvisor, or one of: {names}. "
        "Change the setting `runtime`, or register it in /etc/docker/daemon.json."
    )
    raise SettingsError(message)
