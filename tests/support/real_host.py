"""Gives a test a corner of its own on the real host, and sees what is left in it.

The engine belongs to everybody on the machine. What one test started can be told from the rest by
its runtime directory alone: without a directory for each test, "no container is left" could neither
be said nor be shown wrong.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from unittest.mock import patch

from pydantic import SecretStr
from support.model_server import ROOT_MODEL, SUB_MODEL, ModelServer
from support.runtimes import under_test

from orchestrator import RLM, Settings
from orchestrator.cli.main import command_line
from orchestrator.limits import RunLimits
from orchestrator.sandbox.docker_client import DockerClient
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image import ImageRecord
from orchestrator.sandbox.lease import RuntimeDirectory
from orchestrator.sandbox.reaper import REALM_LABEL
from orchestrator.settings import ProviderSettings

KEY = "sk-proj-Zm9vYmFyMTIzNDU2Nzg5MA"
#: What a user types; the installation that runs the tests has it beside its Python.
COMMAND = Path(sys.executable).with_name("rlm")
_TIMEOUT_S = 120.0


def cell(source: str) -> str:
    """Returns a root model's reply that holds one cell."""
    return f"```repl\n{source}\n```"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and everything it wrote."""

    exit_code: int
    stdout: str
    stderr: str


class RunningCommand:
    """A command that runs. A context manager: leaving it kills a command that is still there."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Takes over a process whose three streams are pipes, and reads two of them."""
        self._process = process
        self._written: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self._changed = threading.Condition()
        streams = {"stdout": process.stdout, "stderr": process.stderr}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream))
            for name, stream in streams.items()
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kills the command where a test left it running, and closes its streams."""
        with self._process:  # closes the streams and waits
            self._process.kill()
            for reader in self._readers:
                reader.join()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        while piece := os.read(stream.fileno(), 2**16):
            with self._changed:
                self._written[name] += piece
                self._changed.notify_all()

    def wait_until_told(self, words: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Waits until `words` are on standard error."""
        with self._changed:
            is_there = self._changed.wait_for(
                lambda: words.encode() in self._written["stderr"], timeout=timeout_s
            )
            told = self._written["stderr"].decode()
        assert is_there, f"expected {words!r} on standard error, got:\n{told}"

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def give(self, data: bytes, *, is_all: bool = True) -> None:
        """Writes its standard input, or a part of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()
        if is_all:
            self._process.stdin.close()

    def wait(self, *, timeout_s: float = _TIMEOUT_S) -> Ended:
        """Waits for the end."""
        exit_code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join()
        return Ended(
            exit_code=exit_code,
            stdout=self._written["stdout"].decode(),
            stderr=self._written["stderr"].decode(),
        )


#: The contexts of tests are short, and what happens in a sandbox is what most are about.
NOT_DIRECT = RunLimits(direct_chars=0)


@dataclass(slots=True, kw_only=True)
class SandboxEngine:
    """The engine and the image that the product set up.

    Attributes:
        info: The engine.
        image: The image of the code under test.
        client: Looks at the engine from outside of the product.
        realms: Those of the runtime directories that tests had.
    """

    info: EngineInfo
    image: ImageRecord
    client: DockerClient
    realms: set[str] = field(default_factory=set)

    def containers(self, realm: str) -> list[str]:
        """Returns the ids of a realm's containers, running or not."""
        label = f"{REALM_LABEL}={realm}"
        return [
            str(entry["Id"])
            for entry in self.client.api.containers(all=True, filters={"label": label})
        ]

    def state(self, container_id: str) -> dict[str, Any]:
        """Returns what the engine knows of how a container is."""
        state: dict[str, Any] = self.client.api.inspect_container(container_id)["State"]
        return state


class RealHost:
    """One test's corner of the host: settings of nobody's, and a runtime directory of its own."""

    def __init__(
        self, *, engine: SandboxEngine, home: Path, runtime_directory: RuntimeDirectory
    ) -> None:
        """Takes an empty home and an empty runtime directory."""
        self.engine = engine
        self.runtime_directory = runtime_directory
        self._home = home
        engine.realms.add(runtime_directory.realm)

    def settings(self, server: ModelServer) -> Settings:
        """Returns settings under which `server` plays both models."""
        return Settings(
            model=ROOT_MODEL,
            sub_model=SUB_MODEL,
            docker_host=self.engine.info.endpoint,
            runtime=under_test().setting,
            runtime_directory=self.runtime_directory.path,
            run=NOT_DIRECT,
            provider=ProviderSettings(
                base_url=server.base_url, api_key=SecretStr(KEY), max_retries=0
            ),
        )

    def rlm(self, server: ModelServer, **choices: Any) -> RLM:  # noqa: ANN401 - constructor arguments
        """Returns the public class, with `server` playing both models."""
        if limits := choices.get("run_limits"):
            choices["run_limits"] = replace(limits, direct_chars=NOT_DIRECT.direct_chars)
        return RLM(settings=self.settings(server), **choices)

    def environment(self, server: ModelServer | None = None, **variables: str) -> dict[str, str]:
        """Returns the whole environment of a command; nothing of this process's is in it."""
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._home),
            "DOCKER_HOST": self.engine.info.endpoint,
            "RLM_RUNTIME": under_test().setting,
            "RLM_RUNTIME_DIRECTORY": str(self.runtime_directory.path),
            "OPENAI_API_KEY": KEY,
            "RLM_PROVIDER__MAX_RETRIES": "0",
            "RLM_MODEL": ROOT_MODEL,
            "RLM_SUB_MODEL": SUB_MODEL,
            "RLM_RUN__DIRECT_CHARS": str(NOT_DIRECT.direct_chars),
        }
        if server is not None:
            environment["OPENAI_BASE_URL"] = server.base_url
        return environment | variables

    def start(
        self, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> RunningCommand:
        """Starts `rlm` with `arguments`, with pipes for its streams."""
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            env=dict(environment or self.environment()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return RunningCommand(process)

    def command(
        self,
        *arguments: object,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Ended:
        """Runs `rlm` with `arguments` to its end."""
        with self.start(*arguments, environment=environment) as running:
            running.give(stdin)
            return running.wait(timeout_s=timeout_s)

    def call(self, *arguments: object, environment: Mapping[str, str] | None = None) -> Ended:
        """Does what `command` does in this process: sooner by the second that imports take."""
        stdout, stderr = io.StringIO(), io.StringIO()
        variables = dict(environment or self.environment())
        with (
            patch.dict(os.environ, variables, clear=True),  # noqa: TID251 - what a command is given
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            exit_code = command_line(list(map(str, arguments)))
        return Ended(exit_code=exit_code, stdout=stdout.getvalue(), stderr=stderr.getvalue())

    def containers(self) -> list[str]:
        """Returns the ids of the containers of this corner, running or not."""
        return self.engine.containers(self.runtime_directory.realm)

    def leftovers(self) -> list[str]:
        """Returns what is there although no orchestrator of this corner runs: one phrase each."""
        directory = self.runtime_directory
        return [
            *(f"container {container_id}" for container_id in self.containers()),
            *(f"socket directory {path.name}" for path in directory.sockets.iterdir()),
            *(f"lock {path.name}" for path in directory.owners.iterdir()),
        ]

    def clear(self) -> None:
        """Removes the containers of this corner, so that a test that failed fails alone."""
        for container_id in self.containers():
            self.engine.client.api.remove_container(container_id, v=True, force=True)
