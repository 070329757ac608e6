"""Containers of the sandbox image that hold a bare interpreter: the floor of starts and of memory.

Without it the engine's own time and a Python's own memory would be counted as ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from orchestrator.bench.ground import Ground
from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import DockerClient, ask_engine, connect, engine_errors
from orchestrator.sandbox.runtimes import choose_runtime

_PYTHON: Final = "/usr/bin/python3.13"
_OUTPUT_S = 30.0
_LOOK_S = 0.02


class BareContainers:
    """Starts bare containers on this host's engine. Made by `open_bare_containers`. Blocks."""

    def __init__(self, client: DockerClient, *, image_id: str, runtime: str) -> None:
        """Takes a connected client, which stays the caller's."""
        self._client = client
        self._options: dict[str, Any] = {
            "image": image_id,
            "runtime": runtime,
            "network_mode": "none",
            "entrypoint": [_PYTHON, "-I", "-c"],
        }

    def time_run(self, source: str) -> float:
        """Runs a program in a container to its end and returns the seconds that took.

        As `docker run` does it: create, start, wait. Removing the container is not counted.

        Raises:
            SandboxStartError: The engine refused, or the program failed.
        """
        with engine_errors("running a bare container"):
            begun_s = time.perf_counter()
            container = self._client.containers.create(command=[source], **self._options)
            try:
                container.start()
                exit_code = container.wait()["StatusCode"]
                took_s = time.perf_counter() - begun_s
            finally:
                container.remove(force=True)
        if exit_code:
            raise SandboxStartError(f"expected a bare container to end with 0, got {exit_code}")
        return took_s

    @contextmanager
    def running(self, source: str) -> Iterator[str]:
        """Yields the id of a container that runs a program; leaving the context removes it."""
        with engine_errors("running a bare container"):
            container = self._client.containers.run(
                command=[source], detach=True, stdin_open=True, **self._options
            )
            try:
                yield str(container.id)
            finally:
                container.remove(force=True)

    def wait_for_output(self, container_id: str) -> None:
        """Returns when a container has printed something.

        Raises:
            SandboxStartError: It has not within a while, or the engine refused.
        """
        end_s = time.monotonic() + _OUTPUT_S
        with engine_errors("waiting for a bare container"):
            container = self._client.containers.get(container_id)
            # Asked again and again: the SDK gives a stream's connection back only at its end.
            while not container.logs():
                if time.monotonic() > end_s:
                    raise SandboxStartError(f"a bare container said nothing in {_OUTPUT_S:g} s")
                time.sleep(_LOOK_S)


@asynccontextmanager
async def open_bare_containers(ground: Ground) -> AsyncIterator[BareContainers]:
    """Yields what starts bare containers under the runtime that sandboxes are started under.

    Raises:
        SandboxStartError: The engine did not answer.
        SettingsError: It has no such runtime.
    """
    answers = await asyncio.to_thread(ask_engine, ground.endpoint)
    runtime = choose_runtime(ground.settings.runtime, answers.info)
    client = await asyncio.to_thread(connect, ground.endpoint)
    try:
        yield BareContainers(client, image_id=ground.image_id, runtime=runtime.name)
    finally:
        client.close()
