"""Which engine is taken, which is refused, and what the user reads then."""

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SandboxStartError, SettingsError
from orchestrator.sandbox.docker_client import Dial, DialOutcome, EngineAnswers, dial
from orchestrator.sandbox.engine_host import (
    EngineInfo,
    Host,
    advise,
    explain_absence,
    find_engine,
    find_objection,
    list_endpoints,
    read_distribution,
    read_info,
    search,
)

ENDPOINT = "unix:///var/run/docker.sock"
LINUX = Host(
    platform="linux",
    kernel=os.uname().release,
    uid=0,
    distribution="debian",
    home=Path("/root"),
    runtime_dir=None,
)
VERSION = {
    "Platform": {"Name": "Docker Engine - Community"},
    "Components": [{"Name": "Engine"}],
    "Version": "28.2.2",
    "ApiVersion": "1.50",
}
INFO: dict[str, Any] = {
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "OSType": "linux",
    "KernelVersion": LINUX.kernel,
    "Architecture": "x86_64",
    "CgroupVersion": "2",
    "CgroupDriver": "systemd",
    "Driver": "overlay2",
    "Runtimes": {"runc": {}, "runsc": {}},
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "Warnings": None,
}


def info_of(version: dict[str, Any] = VERSION, **changes: object) -> EngineInfo:
    answers = EngineAnswers(version=version, info={**INFO, **changes})
    return read_info(answers, endpoint=ENDPOINT, host=LINUX)


