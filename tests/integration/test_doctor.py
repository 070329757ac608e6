"""`rlm doctor` on the real host, and on hosts that its engine is made to look like."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.broker_host import short_directory
from support.engine_proxy import EngineProxy, open_proxy

from orchestrator.cli.exit_codes import ExitCode
from orchestrator.sandbox.docker_client import ask_engine
from orchestrator.sandbox.engine_host import find_engine
from orchestrator.sandbox.statement import component_version

pytestmark = pytest.mark.docker

COMMAND = Path(sys.executable).with_name("rlm")
ENDPOINT = find_engine(docker_host=None, runtime_dir=None).endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the command told, and how it ended."""

    exit_code: int
    value: dict[str, Any]

    def finding(self, name: str) -> dict[str, str]:
        """Returns one finding."""
        [found] = [finding for finding in self.value["findings"] if finding["id"] == name]
        return dict(found)


async def doctor(endpoint: str, *options: str) -> Told:
    with short_directory() as directory:
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *("doctor", "--json", "--runtime", "runc", *options),
            env={
                "HOME": str(directory),
                "PATH": "/usr/bin:/usr/sbin:/bin:/sbin",
                "RLM_DOCKER_HOST": endpoint,
                "RLM_RUNTIME_DIRECTORY": str(directory / "r"),
                "RLM_SANDBOX__MEMORY_BYTES": str(256 * 2**20),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, said = await process.communicate()
    assert b"Traceback" not in said
    assert process.returncode is not None
    return Told(exit_code=process.returncode, value=json.loads(printed))


@pytest.fixture
async def proxy() -> AsyncIterator[EngineProxy]:
    with short_directory() as directory:
        async with open_proxy(ENDPOINT.removeprefix("unix://"), directory / "p.sock") as opened:
            yield opened


async def test_limits_are_seen_to_bite_on_this_host() -> None:
    """A sandbox is started and each limit tried; what cannot be told here is said, not passed."""
    told = await doctor(ENDPOINT)

    assert told.exit_code == ExitCode.DONE
    assert told.value["is_ready"] is True
    assert told.finding("sandbox")["status"] == "ok"
    for name in ("process-limit", "scratch-size", "scratch-names", "memory-limit"):
        assert told.finding(f"trial-{name}")["status"] == "ok"
    assert told.finding("trial-cpu-limit")["status"] in {"ok", "warning"}  # a busy host cannot tell


async def test_quick_look_starts_nothing() -> None:
    """Who asks for a look alone gets no trial, and nothing is said of what was not tried."""
    told = await doctor(ENDPOINT, "--quick")

    names = {finding["id"] for finding in told.value["findings"]}
    assert not {name for name in names if name == "sandbox" or name.startswith("trial-")}


HOSTS = {
    "swap accounting off": (
        (b'"SwapLimit":true', b'"SwapLimit":null'),
        ("limits", "failed", "swap"),
    ),
    "no bound on processes": (
        (b'"PidsLimit":true', b'"PidsLimit":null'),
        ("limits", "failed", "processes"),
    ),
    "no bound on CPU": (
        (b'"CpuCfsQuota":true', b'"CpuCfsQuota":null'),
        ("limits", "failed", "CPU"),
    ),
    "a rootless engine": (
        (b'"name=seccomp,profile=default"', b'"name=seccomp","name=rootless"'),
        ("user-namespace", "ok", "rootless"),
    ),
    "an engine that warns": (
        (b'"Warnings":null', b'"Warnings":"!" '),
        ("engine-warnings", "warning", "!"),
    ),
    "control groups of no version": (
        (b'"CgroupVersion":"', b'"CgroupVorsion":"'),
        ("cgroups", "warning", "no version"),
    ),
}


@pytest.mark.parametrize("host", HOSTS)
async def test_host_that_differs_is_reported(proxy: EngineProxy, host: str) -> None:
    """What an engine says of such a host is found under its name, and fails where it must."""
    (said, instead), (name, status, words) = HOSTS[host]
    if said not in json.dumps(ask_engine(ENDPOINT).info, separators=(",", ":")).encode():
        pytest.skip(f"the engine at hand does not say {said.decode()}")
    proxy.twist_answer(said, instead)

    told = await doctor(proxy.endpoint, "--quick")

    found = told.finding(name)
    assert found["status"] == status
    assert words in found["found"]
    assert told.exit_code == (ExitCode.FAILED if status == "failed" else ExitCode.DONE)


async def test_unreadable_version_is_reported(proxy: EngineProxy) -> None:
    """A runc whose version says nothing may be any, and that is said."""
    version = component_version(ask_engine(ENDPOINT).version, "runc").encode()
    proxy.twist_answer(b'"Version":"' + version, b'"Version":"' + b"?" * len(version))

    told = await doctor(proxy.endpoint, "--quick")

    assert told.finding("runc")["status"] == "warning"
    assert "no version that can be read" in told.finding("runc")["found"]


async def test_engine_without_seccomp_is_refused(proxy: EngineProxy) -> None:
    """Neither a finding alone nor a weaker sandbox: it fails, and none starts."""
    proxy.twist_answer(b"name=seccomp", b"name=nothing")

    told = await doctor(proxy.endpoint)

    assert told.exit_code == ExitCode.FAILED
    assert told.finding("seccomp")["status"] == "failed"
    assert told.finding("sandbox")["status"] == "failed"
    assert "seccomp" in told.finding("sandbox")["found"]


async def test_engine_that_ignores_a_limit_is_refused(proxy: EngineProxy) -> None:
    """A limit that was accepted and not set is found at the start, and named."""
    proxy.twist(b'"PidsLimit": 64', b'"PidsLimit": -1')

    told = await doctor(proxy.endpoint)

    assert told.exit_code == ExitCode.FAILED
    assert "PidsLimit" in told.finding("sandbox")["found"]


async def test_same_engine_through_the_same_proxy_control(proxy: EngineProxy) -> None:
    """Left alone, the proxy changes nothing: what was refused above was what was twisted."""
    told = await doctor(proxy.endpoint, "--quick")

    assert told.exit_code == ExitCode.DONE
