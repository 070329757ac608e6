"""Gives a host that has no Docker engine one, where it may, and says so.

Without it the first thing a newcomer meets is a missing daemon. With it done silently, a program
would install a root service that nobody asked for: so every step is reported before it is taken,
and a host where this is not ours to do gets the commands instead.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import Dial, DialOutcome, dial
from orchestrator.sandbox.engine_host import (
    EngineInfo,
    Host,
    explain_absence,
    list_endpoints,
    read_host,
    search,
)

Report = Callable[[str], None]

_ENDPOINT = "unix:///var/run/docker.sock"
_LOG = Path("/var/log/rlm-sandbox-dockerd.log")
_PID_FILE = Path("/var/run/docker.pid")  # dockerd's own
_PROGRAM = "dockerd"
_SYSTEMD_RUNS = Path("/run/systemd/system")  # sd_booted(3): this folder is how one asks
_PACKAGES = ("docker.io", "iptables")  # iptables is only a recommendation, yet dockerd needs it
_START_DEADLINE_S = 60.0  # 2 s here; a loaded host with many images to read takes longer
_POLL_S = 0.1
_LOG_LINES_SHOWN = 15


class Step(StrEnum):
    """One thing to do to a host, in the order they are done."""

    INSTALL = "install"
    START_WITH_SYSTEMD = "start with systemd"
    START_DAEMON = "start dockerd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What is already on the host."""

    dockerd: str | None  # path of the engine's program
    is_systemd_running: bool


def plan(host: Host, installed: Installed, dials: Sequence[Dial]) -> tuple[Step, ...] | None:
    """Returns what has to be done to get an engine, or None where this process may not do it.

    Args:
        host: The host the engine is for.
        installed: What is already there.
        dials: What became of the attempts to reach an engine; all failed.
    """
    if not (host.installs_with_apt and host.is_root):
        return None
    if any(attempt.outcome is DialOutcome.DENIED for attempt in dials):
        return None  # an engine is there; a second one beside it would fight it for its state
    start = Step.START_WITH_SYSTEMD if installed.is_systemd_running else Step.START_DAEMON
    return (start,) if installed.dockerd else (Step.INSTALL, start)


def ensure_engine(
    report: Report, *, docker_host: str | None, runtime_dir: str | None
) -> EngineInfo:
    """Returns a usable engine, having installed and started one if there was none.

    Does nothing when an engine answers. Installs only on Debian and Ubuntu, only as root, and
    only when no other engine was named.

    Args:
        report: Called with one sentence before each step that changes the host.
        docker_host: The value of `DOCKER_HOST`, if any.
        runtime_dir: The value of `XDG_RUNTIME_DIR`, if any.

    Raises:
        SettingsError: `docker_host` is not the address of a Unix socket.
        SandboxStartError: An engine answers but cannot be used; or there is none and this host
            is not one to install on (the message has the commands); or installing or starting
            it failed (the message has the last lines of its output).
    """
    host = read_host(runtime_dir=runtime_dir)
    if docker_host:
        return search(host, docker_host=docker_host)
    dials = [dial(endpoint) for endpoint in list_endpoints(host, docker_host=None)]
    if any(attempt.outcome is DialOutcome.OPENED for attempt in dials):
        return search(host, docker_host=None)
    installed = Installed(dockerd=shutil.which("dockerd"), is_systemd_running=is_systemd_running())
    steps = plan(host, installed, dials)
    if steps is None:
        raise SandboxStartError(explain_absence(dials, host=host))
    for step in steps:
        _take(step, report)
    return search(host, docker_host=_ENDPOINT)


def is_systemd_running() -> bool:
    """Whether this host's services are systemd's."""
    return _SYSTEMD_RUNS.is_dir()


