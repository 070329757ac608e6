"""What whoever takes over a broker's process has gained, and what its death costs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from support.broker_host import PATIENCE_S, EchoQueries, short_directory, until
from support.broker_process_probes import TOLD, entry_module
from support.scripted_worker import WALLS, ScriptedWorker

from orchestrator.broker_process.nursery_handle import ENTRY, Nursery, open_nursery
from orchestrator.broker_process.process_attachment import ProcessAttachment
from orchestrator.broker_process.process_broker import ProcessBroker, ProcessEndpoint, Watch
from orchestrator.domain import LanguagePolicy, Outcome, SandboxId
from orchestrator.errors import SandboxLostError, SandboxStartError
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits

KEY = "sk-proj-of-the-orchestrator"
#: What a broker's process is left: without it the refusals would prove nothing.
LEFT = {"map memory", "start a thread", "make a pair of sockets"}


def broker_of(nursery: Nursery, directory: Path, *, watch: Watch | None = None) -> ProcessBroker:
    """Returns a broker of default limits."""
    return ProcessBroker(
        nursery=nursery,
        runtime_directory=directory,
        cell_limits=CellLimits(),
        query_limits=QueryLimits(),
        sandbox_limits=SandboxLimits(),
        language_policy=LanguagePolicy.GUARDED,
        watch=watch,
    )


@asynccontextmanager
async def listening(broker: ProcessBroker) -> AsyncIterator[ProcessEndpoint]:
    """Yields an endpoint nobody has dialled yet."""
    async with broker.open(
        sandbox_id=SandboxId("under-attack"), queries=EchoQueries(), promised_walls=WALLS
    ) as endpoint:
        await endpoint.listening()
        yield endpoint


@asynccontextmanager
async def attached(
    broker: ProcessBroker,
) -> AsyncIterator[tuple[ProcessEndpoint, ProcessAttachment, ScriptedWorker]]:
    """Yields an attached sandbox."""
    async with listening(broker) as endpoint, ScriptedWorker(endpoint.socket_directory) as worker:
        await worker.greet()
        yield endpoint, await endpoint.attached(timeout_s=PATIENCE_S), worker


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Any]]:
    """Lays out what a broker's process must not reach, all of it open to this user."""
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        (directory / "secret").write_text(KEY)
        engine = stack.enter_context(socket.socket(socket.AF_UNIX))
        engine.bind(str(directory / "docker.sock"))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0rlm-test-{os.getpid()}")
        tcp = stack.enter_context(socket.socket(socket.AF_INET))
        tcp.bind(("127.0.0.1", 0))
        for listener in (engine, abstract, tcp):
            listener.listen()
        yield {
            "file": str(directory / "secret"),
            "engine_socket": str(directory / "docker.sock"),
            "abstract_socket": f"rlm-test-{os.getpid()}",
            "tcp_port": tcp.getsockname()[1],
            "orchestrator_pid": os.getpid(),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(targets: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a sealed broker's process can still do, and its nursery could before it gave up any."""
    path = tmp_path_factory.mktemp("entry")
    (path / "probing_entry.py").write_text(entry_module(targets))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign] # a handler is this
    logger = logging.getLogger("orchestrator.probe")
    with pytest.MonkeyPatch.context() as patch, short_directory() as directory:
        patch.syspath_prepend(str(path))
        patch.setenv("OPENAI_API_KEY", KEY)
        logger.addHandler(handler)
        try:
            async with (
                open_nursery(entry="probing_entry:main") as nursery,
                attached(broker_of(nursery, directory)),
            ):
                await until(lambda: any(TOLD in line for line in lines))
        finally:
            logger.removeHandler(handler)
    found: dict[str, Any] = json.loads(next(line for line in lines if TOLD in line).split(TOLD)[1])
    return found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "what",
    [
        "read a file",
        "list a directory",
        "make a file",
        "read the orchestrator's environment",
        "open the orchestrator's memory",
        "reach into the orchestrator",
        "signal the orchestrator",
        "call the engine's socket",
        "call an abstract socket",
        "call over TCP",
        "run a program",
        "start a process",
        "map memory to run it",
        "make a namespace",
    ],
)
async def test_broker_process_cannot(what: str, told: dict[str, Any]) -> None:
    """What a way out would be made of is refused, and worked before the walls went up."""
    assert told["control"][what] == "done"
    # Refused, or not there: in its root directory is nothing, and nobody listens in its network.
    assert told["sealed"][what] in {"EPERM", "EACCES", "ENOENT", "ECONNREFUSED"}