@contextmanager
def engine_that_says(folder: Path, info: dict[str, Any]) -> Iterator[str]:
    """Answers `/version` and `/info` of the Engine API on a Unix socket, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(VERSION if self.path.endswith("/version") else info).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
            del format, args

    path = folder / "engine.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def test_local_engine_is_accepted() -> None:
    """An engine on this very kernel is no cause for objection."""
    assert find_objection(info_of(), LINUX) is None


def test_facts_are_read_from_the_engines_answers() -> None:
    """What later judgement rests on is read from where the Engine API puts it."""
    info = info_of(SecurityOptions=["name=rootless", "name=seccomp,profile=builtin"])

    assert info.runtimes == ("runc", "runsc")
    assert info.cgroup_version == "2"
    assert info.storage_driver == "overlay2"
    assert info.is_rootless
    assert not info_of().is_rootless


@pytest.mark.parametrize(
    ("version", "changes", "said"),
    [
        (VERSION, {"OperatingSystem": "Docker Desktop"}, "Docker Desktop"),
        (VERSION, {"KernelVersion": "6.1.0-somewhere-else"}, "another machine"),
        (VERSION, {"OSType": "windows"}, "expected linux"),
        ({**VERSION, "ApiVersion": "1.40"}, {}, "expected 1.41 or newer"),
        ({**VERSION, "Platform": {}, "Components": [{"Name": "Podman Engine"}]}, {}, "Podman"),
    ],
)
def test_engine_that_cannot_seal_is_refused(
    version: dict[str, Any], changes: dict[str, str], said: str
) -> None:
    """An engine that a host socket cannot reach into, or that is not Docker, is named as such."""
    objection = find_objection(info_of(version, **changes), LINUX)

    assert objection is not None
    assert said in objection
    assert ENDPOINT in objection


@pytest.mark.parametrize("operating_system", ["Docker Desktop", "OrbStack"])
def test_virtual_machine_is_refused_with_what_to_do(operating_system: str) -> None:
    """On a Mac every engine runs in a virtual machine, and the user reads where to run instead."""
    mac = replace(LINUX, platform="darwin")

    objection = find_objection(info_of(OperatingSystem=operating_system), mac)

    assert objection is not None
    assert operating_system in objection
    assert "Linux virtual machine" in objection
    assert "WSL2" in objection


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2376", "ssh://me@build-host"])
def test_remote_docker_host_is_refused_unasked(address: str) -> None:
    """A DOCKER_HOST beyond a network is a wrong setting; no connection is tried."""
    with pytest.raises(SettingsError, match="expected a unix:// address"):
        search(LINUX, docker_host=address)


def test_desktop_is_found_out_over_the_wire(tmp_path: Path) -> None:
    """The refusal holds for an engine that is really asked, not only for given facts."""
    with (
        engine_that_says(tmp_path, {**INFO, "OperatingSystem": "Docker Desktop"}) as endpoint,
        pytest.raises(SandboxStartError, match="does not cross into it"),
    ):
        search(LINUX, docker_host=endpoint)


def test_desktop_control(tmp_path: Path) -> None:
    """The same engine is taken once it says that it runs here, so the refusal is about that."""
    with engine_that_says(tmp_path, INFO) as endpoint:
        info = search(LINUX, docker_host=endpoint)

    assert info.endpoint == endpoint
    assert info.version == "28.2.2"


def test_absence_names_every_place_and_what_came(tmp_path: Path) -> None:
    """With no engine the user reads what was tried, what came of each, and what to do."""
    missing = f"unix://{tmp_path}/nothing.sock"

    with pytest.raises(SandboxStartError) as raised:
        search(LINUX, docker_host=missing)

    message = str(raised.value)
    assert f"{missing}: there is no such socket" in message
    assert "rlm setup" in message


def test_rootless_and_desktop_sockets_are_looked_for() -> None:
    """The system's socket comes first, a rootless one next, and Desktop's last."""
    host = replace(LINUX, uid=1000, runtime_dir=Path("/run/user/1000"), home=Path("/home/me"))

    endpoints = list_endpoints(host, docker_host=None)

    assert endpoints[:2] == (ENDPOINT, "unix:///run/user/1000/docker.sock")
    assert endpoints[-1].startswith("unix:///home/me/.docker/")
    assert list_endpoints(host, docker_host="unix:///x") == ("unix:///x",)


def test_dead_socket_is_told_from_a_missing_one(tmp_path: Path) -> None:
    """A socket file that an ended engine left behind is not taken for an engine."""
    path = tmp_path / "dead.sock"
    with socketserver.UnixStreamServer(str(path), BaseHTTPRequestHandler):
        assert dial(f"unix://{path}").outcome is DialOutcome.OPENED

    assert dial(f"unix://{path}").outcome is DialOutcome.NOBODY_LISTENS
    assert dial(f"unix://{tmp_path}/none.sock").outcome is DialOutcome.MISSING


@pytest.mark.parametrize(
    ("host", "outcome", "said"),
    [
        (LINUX, DialOutcome.MISSING, "rlm setup"),
        (replace(LINUX, uid=1000), DialOutcome.MISSING, "sudo apt-get update"),
        (replace(LINUX, uid=1000), DialOutcome.DENIED, "usermod -aG docker"),
        (replace(LINUX, distribution="fedora"), DialOutcome.MISSING, "this distribution (fedora)"),
        (replace(LINUX, platform="darwin"), DialOutcome.MISSING, "Linux virtual machine"),
    ],
)
def test_advice_fits_the_host(host: Host, outcome: DialOutcome, said: str) -> None:
    """The user is told what to do on this kind of host, and nothing that cannot work there."""
    dials = [Dial(endpoint=ENDPOINT, outcome=outcome)]

    assert said in advise(dials, host=host)
    assert outcome.value in explain_absence(dials, host=host)


def test_distribution_is_read_as_os_release_defines_it(tmp_path: Path) -> None:
    """The first file that exists counts, quoted or not; with none, nothing is assumed."""
    release = tmp_path / "os-release"
    release.write_text('NAME="Debian GNU/Linux"\nID="debian"\nVERSION_ID="12"\n')

    assert read_distribution([tmp_path / "absent", release]) == "debian"
    assert read_distribution([tmp_path / "absent"]) == ""


def test_wrong_docker_host_is_named_first(tmp_path: Path) -> None:
    """Whoever set DOCKER_HOST is told to correct it before being told to install anything."""
    endpoint = f"unix://{tmp_path}/nowhere.sock"

    with pytest.raises(SandboxStartError) as refusal:
        find_engine(docker_host=endpoint, runtime_dir=None)

    first_line = str(refusal.value).splitlines()[0]
    assert first_line.startswith(f"DOCKER_HOST is {endpoint}, so no other socket was tried.")
    assert first_line.endswith("Correct it, or unset it.")
