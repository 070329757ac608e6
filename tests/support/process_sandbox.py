"""The real worker as a plain process of this host, behind the real broker: no container, no walls.

For cells of a test's own alone. It shows what worker and broker do together where no engine is, and
what of a failure is theirs and not the container's.
"""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from support.broker_host import short_directory
from support.statements import CONTAINER

from orchestrator.app.brokers import open_brokers
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, PoolLimits, SandboxLimits
from orchestrator.ports import SandboxProvider, UntilListening
from orchestrator.run_to_end import run_to_end
from orchestrator.sandbox.launcher import SandboxLauncher
from orchestrator.sandbox.pool import open_pool
from orchestrator.settings import Settings
from sandbox_image.walls import find_walls

_NO_IMAGE = "sha256:" + "0" * 64


class ProcessContainer:
    """One worker; a `Container` that contains nothing."""

    runtime = "process"
    statement = CONTAINER  # of no container: what a statement of a real one looks like

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Takes over a worker whose standard error is a pipe."""
        self._process = process

    @property
    def container_id(self) -> str:
        """The worker's number."""
        return str(self._process.pid)

    async def wait_for_exit(self) -> None:
        """See `Container.wait_for_exit`."""
        await self._process.wait()

    async def obituary(self) -> str:
        """See `Container.obituary`."""
        if self._process.returncode is None:
            return "The worker is still running."
        assert self._process.stderr is not None
        last_words = (await self._process.stderr.read()).decode(errors="replace")
        return f"The worker ended with {self._process.returncode}. {last_words}"

    async def destroy(self) -> None:
        """Kills the worker and what it has started, which no namespace ends with it."""
        if self._process.returncode is None:
            worker = psutil.Process(self._process.pid)
            for process in [*worker.children(recursive=True), worker]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        await run_to_end(self._process.wait())


class ProcessBackend:
    """Starts workers; a `ContainerBackend`."""

    image_id = _NO_IMAGE

    @property
    def promised_walls(self) -> Walls:
        """What a worker finds around itself: that of this process, which is nothing.

        What the REPL process gives up it gives up here as well; only a worker of root's may look
        into it all the same.
        """
        found: dict[str, Any] = find_walls()._asdict()
        found["is_host_kernel"] = found.pop("kernel_release") == platform.release()
        for name, value in found.items():
            if isinstance(value, tuple):
                found[name] = frozenset(value)
        found |= {"repl_open_calls": frozenset(), "repl_seccomp_mode": 2}
        return Walls(**found)

    async def start(
        self,
        *,
        sandbox_id: SandboxId,
        socket_directory: Path,
        listening: UntilListening | None = None,
    ) -> ProcessContainer:
        """See `ContainerBackend.start`; the directory is where it is, and not mounted."""
        del sandbox_id
        if listening is not None:
            await listening()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandbox_image", str(socket_directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
        )
        return ProcessContainer(process)

    async def sweep(self) -> int:
        """Finds nothing: what it started ends with it."""
        return 0


@asynccontextmanager
async def open_process_provider(
    *,
    sandbox: SandboxLimits,
    cell: CellLimits,
    policy: LanguagePolicy,
    broker: BrokerIsolation = BrokerIsolation.IN_PROCESS,
    pool: PoolLimits | None = None,
) -> AsyncIterator[SandboxProvider]:
    """Yields a provider of workers without a container, which wait in a pool if there is one."""
    settings = Settings(sandbox=sandbox, cell=cell, policy=policy, broker=broker)
    with short_directory() as directory:
        async with open_brokers(settings) as make_broker:
            launcher = SandboxLauncher(
                backend=ProcessBackend(), broker=make_broker(directory), limits=sandbox
            )
            if pool is None:
                yield launcher
            else:
                async with open_pool(launcher, limits=pool) as opened:
                    yield opened
        assert list(directory.iterdir()) == []