@pytest.mark.asyncio(loop_scope="module")
async def test_every_probe_has_its_verdict(told: dict[str, Any]) -> None:
    """Nothing is tried without being looked at: what is not refused is what serving needs."""
    assert {what for what, verdict in told["sealed"].items() if verdict == "done"} == LEFT


@pytest.mark.asyncio(loop_scope="module")
async def test_broker_process_is_told_no_secret(told: dict[str, Any]) -> None:
    """Environment and arguments hold nothing of the orchestrator's, which holds a key."""
    # gRPC's switches; and CPython sets one by itself where there is no locale (PEP 538).
    assert set(told["environment"]) <= {"GRPC_EXPERIMENTS", "LC_CTYPE"}
    assert KEY not in json.dumps(told["arguments"])


@pytest.mark.asyncio(loop_scope="module")
async def test_broker_process_holds_few_descriptors(told: dict[str, Any]) -> None:
    """No file, directory or device of the host is open in it, but for the null device."""
    kinds = told["descriptors"]

    assert kinds.count("device") == 2  # its standard input and output
    assert not {"file", "directory"} & set(kinds)
    assert len(kinds) < 24


@pytest.mark.asyncio(loop_scope="module")
async def test_broker_process_is_another_user(told: dict[str, Any]) -> None:
    """Under an orchestrator that is root it is a user that nothing else is."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    assert len(set(told["uids"])) == 1
    assert told["uids"][0] > 2**30


@pytest.mark.asyncio(loop_scope="module")
async def test_broker_process_is_bounded(told: dict[str, Any]) -> None:
    """Its memory, its files and its descriptors have limits of their own."""
    assert told["limits"]["CORE"] == 0
    assert told["limits"]["FSIZE"] <= 4096
    assert told["limits"]["NOFILE"] <= 256
    assert told["limits"]["DATA"] < 2**30 + (os.cpu_count() or 1) * 2**26


async def test_death_of_a_broker_process_ends_one_sandbox() -> None:
    """A broker's process that is killed loses its own sandbox, with the reason, and no other."""
    with short_directory() as directory:
        async with open_nursery() as nursery:
            broker = broker_of(nursery, directory)
            async with (
                attached(broker) as (endpoint, attachment, worker),
                attached(broker) as (_, neighbour, other_worker),
            ):
                cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
                other = asyncio.create_task(neighbour.run_cell("pass", timeout_s=60))
                await worker.hear_cell()
                assert endpoint.process.pid is not None
                os.kill(endpoint.process.pid, signal.SIGKILL)
                with pytest.raises(
                    SandboxLostError, match="the broker's process ended: it was killed by SIGKILL"
                ):
                    await cell
                await attachment.wait_for_end()

                await other_worker.finish(await other_worker.hear_cell())
                assert (await other).outcome is Outcome.SUCCEEDED
            assert list(directory.iterdir()) == []


async def test_broker_process_that_hangs_is_ended() -> None:
    """A broker's process that does not answer is killed, and its caller is told."""
    with short_directory() as directory:
        async with open_nursery() as nursery:
            broker = broker_of(nursery, directory, watch=Watch(interval_s=0.05, patience_s=1.0))
            async with attached(broker) as (endpoint, attachment, worker):
                cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
                await worker.hear_cell()
                assert endpoint.process.pid is not None
                process = psutil.Process(endpoint.process.pid)
                process.suspend()
                async with asyncio.timeout(PATIENCE_S):
                    with pytest.raises(SandboxLostError, match="stopped answering"):
                        await cell
                await until(lambda: not process.is_running())


