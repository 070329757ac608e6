"""Chooses the runtime that sandboxes run under, among those an engine has registered.

Without it a gVisor that refuses host sockets would start every sandbox and let none attach, one
that opens the host would pass for a wall, and a misspelt name would surface as an engine's error in
the middle of a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.gvisor_flags import (
    find_openings,
    find_voiding,
    read_flags,
    read_host_sockets,
)
from orchestrator.sandbox.spec import Runtime

_GVISOR_PROGRAM = "runsc"
#: What gVisor is registered with, besides a platform. No network of gVisor's own: a sandbox needs
#: none, and the loopback device is there without.
NEEDED_FLAGS: Final = ("--network=none", "--host-uds=open")
_EXAMPLE_FLAGS = ", ".join(f'"{flag}"' for flag in NEEDED_FLAGS)
REGISTRATION_ADVICE: Final = (
    "Register gVisor with host sockets open: `rlm setup --gvisor` does it on Debian and Ubuntu. By "
    'hand: install runsc, add "runtimes": {"runsc": {"path": "/usr/local/bin/runsc", '
    f'"runtimeArgs": [{_EXAMPLE_FLAGS}]}}}} to /etc/docker/daemon.json, and reload the engine '
    "(systemctl reload docker)."
)


class RuntimeChoice(StrEnum):
    """What the setting `runtime` may say besides a name that the engine has."""

    AUTO = "auto"  # gVisor where it can be used, else the engine's default
    RUNC = "runc"  # the engine's own, also where gVisor is there
    GVISOR = "gvisor"  # or nothing
    REQUIRED = "required"  # gVisor, with nothing in its registration that opens it, or nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRuntime:
    """One runtime of an engine, as its configuration has it."""

    name: str
    path: str  # empty where a containerd shim is registered instead of a program
    shim: str  # as "io.containerd.runsc.v1"; empty where a program is registered
    arguments: tuple[str, ...]

    @property
    def is_gvisor(self) -> bool:
        """Whether it is gVisor's `runsc` by its program, whatever name it was registered under."""
        return _GVISOR_PROGRAM in (PurePosixPath(self.path).name, *self.shim.split("."))

    @property
    def platform(self) -> str:
        """How gVisor runs a sandbox's code, or nothing where that is left to it."""
        return read_flags(self.arguments).get("platform", "")

    @property
    def obstacle(self) -> str:
        """Why no sealed sandbox can run under it, or nothing. A shim's flags cannot be seen."""
        if not self.is_gvisor or self.shim:
            return ""
        flags = read_flags(self.arguments)
        if not read_host_sockets(flags).can_be_dialled:
            return "host sockets are closed, and no sandbox could attach: write --host-uds=open"
        return find_voiding(flags)

    @property
    def objections(self) -> tuple[str, ...]:
        """Why `required` does not take it: one sentence each, with what to write instead."""
        if not self.is_gvisor:
            return ("it is not gVisor",)
        if self.shim:
            how = 'register the program runsc with "path" and "runtimeArgs"'
            return (f"it is the shim {self.shim}, whose flags cannot be seen: {how}",)
        return find_openings(read_flags(self.arguments))

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

    Of several registrations of gVisor the first by name is taken that `required` would take, else
    the first that can be used.

    Args:
        wanted: One of `RuntimeChoice`, or the engine's own name for a runtime; None is `auto`.
        info: The engine's answer to `/info`.

    Raises:
        SandboxStartError: gVisor was asked for, and is not registered, or not so that it can be
            used. Nothing weaker is taken instead.
        SettingsError: The engine has no runtime of that name.
    """
    runtimes = read_runtimes(info)
    match wanted or RuntimeChoice.AUTO:
        case RuntimeChoice.AUTO:
            usable = _find_usable(runtimes)
            return usable.chosen() if usable else _by_name(str(info["DefaultRuntime"]), runtimes)
        case RuntimeChoice.RUNC:
            return _engines_own(runtimes)
        case RuntimeChoice.GVISOR:
            usable = _find_usable(runtimes)
            if usable is None:
                raise SandboxStartError(_describe_absence(runtimes))
            return usable.chosen()
        case RuntimeChoice.REQUIRED:
            return _required(runtimes)
        case name:
            return _by_name(name, runtimes)


def explain_vanished(name: str, info: Mapping[str, Any]) -> str | None:
    """Returns why an engine that had a runtime cannot start anything with it now, if it is that.

    Args:
        name: The runtime that was chosen when the engine was first asked.
        info: What the engine answers to `/info` now.
    """
    runtime = next((item for item in read_runtimes(info) if item.name == name), None)
    if runtime is None:
        what = "is not registered with the engine any more"
        remedy = "Register it in /etc/docker/daemon.json again"
    elif PurePosixPath(runtime.path).is_absolute() and not Path(runtime.path).exists():
        what = f"is registered as {runtime.path}, where nothing is"
        remedy = f"Install it there, or correct its path in /etc/docker/daemon.json{_reload()}"
    else:
        return None
    return (
        f"The runtime {name} {what}. Nothing was started, and no other runtime is taken instead. "
        f"{remedy}, or choose another with the setting `runtime`."
    )


def _reload() -> str:
    return " and reload the engine (systemctl reload docker)"


def _find_usable(runtimes: tuple[RegisteredRuntime, ...]) -> RegisteredRuntime | None:
    usable = [item for item in runtimes if item.is_gvisor and not item.obstacle]
    return min(usable, key=lambda item: bool(item.objections), default=None)


def _required(runtimes: tuple[RegisteredRuntime, ...]) -> Runtime:
    gvisor = [item for item in runtimes if item.is_gvisor]
    closed = next((item for item in gvisor if not item.objections), None)
    if closed is not None:
        return closed.chosen()
    if not gvisor:
        raise SandboxStartError(_describe_absence(runtimes))
    found = "; ".join(f"{item.name}: {', '.join(item.objections)}" for item in gvisor)
    raise SandboxStartError(
        f"gVisor is required with nothing that opens it, and is not registered so. {found}. "
        "Nothing was started. Correct runtimeArgs in /etc/docker/daemon.json and reload the "
        "engine (systemctl reload docker)."
    )


def _engines_own(runtimes: tuple[RegisteredRuntime, ...]) -> Runtime:
    own = _by_name(RuntimeChoice.RUNC, runtimes)
    if own.is_gvisor:
        raise SettingsError(
            "The engine has gVisor registered under the name runc; expected the engine's own "
            "runtime. Change the setting `runtime` to gvisor, or that name in "
            "/etc/docker/daemon.json."
        )
    return own


def _by_name(name: str, runtimes: tuple[RegisteredRuntime, ...]) -> Runtime:
    for runtime in runtimes:
        if runtime.name != name:
            continue
        if runtime.obstacle:
            raise SandboxStartError(
                f"The runtime {name} is gVisor, and {runtime.obstacle}. {REGISTRATION_ADVICE}"
            )
        return runtime.chosen()
    names = ", ".join(runtime.name for runtime in runtimes)
    choices = ", ".join(RuntimeChoice)
    raise SettingsError(
        f"The engine has no runtime {name!r}; expected {choices}, or one of: {names}. "
        "Change the setting `runtime`, or register it in /etc/docker/daemon.json."
    )


def _describe_absence(runtimes: tuple[RegisteredRuntime, ...]) -> str:
    found = "; ".join(
        f"registered as {item.name}, but {item.obstacle}" for item in runtimes if item.is_gvisor
    )
    names = ", ".join(runtime.name for runtime in runtimes)
    return (
        f"The runtime gVisor was asked for and is {found or 'not there'} (the engine has: "
        f"{names}). Nothing was started. {REGISTRATION_ADVICE}"
    )