def reload_engine(report: Report) -> None:
    """Has the system's engine read its configuration anew; nothing that runs on it is stopped.

    Args:
        report: Called with one sentence before it is told to.

    Raises:
        SandboxStartError: Nobody is there to be told.
    """
    if is_systemd_running():
        # An engine may have been started beside systemd all the same.
        with suppress(SandboxStartError):
            report("Having the engine read its configuration: systemctl reload docker")
            run_tool(("systemctl", "reload", "docker"))
            return
    process_id = _find_engine_process()
    report(f"Having the engine read its configuration: kill -HUP {process_id}")
    os.kill(process_id, signal.SIGHUP)


def _find_engine_process() -> int:
    """Returns the engine's process id, once sure that it is the engine's."""
    with suppress(OSError, ValueError):
        process_id = int(_PID_FILE.read_text("ascii"))
        if Path(f"/proc/{process_id}/comm").read_text("utf-8").strip() == _PROGRAM:
            return process_id
    raise SandboxStartError(
        f"{_PID_FILE} does not name the engine's process; reload the engine by hand, and try again."
    )


def _take(step: Step, report: Report) -> None:
    match step:
        case Step.INSTALL:
            install_packages(_PACKAGES, report, purpose="a Docker engine")
        case Step.START_WITH_SYSTEMD:
            report("Starting the Docker engine: systemctl start docker")
            run_tool(("systemctl", "start", "docker"))
        case Step.START_DAEMON:
            _start_daemon(report)


def install_packages(packages: Sequence[str], report: Report, *, purpose: str) -> None:
    """Installs Debian packages without their recommendations, and says so first.

    Args:
        packages: Names of packages.
        report: Called with one sentence before anything is changed.
        purpose: What the packages are for, as a noun phrase.

    Raises:
        SandboxStartError: apt-get failed; the message has the last lines of its output.
    """
    report(f"Installing {purpose} with apt-get, without recommended packages: {' '.join(packages)}")
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--assume-yes")
    run_tool((*quiet, "update"))
    run_tool((*quiet, "install", "--no-install-recommends", *packages))


def run_tool(command: Sequence[str]) -> str:
    """Runs a system tool to its end and returns what it printed, on standard output first.

    Raises:
        SandboxStartError: The tool is missing or exited with an error; the message has the
            command and the last lines it printed.
    """
    line = " ".join(command)
    try:
        done = subprocess.run(  # noqa: S603 - the callers' literals, no shell, nothing from a user
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError as error:
        message = f"Cannot run `{line}`: {error}. Run it by hand to see what is missing."
        raise SandboxStartError(message) from error
    if done.returncode:
        message = (
            f"`{line}` failed with exit code {done.returncode}:\n{_tail(done.stdout + done.stderr)}"
        )
        raise SandboxStartError(message)
    return done.stdout + done.stderr


def _start_daemon(report: Report) -> None:
    """Starts dockerd in a session of its own and waits until its socket opens.

    It outlives this process on purpose: the next command finds it running. dockerd writes its own
    pid file, /var/run/docker.pid, and refuses to start beside a live one.
    """
    command = ("dockerd", "--host", _ENDPOINT)
    report(f"Starting the Docker engine: {' '.join(command)} (log: {_LOG})")
    deadline_s = time.monotonic() + _START_DEADLINE_S
    with _LOG.open("ab") as log:
        daemon = subprocess.Popen(  # noqa: S603 - a literal command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in this terminal must not end the engine
        )
    while time.monotonic() < deadline_s:
        if dial(_ENDPOINT).outcome is DialOutcome.OPENED:
            return
        try:
            exit_code = daemon.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        message = f"dockerd ended with exit code {exit_code}. {_log_end()}"
        raise SandboxStartError(message)
    daemon.terminate()
    message = f"dockerd did not open {_ENDPOINT} within {_START_DEADLINE_S:.0f} s. {_log_end()}"
    raise SandboxStartError(message)


def _log_end() -> str:
    return f"The end of {_LOG}:\n{_tail(_LOG.read_text('utf-8', errors='replace'))}"


def _tail(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-_LOG_LINES_SHOWN:])