async def test_watched_broker_process_lives_control() -> None:
    """One that answers is not killed by the same watch, so it is hanging that kills."""
    with short_directory() as directory:
        async with open_nursery() as nursery:
            broker = broker_of(nursery, directory, watch=Watch(interval_s=0.05, patience_s=1.0))
            async with attached(broker) as (_, attachment, worker):
                cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
                cell_id = await worker.hear_cell()
                await asyncio.wait({cell}, timeout=1.5)
                await worker.finish(cell_id)

                assert (await cell).outcome is Outcome.SUCCEEDED


async def test_death_of_the_nursery_is_survived() -> None:
    """What the nursery has started dies with it; the next sandbox has a new one."""
    with short_directory() as directory:
        async with open_nursery() as nursery:
            broker = broker_of(nursery, directory)
            async with attached(broker) as (endpoint, attachment, worker):
                cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
                await worker.hear_cell()
                assert nursery.pid is not None
                assert endpoint.process.pid is not None
                process = psutil.Process(endpoint.process.pid)
                os.kill(nursery.pid, signal.SIGKILL)
                with pytest.raises(SandboxLostError, match="the broker's process ended"):
                    await cell
                await until(lambda: not process.is_running())
            async with attached(broker) as (_, attachment, worker):
                cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
                await worker.finish(await worker.hear_cell())

                assert (await cell).outcome is Outcome.SUCCEEDED


def test_nursery_outlives_the_thread_that_started_it() -> None:
    """An orchestrator that was opened in one thread can be used in another, and closed there."""

    async def serve_one_cell(nursery: Nursery, directory: Path) -> Outcome:
        async with attached(broker_of(nursery, directory)) as (_, attachment, worker):
            cell = asyncio.create_task(attachment.run_cell("pass", timeout_s=60))
            await worker.finish(await worker.hear_cell())
            return (await cell).outcome

    with short_directory() as directory, asyncio.Runner() as runner:
        opening = open_nursery()
        opened: list[Nursery] = []

        def begin() -> None:
            opened.append(runner.run(opening.__aenter__()))
            # The first cell as well: a nursery that has just begun would not notice.
            runner.run(serve_one_cell(opened[0], directory))

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()

        assert runner.run(serve_one_cell(opened[0], directory)) is Outcome.SUCCEEDED
        runner.run(opening.__aexit__(None, None, None))


async def test_nursery_that_cannot_begin_is_a_failed_start() -> None:
    """Whoever wants a sandbox reads why there is none, in the words of what failed."""
    with short_directory() as directory:
        async with open_nursery(entry="not.there:main") as nursery:
            with pytest.raises(SandboxStartError, match="No module named 'not'"):
                async with listening(broker_of(nursery, directory)):
                    pytest.fail("it listens")
        assert list(directory.iterdir()) == []


ORCHESTRATOR = f"""
import asyncio, sys
from pathlib import Path
from orchestrator.broker_process.nursery_handle import open_nursery
from orchestrator.broker_process.process_broker import ProcessBroker
from orchestrator.domain import LanguagePolicy
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from support.scripted_worker import WALLS

async def main(directory):
    async with open_nursery(entry={ENTRY!r}) as nursery:
        broker = ProcessBroker(
            nursery=nursery, runtime_directory=directory, cell_limits=CellLimits(),
            query_limits=QueryLimits(), sandbox_limits=SandboxLimits(),
            language_policy=LanguagePolicy.GUARDED,
        )
        async with broker.open(sandbox_id="s", queries=None, promised_walls=WALLS) as endpoint:
            await endpoint.listening()
            print(nursery.pid, endpoint.process.pid, flush=True)
            await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_killed_orchestrator_leaves_no_process() -> None:
    """Nursery and broker's process are gone a moment after the orchestrator is, however it went."""
    with short_directory() as directory:
        orchestrator = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ORCHESTRATOR, str(directory)),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert orchestrator.stdout is not None
        pids = [int(pid) for pid in (await orchestrator.stdout.readline()).split()]
        processes = [psutil.Process(pid) for pid in pids]
        assert [_is_alive(process) for process in processes] == [True, True]
        orchestrator.kill()
        await orchestrator.wait()

        await until(lambda: not any(_is_alive(process) for process in processes))


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process still does anything; nobody here may be there to bury an orphan."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
